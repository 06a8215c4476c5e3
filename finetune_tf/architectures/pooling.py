"""Poolings of the encoders that are trained with texts and images: CLIP's and SigLIP's.

Shape legend: B batch, L length, D features.
"""

from typing import Any

import keras
from keras import ops
from keras.saving import deserialize_keras_object, serialize_keras_object

from finetune_tf.architectures.attention import MultiHeadAttention
from finetune_tf.architectures.layers import PACKAGE, ConfigLayer, FeedForward, LayerNorm


@keras.saving.register_keras_serializable(PACKAGE)
class EndToken(ConfigLayer):
    """Selects the token that ends a text, by whose vector CLIP pools (Radford et al. 2021).

    Args:
        token_id: The id of the token, which is looked for from the left; None for the highest id of
            each text, as in checkpoints whose config names another id by mistake. A text without
            the token is pooled by its first token, as in PyTorch.
    """

    def __init__(self, token_id: int | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.record_arguments(locals())
        self.token_id = token_id

    def call(self, hidden: Any, ids: Any) -> Any:
        """Maps hidden states (B, L, D) and ids (B, L) to (B, 1, D)."""
        found = ids if self.token_id is None else ops.cast(ops.equal(ids, self.token_id), "int32")
        return ops.take_along_axis(hidden, ops.argmax(found, axis=1)[:, None, None], axis=1)

    def compute_output_shape(self, hidden_shape: tuple, ids_shape: tuple) -> tuple:
        """Returns the shape (B, 1, D)."""
        return (hidden_shape[0], 1, hidden_shape[-1])


@keras.saving.register_keras_serializable(PACKAGE)
class FinalPosition(keras.layers.Layer):
    """Selects the last position of a row, even if it is padding, by which SigLIP pools texts."""

    def call(self, hidden: Any) -> Any:
        """Maps (B, L, D) to (B, 1, D)."""
        return hidden[:, -1][:, None]

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns the shape (B, 1, D)."""
        return (input_shape[0], 1, input_shape[-1])


@keras.saving.register_keras_serializable(PACKAGE)
class AttentionPooling(ConfigLayer):
    """A learned query attends to all tokens, and a feed-forward part follows (Zhai et al. 2022).

    Args:
        attention: A `MultiHeadAttention`, named "attention".
        feed_forward: A `FeedForward`, named "feed_forward".
        layer_norm_eps: Epsilon of the normalisation between the two.
    """

    role = "pooler"
    parts = ("attention", "feed_forward")  # names of the sublayers that are arguments

    def __init__(
        self,
        attention: MultiHeadAttention,
        feed_forward: FeedForward,
        layer_norm_eps: float = 1e-6,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.record_arguments(locals())
        self.attention, self.feed_forward = attention, feed_forward
        self.norm = LayerNorm(layer_norm_eps, dtype=self.dtype_policy, name="norm")

    def build(self, input_shape: tuple) -> None:
        """Creates the query (1, 1, D) and builds the parts."""
        size = input_shape[-1]
        self.probe = self.add_weight(shape=(1, 1, size), initializer="glorot_uniform", name="probe")
        one = (input_shape[0], 1, size)
        self.attention.build(one, input_shape)
        self.norm.build(one)
        self.feed_forward.build(one)

    def call(self, hidden: Any, training: bool | None = None) -> Any:
        """Maps (B, L, D) to (B, 1, D)."""
        batch, _, size = ops.shape(hidden)
        query = ops.broadcast_to(ops.cast(self.probe, hidden.dtype), (batch, 1, size))
        pooled = self.attention(query, context=hidden, training=training)
        return pooled + self.feed_forward(self.norm(pooled), training=training)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns the shape (B, 1, D)."""
        return (input_shape[0], 1, input_shape[-1])

    def get_config(self) -> dict:
        """Returns the Keras config, with those of the parts."""
        parts = {name: serialize_keras_object(getattr(self, name)) for name in self.parts}
        for part in parts.values():
            part.pop("build_config", None)  # the parts are built by this layer, under its name
        return {**super().get_config(), **parts}

    @classmethod
    def from_config(cls, config: dict) -> "AttentionPooling":
        """Creates the layer from its Keras config."""
        parts = {name: deserialize_keras_object(config[name]) for name in cls.parts}
        return cls(**{**config, **parts})
