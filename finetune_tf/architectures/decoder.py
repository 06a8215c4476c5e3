"""Blocks of decoders. They are causal if their `attention_mask` is causal.

Shape legend: B batch, Q query positions, K key positions, M memory positions, D features.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import keras

from finetune_tf.architectures.attention import MultiHeadAttention
from finetune_tf.architectures.blocks import EncoderBlock
from finetune_tf.architectures.layers import PACKAGE, FeedForward


def rotary_block(
    *,
    hidden_size: int,
    num_heads: int,
    intermediate_size: int,
    activation: str = "silu",
    attention_dropout: float = 0.0,
    initializer_range: float = 0.02,
    use_bias: bool = False,
    attention_options: Mapping[str, Any] = MappingProxyType({}),
    dtype: Any = None,
    **block: Any,
) -> EncoderBlock:
    """Makes a block of Llama (Touvron et al. 2023): pre-RMSNorm, rotary attention, gated MLP.

    Args:
        hidden_size: D.
        num_heads: Number of attention heads.
        intermediate_size: Width of the feed-forward sublayer.
        activation: A Hugging Face activation name.
        attention_dropout: Dropout rate of the attention weights.
        initializer_range: Standard deviation of new kernels.
        use_bias: Whether the Dense layers have a bias.
        attention_options: Options of `MultiHeadAttention` in which a family differs.
        dtype: Keras dtype policy; None for the global one.
        **block: Keyword arguments of `EncoderBlock`.
    """
    make = {"initializer_range": initializer_range, "use_bias": use_bias, "dtype": dtype}
    attention = MultiHeadAttention(
        hidden_size,
        num_heads,
        attention_dropout,
        rotary=True,
        **{**make, **attention_options},
        name="attention",
    )
    feed_forward = FeedForward(
        intermediate_size, hidden_size, activation, gated="apart", **make, name="feed_forward"
    )
    options = {"dropout": 0.0, "layer_norm_eps": 1e-6, "norm_first": True, "rms_norm": True}
    return EncoderBlock(attention, feed_forward, **{**options, **block}, dtype=dtype)


@keras.saving.register_keras_serializable(PACKAGE)
class CrossAttentionBlock(EncoderBlock):
    """A decoder block that also attends to a memory, such as the output of an encoder.

    The block of the original Transformer decoder (Vaswani et al. 2017).

    Args:
        attention: As for `EncoderBlock`.
        feed_forward: As for `EncoderBlock`.
        cross_attention: The `Attention` to the memory, named "cross_attention".
        **block: Keyword arguments of `EncoderBlock`.
    """

    parts = ("attention", "feed_forward", "cross_attention")

    def __init__(
        self,
        attention: keras.layers.Layer,
        feed_forward: keras.layers.Layer,
        cross_attention: keras.layers.Layer,
        **block: Any,
    ) -> None:
        super().__init__(attention, feed_forward, **block)
        self.cross_attention = cross_attention
        self.cross_attention_norm = self._make_norm("cross_attention_norm")
        self.cross_attention_dropout = keras.layers.Dropout(
            self._config["attention_output_dropout"],
            dtype=self.dtype_policy,
            name="cross_attention_dropout",
        )

    def build(self, x_shape: tuple, memory_shape: tuple, **shapes: Any) -> None:
        """Builds all three sublayers."""
        super().build(x_shape, **shapes)
        self.cross_attention.build(x_shape, memory_shape)
        self.cross_attention_norm.build(x_shape)

    def call(
        self,
        x: Any,
        memory: Any,
        context: Any = None,
        attention_mask: Any = None,
        positions: Any = None,
        memory_mask: Any = None,
        start: Any = 0,
        cache: tuple | None = None,
        training: bool | None = None,
    ) -> Any:
        """Computes the block for the tokens of a query.

        Args:
            x: (B, Q, D), the query; see `EncoderBlock.call`.
            memory: (B, M, …), the tokens that the cross-attention attends to, or their keys and
                values, see `MultiHeadAttention.keys_and_values`.
            context: (B, K, D), the tokens that the self-attention attends to; by default `x`.
            attention_mask: Mask of the context, usually causal.
            positions: Positions for the self-attention.
            memory_mask: Mask of the memory, broadcastable to (B, H, Q, M).
            start: Index of the first token of `x` in the context.
            cache: Keys and values of the tokens before `x`, as for `Attention.call`.
            training: Whether dropout is active.

        Returns:
            (B, Q, D); with a cache, this and the updated cache.
        """
        inputs = (x, context, attention_mask, positions, start, memory, memory_mask)
        if cache is not None:
            return self.transform(*inputs, training=training, cache=cache)
        return self._transform_or_remat(*inputs, training=training)

    def transform(
        self,
        x: Any,
        context: Any,
        attention_mask: Any,
        positions: Any,
        start: Any,
        memory: Any,
        memory_mask: Any,
        training: bool | None,
        cache: tuple | None = None,
    ) -> Any:
        """Computes the block without gradient checkpointing; the arguments are those of `call`."""
        x, cache = self._apply_attention(
            x, context, attention_mask, positions, start, training, cache
        )
        norm = self.cross_attention_norm
        before = norm(x) if self._config["norm_first"] else x
        attended = self.cross_attention(before, memory, memory_mask, training=training)
        x = self._add_residual(x, attended, norm, self.cross_attention_dropout, training)
        x = self._apply_feed_forward(x, training)
        return x if cache is None else (x, cache)
