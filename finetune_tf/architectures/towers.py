"""Two towers: an encoder of images and an encoder of texts in one model (Radford et al. 2021).

Shape legend: B batch, N images, T texts, L tokens, D features.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import keras
from keras import ops

from finetune_tf.architectures.attention import MultiHeadAttention
from finetune_tf.architectures.chains import EndOfChain
from finetune_tf.architectures.heads import L2Normalize
from finetune_tf.architectures.layers import PACKAGE, ConfigLayer, dense
from finetune_tf.base.keras_internals import run_graph

#: The names of the towers, which are those of their chains of stages.
IMAGE, TEXT = "image", "text"


@dataclass(frozen=True)
class Towers:
    """The symbolic tensors of two towers, without a head.

    Attributes:
        inputs: Symbolic model inputs by name, of both towers.
        image: The output of the tower of images: a vector (B, D), or features (B, L, D).
        text: The output of the tower of texts: a vector (B, D), or features (B, L, D).
    """

    inputs: dict[str, Any]
    image: Any
    text: Any


def tower(name: str, inputs: Mapping[str, Any], output: Any) -> Any:
    """Makes a chain of an encoder: its layers are called again under names with a prefix.

    Layers have unique names in a model, and families give theirs the same ones: "block_0" becomes
    "image_block_0" in the chain "image", and the stage is named "image/block_0".

    Args:
        name: The name of the tower.
        inputs: The symbolic inputs of the encoder.
        output: Its symbolic output.

    Returns:
        The symbolic output of the same computation on the same inputs, which ends the chain.
    """
    encoder = keras.Model(list(inputs.values()), output)  # a dict would be sorted by its keys
    renamed: dict[int, Any] = {}

    def operation_of(operation: Any) -> Any:
        if id(operation) not in renamed:
            config = {**operation.get_config(), "name": f"{name}_{operation.name}"}
            renamed[id(operation)] = type(operation).from_config(config)
        return renamed[id(operation)]

    return EndOfChain(name=name)(run_graph(encoder, list(inputs.values()), operation_of))


@keras.saving.register_keras_serializable(PACKAGE)
class PairRows(ConfigLayer):
    """The rows of images and of texts whose product is a logit, for the loss and for predictions.

    The logit of an image and a text is their cosine times exp(`logit_scale`), plus `logit_bias` in
    SigLIP (Zhai et al. 2023). The scale multiplies the row of the image, and the bias is a further
    feature of it, which the row of the text has as a 1; so the product of two rows is the logit.

    Args:
        logit_scale: The initial value of the logarithm of the scale.
        has_bias: Whether there is a bias.
    """

    role = "pooler"

    def __init__(
        self, logit_scale: float = math.log(1 / 0.07), has_bias: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.record_arguments(locals())
        self.has_bias = has_bias

    def build(self, input_shape: tuple) -> None:
        """Creates the scale and the bias, scalars."""
        scale = keras.initializers.Constant(self._config["logit_scale"])
        self.logit_scale = self.add_weight(shape=(), initializer=scale, name="logit_scale")
        if self.has_bias:
            self.logit_bias = self.add_weight(shape=(), initializer="zeros", name="logit_bias")

    def call(self, vectors: Any) -> Any:
        """Maps vectors (N, D) of length 1 of images to their rows, (N, D) or (N, D + 1)."""
        rows = vectors * ops.exp(self.logit_scale)
        if not self.has_bias:
            return rows
        return ops.concatenate([rows, ops.ones_like(rows[:, :1]) * self.logit_bias], axis=-1)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns the shape (N, D) or (N, D + 1)."""
        return (input_shape[0], input_shape[1] + self.has_bias)


