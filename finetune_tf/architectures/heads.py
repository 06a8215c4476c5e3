"""Layers above a backbone: poolings, transforms and heads.

Shape legend: B batch, L length, D features, C outputs, V vocabulary.
"""

from typing import Any, Literal

import keras
from keras import ops

from finetune_tf import kernels
from finetune_tf.architectures.layers import PACKAGE, ConfigLayer, LayerNorm, dense
from finetune_tf.errors import ModelError


@keras.saving.register_keras_serializable(PACKAGE)
class Pooling(ConfigLayer):
    """Pools the tokens of a text, or the features of an image, into one vector, without weights.

    Args:
        mode: "cls" for the vector of the first token, "mean" for the average over unmasked tokens,
            or "cls_and_mean" for the first token and the average over the others, concatenated.
    """

    def __init__(self, mode: Literal["cls", "mean", "cls_and_mean"], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.record_arguments(locals())
        if mode not in ("cls", "mean", "cls_and_mean"):
            raise ModelError(f"The pooling mode has to be 'cls' or 'mean', found {mode!r}.")
        self.mode = mode

    def call(self, hidden: Any, attention_mask: Any = None) -> Any:
        """Maps hidden states (B, L, D) and a mask (B, L) to (B, D).

        Without a mask all tokens count. The features of an image (B, H, W, D) have no mask either.
        """
        if self.mode == "cls":
            return hidden[:, 0]
        if self.mode == "cls_and_mean":
            mean = ops.mean(ops.cast(hidden[:, 1:], "float32"), axis=1)
            return ops.concatenate([hidden[:, 0], ops.cast(mean, hidden.dtype)], axis=-1)
        # Long sums lose precision in bfloat16, so the sum over tokens is computed in float32.
        wide = ops.cast(hidden, "float32")
        if attention_mask is None:
            mean = ops.mean(wide, axis=tuple(range(1, len(hidden.shape) - 1)))
        else:
            mask = ops.expand_dims(ops.cast(attention_mask, "float32"), 2)
            mean = ops.sum(wide * mask, axis=1) / ops.maximum(ops.sum(mask, axis=1), 1e-9)
        return ops.cast(mean, hidden.dtype)

    def compute_output_shape(
        self, hidden_shape: tuple, attention_mask_shape: tuple | None = None
    ) -> tuple:
        """Returns the shape (B, D), or (B, 2 D) for "cls_and_mean"."""
        parts = 2 if self.mode == "cls_and_mean" else 1
        return (hidden_shape[0], parts * hidden_shape[-1])


@keras.saving.register_keras_serializable(PACKAGE)
class LastToken(ConfigLayer):
    """The vector of the last token of each text, by which PyTorch's decoders classify texts.

    Args:
        padding_idx: An id that is never the last token, even if the attention mask contains it,
            as in transformers; None for no such id.
    """

    def __init__(self, padding_idx: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.record_arguments(locals())
        self.padding_idx = padding_idx

    def call(self, hidden: Any, ids: Any, attention_mask: Any) -> Any:
        """Maps (B, L, D), (B, L) and (B, L) to (B, D)."""
        real = ops.cast(attention_mask, "bool")
        if self.padding_idx is not None:
            real = ops.logical_and(real, ops.not_equal(ids, self.padding_idx))
        places = ops.arange(ops.shape(ids)[1]) * ops.cast(real, "int32")
        last = ops.argmax(places, axis=1)
        return ops.squeeze(ops.take_along_axis(hidden, ops.expand_dims(last, (1, 2)), axis=1), 1)

    def compute_output_shape(
        self, hidden_shape: tuple, ids_shape: tuple, attention_mask_shape: tuple | None = None
    ) -> tuple:
        """Returns the shape (B, D)."""
        return (hidden_shape[0], hidden_shape[-1])


@keras.saving.register_keras_serializable(PACKAGE)
class L2Normalize(keras.layers.Layer):
    """Scales vectors to unit L2 norm, in float32; named Normalize in sentence-transformers."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})

    def call(self, x: Any) -> Any:
        """Maps (B, D) to (B, D)."""
        return x / ops.maximum(ops.sqrt(ops.sum(ops.square(x), axis=-1, keepdims=True)), 1e-12)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns the shape (B, D)."""
        return input_shape


@keras.saving.register_keras_serializable(PACKAGE)
class Transform(ConfigLayer):
    """Dropout, a Dense layer, an activation, and optionally a normalisation.

    On pooled features it is the pooler of a family. On all tokens it is the part of a head for
    masked language modelling below the decoder.

    Args:
        size: Number of units of the Dense layer.
        activation: A Hugging Face activation name.
        dropout: Dropout rate of the input.
        initializer_range: Standard deviation of a new kernel.
        use_bias: Whether the Dense layer has a bias.
        layer_norm_eps: Epsilon of the normalisation; None for no normalisation.
        norm_bias: Whether the normalisation has an offset.
    """

    role = "pooler"

    def __init__(
        self,
        size: int,
        activation: str = "tanh",
        dropout: float = 0.0,
        initializer_range: float = 0.02,
        use_bias: bool = True,
        layer_norm_eps: float | None = None,
        norm_bias: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.record_arguments(locals())
        policy = self.dtype_policy
        self.dropout = keras.layers.Dropout(dropout, dtype=policy, name="dropout")
        self.dense = dense(size, initializer_range, use_bias=use_bias, dtype=policy, name="dense")
        self._activate = kernels.activation(activation)
        self.norm = None
        if layer_norm_eps is not None:
            self.norm = LayerNorm(layer_norm_eps, norm_bias, dtype=policy, name="norm")

    def build(self, input_shape: tuple) -> None:
        """Builds the Dense layer and the normalisation."""
        self.dense.build(input_shape)
        if self.norm is not None:
            self.norm.build(self.compute_output_shape(input_shape))

    def call(self, x: Any, training: bool | None = None) -> Any:
        """Maps (…, D) to (…, size)."""
        x = self._activate(self.dense(self.dropout(x, training=training)))
        return x if self.norm is None else self.norm(x)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns the shape (…, size)."""
        return (*input_shape[:-1], self._config["size"])


@keras.saving.register_keras_serializable(PACKAGE)
class ClassificationHead(ConfigLayer):
    """Dropout and a Dense layer that map features of a text, or of every token, to logits.

    The layer computes in float32 under every dtype policy, because bfloat16 logits reduce the
    precision of the loss and break metrics.

    Args:
        num_labels: C.
        dropout: Dropout rate of the features.
        initializer_range: Standard deviation of a new kernel.
        per_label: Whether the labels axis of the logits precedes the tokens axis: (B, C, L), a
            distribution over tokens for each label, as in question answering.
        use_bias: Whether the Dense layer has a bias.
    """

    role = "head"

    def __init__(
        self,
        num_labels: int,
        dropout: float = 0.1,
        initializer_range: float = 0.02,
        per_label: bool = False,
        use_bias: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.record_arguments(locals())
        self.dropout = keras.layers.Dropout(dropout, dtype="float32", name="dropout")
        self.dense = dense(
            num_labels, initializer_range, use_bias=use_bias, dtype="float32", name="dense"
        )

    def build(self, input_shape: tuple) -> None:
        """Builds the Dense layer."""
        self.dense.build(input_shape)

    def call(self, features: Any, training: bool | None = None) -> Any:
        """Maps (B, D) to (B, C), or (B, L, D) to (B, L, C) or (B, C, L), in float32."""
        logits = self.dense(self.dropout(features, training=training))
        return ops.transpose(logits, (0, 2, 1)) if self.per_label else logits

    @property
    def per_label(self) -> bool:
        """As given to the constructor."""
        return self._config["per_label"]

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns the shape (B, C), (B, L, C) or (B, C, L)."""
        shape = (*input_shape[:-1], self._config["num_labels"])
        return (shape[0], shape[2], shape[1]) if self.per_label else shape


@keras.saving.register_keras_serializable(PACKAGE)
class VocabularyBias(ConfigLayer):
    """A bias for each token of the vocabulary, added to the scores of a decoder; float32.

    Args:
        learned: Whether the bias is trained. In BART and Marian it is a constant of the checkpoint.
    """

    role = "head"

    def __init__(self, learned: bool = True, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.record_arguments(locals())

    def build(self, input_shape: tuple) -> None:
        """Creates `bias` (V,)."""
        self.bias = self.add_weight(
            shape=(input_shape[-1],),
            initializer="zeros",
            trainable=self._config["learned"],
            name="bias",
        )

    def call(self, scores: Any) -> Any:
        """Maps scores (B, L, V) to (B, L, V)."""
        return scores + self.bias

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns the shape (B, L, V)."""
        return input_shape


@keras.saving.register_keras_serializable(PACKAGE)
class LanguageModelHead(ConfigLayer):
    """The head of a language model that is not tied to the token embeddings.

    A Dense layer without bias maps hidden states to the logits of the vocabulary. The matrix
    product is computed in the dtype of the layer; the logits are float32.

    Args:
        vocab_size: V.
        initializer_range: Standard deviation of a new kernel.
    """

    role = "head"

    def __init__(self, vocab_size: int, initializer_range: float = 0.02, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.record_arguments(locals())
        self.dense = dense(
            vocab_size, initializer_range, use_bias=False, dtype=self.dtype_policy, name="dense"
        )

    def build(self, input_shape: tuple) -> None:
        """Builds the Dense layer."""
        self.dense.build(input_shape)

    def call(self, hidden: Any) -> Any:
        """Maps (B, L, D) to (B, L, V)."""
        return ops.cast(self.dense(hidden), "float32")

    def compute_output_spec(self, hidden: Any) -> keras.KerasTensor:
        """(B, L, V), float32."""
        return keras.KerasTensor((*hidden.shape[:-1], self._config["vocab_size"]), "float32")