@keras.saving.register_keras_serializable(PACKAGE)
class AppendOne(keras.layers.Layer):
    """Appends a 1 to each vector, by which the bias of a logit is multiplied."""

    def call(self, vectors: Any) -> Any:
        """Maps (T, D) to (T, D + 1)."""
        return ops.concatenate([vectors, ops.ones_like(vectors[:, :1])], axis=-1)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns the shape (T, D + 1)."""
        return (input_shape[0], input_shape[1] + 1)


def pair_rows(towers: Towers, logit_scale: float, has_bias: bool) -> Any:
    """Puts the head of contrastive learning on two towers.

    Args:
        towers: Two towers with vectors of the same size.
        logit_scale: As for `PairRows`.
        has_bias: As for `PairRows`.

    Returns:
        Symbolic rows (B, 2, D) in float32: for each pair the row of its image and that of its text.
        The layers "image_rows" and "text_rows" return them separately.
    """
    image = PairRows(logit_scale, has_bias, name="image_rows")(
        L2Normalize(name="image_l2_normalize")(towers.image)
    )
    text = L2Normalize(name="text_l2_normalize" if has_bias else "text_rows")(towers.text)
    if has_bias:
        text = AppendOne(dtype="float32", name="text_rows")(text)
    rows = [
        keras.layers.Reshape((1, each.shape[-1]), dtype="float32")(each) for each in (image, text)
    ]
    return keras.layers.Concatenate(axis=1, dtype="float32", name="rows")(rows)


@keras.saving.register_keras_serializable(PACKAGE)
class Fusion(ConfigLayer):
    """Joins the outputs of two towers to one vector.

    Both are projected to the same size and normalised, since encoders that were not trained
    together differ in their scale. Then, by `mode`:

    - "concatenation": a Dense layer with GELU on both vectors together;
    - "gate": a gate decides for each feature how much of either vector is used (gated multimodal
      unit, Arevalo et al. 2017), and a Dense layer with GELU follows;
    - "cross_attention": the tokens of the text attend to the regions of the image (Lu et al. 2019),
      the sums are averaged over the text, and a Dense layer with GELU follows.

    Args:
        mode: As above.
        size: Number of features of the projections and of the output.
        num_heads: Number of attention heads.
        dropout: Dropout rate of the projected vectors.
    """

    role = "head"

    def __init__(
        self,
        mode: Literal["concatenation", "gate", "cross_attention"] = "concatenation",
        size: int = 256,
        num_heads: int = 4,
        dropout: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.record_arguments(locals())
        self.mode, policy = mode, self.dtype_policy
        self.image, self.text, self.output_dense = (
            dense(size, 0.02, dtype=policy, name=name) for name in ("image", "text", "output")
        )
        norm = {"center": False, "scale": False, "dtype": policy}
        self.image_norm = keras.layers.LayerNormalization(**norm, name="image_norm")
        self.text_norm = keras.layers.LayerNormalization(**norm, name="text_norm")
        self.dropout = keras.layers.Dropout(dropout, dtype=policy, name="dropout")
        self.gate = dense(size, 0.02, dtype=policy, name="gate") if mode == "gate" else None
        self.attention = None
        if mode == "cross_attention":
            self.attention = MultiHeadAttention(size, num_heads, dtype=policy, name="attention")

    def build(
        self, image_shape: tuple, text_shape: tuple, attention_mask_shape: tuple | None = None
    ) -> None:
        """Builds the projections and the attention."""
        size = self._config["size"]
        self.image.build(image_shape)
        self.text.build(text_shape)
        images, texts = (*image_shape[:-1], size), (*text_shape[:-1], size)
        self.image_norm.build(images)
        self.text_norm.build(texts)
        both = (None, 2 * size)
        if self.gate is not None:
            self.gate.build(both)
        if self.attention is not None:
            self.attention.build(texts, images)
        self.output_dense.build(both if self.mode == "concatenation" else (None, size))

    def call(
        self, image: Any, text: Any, attention_mask: Any = None, training: bool | None = None
    ) -> Any:
        """Joins both outputs.

        Args:
            image: A vector (B, D) of each image, or its regions (B, N, D) for cross-attention.
            text: A vector (B, D) of each text, or its tokens (B, L, D) for cross-attention.
            attention_mask: (B, L), 1 for tokens and 0 for padding; for cross-attention.
            training: Whether dropout is active.

        Returns:
            (B, size).
        """
        image = self.dropout(self.image_norm(self.image(image)), training=training)
        text = self.dropout(self.text_norm(self.text(text)), training=training)
        if self.mode == "concatenation":
            joined = ops.concatenate([image, text], axis=-1)
        elif self.mode == "gate":
            share = ops.sigmoid(self.gate(ops.concatenate([image, text], axis=-1)))
            joined = share * ops.tanh(image) + (1 - share) * ops.tanh(text)
        else:
            seen = text + self.attention(text, context=image, training=training)
            mask = ops.cast(attention_mask, seen.dtype)[:, :, None]
            joined = ops.sum(seen * mask, axis=1) / ops.maximum(ops.sum(mask, axis=1), 1)
        return ops.gelu(self.output_dense(joined), approximate=False)

    def compute_output_spec(
        self, image: Any, text: Any, attention_mask: Any = None, training: bool | None = None
    ) -> keras.KerasTensor:
        """Returns a spec of the shape (B, size)."""
        return keras.KerasTensor((image.shape[0], self._config["size"]), self.compute_dtype)
