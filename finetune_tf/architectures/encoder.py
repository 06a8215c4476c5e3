"""The bidirectional encoder of BERT and its kin, as a chain of stages.

Shape legend: B batch, L length, D features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras
from keras import ops
from keras.saving import deserialize_keras_object, serialize_keras_object

from finetune_tf import kernels
from finetune_tf.architectures.attention import MultiHeadAttention
from finetune_tf.architectures.embeddings import Embeddings
from finetune_tf.architectures.heads import Pooling
from finetune_tf.architectures.layers import PACKAGE, FeedForward, FirstToken, LayerNorm, RMSNorm
from finetune_tf.architectures.masks import AttentionMask


@keras.saving.register_keras_serializable(PACKAGE)
class EncoderBlock(keras.layers.Layer):
    """Attention and feed-forward, each with a residual and a normalisation.

    Both parts are handed in, so that a family with another attention needs no other block.

    Args:
        attention: An `Attention`, named "attention".
        feed_forward: Takes hidden; named "feed_forward".
        dropout: Rate on the output of the feed-forward part.
        attention_output_dropout: Rate on the output of the attention; by default `dropout`.
        layer_norm_eps: Epsilon of both normalisations.
        norm_first: Whether a part sees the normalised input and the residual stays as it is
            (Xiong et al. 2020), instead of normalising the sum.
        norm_bias: Whether normalisations have an offset.
        has_attention_norm: Whether the attention has a normalisation; the first block of
            ModernBERT has none, since the embeddings end in one.
        rms_norm: Whether normalisations only divide by the root mean square (`RMSNorm`).
        gradient_checkpointing: Whether training keeps only input and output of the block and
            computes the rest again for the gradient: less memory for more time.
    """

    parts = ("attention", "feed_forward")  # what is handed in

    def __init__(
        self,
        attention: keras.layers.Layer,
        feed_forward: keras.layers.Layer,
        dropout: float = 0.1,
        attention_output_dropout: float | None = None,
        layer_norm_eps: float = 1e-12,
        norm_first: bool = False,
        norm_bias: bool = True,
        has_attention_norm: bool = True,
        rms_norm: bool = False,
        gradient_checkpointing: bool = False,
        **kwargs: Any,
    ) -> None:
        # A mixed policy would cast positions, such as rotary tables in float32, to its type.
        super().__init__(**kwargs, autocast=False)
        if attention_output_dropout is None:
            attention_output_dropout = dropout
        self._config = {
            "dropout": dropout,
            "attention_output_dropout": attention_output_dropout,
            "layer_norm_eps": layer_norm_eps,
            "norm_first": norm_first,
            "norm_bias": norm_bias,
            "has_attention_norm": has_attention_norm,
            "rms_norm": rms_norm,
        }
        self.gradient_checkpointing = gradient_checkpointing
        policy = self.dtype_policy
        self.attention = attention
        self.feed_forward = feed_forward
        self.attention_norm = self._norm("attention_norm")
        self.feed_forward_norm = self._norm("feed_forward_norm")
        self.attention_output_dropout = keras.layers.Dropout(
            attention_output_dropout, dtype=policy, name="attention_output_dropout"
        )
        self.dropout = keras.layers.Dropout(dropout, dtype=policy, name="dropout")

    def _norm(self, name: str) -> LayerNorm:
        epsilon, policy = self._config["layer_norm_eps"], self.dtype_policy
        if self._config["rms_norm"]:
            return RMSNorm(epsilon, dtype=policy, name=name)
        return LayerNorm(epsilon, self._config["norm_bias"], dtype=policy, name=name)

    def build(
        self,
        x_shape: tuple,
        context_shape: tuple | None = None,
        attention_mask_shape: tuple | None = None,
        positions_shape: tuple | None = None,
    ) -> None:
        """Builds both parts."""
        self.attention.build(x_shape, context_shape, attention_mask_shape, positions_shape)
        self.feed_forward.build(x_shape)
        if self._config["has_attention_norm"]:
            self.attention_norm.build(x_shape)
        self.feed_forward_norm.build(x_shape)

    def call(
        self,
        x: Any,
        context: Any = None,
        attention_mask: Any = None,
        positions: Any = None,
        start: Any = 0,
        training: bool | None = None,
    ) -> Any:
        """Passes tokens through both parts.

        Args:
            x: (B, Q, D). Nothing is computed for tokens that are not among them, apart from what
                is seen of the context: `block(h[:, :1], context=h)` is `block(h)[:, :1]`.
            context: (B, K, D), what the attention sees; by default `x` itself.
            attention_mask: As of `Attention.call`, as are positions and start.
            positions: What the family's layer in `positions` gives.
            start: Where in the context `x` begins.
            training: Whether dropout is active.

        Returns:
            (B, Q, D).
        """
        return self._transformed(x, context, attention_mask, positions, start, training=training)

    def _transformed(self, *inputs: Any, training: bool | None) -> Any:
        """`transform`, of which training keeps the inside or not."""
        if self.gradient_checkpointing and training:
            return kernels.recomputed(self, "transform", *inputs, training=training)
        return self.transform(*inputs, training=training)

    def transform(
        self,
        x: Any,
        context: Any,
        attention_mask: Any,
        positions: Any,
        start: Any,
        training: bool | None,
    ) -> Any:
        """What the block computes; arguments as of `call`."""
        x = self._add_attention(x, context, attention_mask, positions, start, training)
        return self._add_feed_forward(x, training)

    def _add_attention(
        self,
        x: Any,
        context: Any,
        attention_mask: Any,
        positions: Any,
        start: Any,
        training: bool | None,
    ) -> Any:
        x = ops.cast(x, self.compute_dtype)
        attended = self.attention(
            self._before_attention(x),
            self._before_attention(context),
            attention_mask,
            positions,
            start=start,
            training=training,
        )
        dropout = self.attention_output_dropout
        return self._add(x, attended, self.attention_norm, dropout, training)

    def _add_feed_forward(self, x: Any, training: bool | None) -> Any:
        norm = self.feed_forward_norm
        before = norm(x) if self._config["norm_first"] else x
        transformed = self.feed_forward(before, training=training)
        return self._add(x, transformed, norm, self.dropout, training)

    def _add(
        self,
        x: Any,
        output: Any,
        norm: LayerNorm,
        dropout: keras.layers.Dropout,
        training: bool | None,
    ) -> Any:
        """Adds what a part gives to what went into it; normalises the sum, if not the input."""
        if self._config["norm_first"]:
            return x + dropout(output, training=training)
        return norm.of_sum(output, x, dropout, training)

    def attention_weights(
        self, x: Any, context: Any = None, attention_mask: Any = None, positions: Any = None
    ) -> Any:
        """How much each token takes from the context: (B, H, Q, K); arguments as of `call`."""
        x, context = self._before_attention(x), self._before_attention(context)
        return self.attention.weights_of(x, context, attention_mask, positions)

    def _before_attention(self, x: Any) -> Any:
        """What the attention sees, of the query as of the context."""
        normed = self._config["norm_first"] and self._config["has_attention_norm"]
        return self.attention_norm(x) if normed and x is not None else x

    def compute_output_spec(self, x: Any, *others: Any, **options: Any) -> keras.KerasTensor:
        """(B, Q, D), as the query."""
        return keras.KerasTensor(x.shape, self.compute_dtype)

    def get_config(self) -> dict:
        """Keras config, with the parts that were handed in."""
        parts = {name: serialize_keras_object(getattr(self, name)) for name in self.parts}
        for part in parts.values():
            # Revived with it, a part would be built by itself, and its variables would be
            # called "attention/…" instead of "block_0/attention/…".
            part.pop("build_config", None)
        own = {"gradient_checkpointing": self.gradient_checkpointing}
        return {**super().get_config(), **self._config, **own, **parts}

    @classmethod
    def from_config(cls, config: dict) -> "EncoderBlock":
        """Revives the parts, then the block."""
        parts = {name: deserialize_keras_object(config[name]) for name in cls.parts}
        return cls(**{**config, **parts})


@dataclass(frozen=True)
class Backbone:
    """A chain of stages that still waits for its head.

    Attributes:
        inputs: Symbolic model inputs by name.
        hidden: (B, L, D), what the last block gives.
        first_token: (B, 1, D), the same of the first token, without the work for the others.
        embeddings: The layer that looked the tokens up, for heads tied to its table.
    """

    inputs: dict[str, Any]
    hidden: Any
    first_token: Any
    embeddings: Embeddings

    def pooled(self, mode: Literal["cls", "mean"], dtype: Any) -> Any:
        """(B, D), one vector a text; `mode` as of `Pooling`."""
        hidden = self.first_token if mode == "cls" else self.hidden
        return Pooling(mode, dtype=dtype, name="pooling")(hidden, self.inputs["attention_mask"])


def bert_block(
    *,
    hidden_size: int,
    num_heads: int,
    intermediate_size: int,
    activation: str,
    attention_dropout: float,
    initializer_range: float,
    dtype: Any,
    attention: keras.layers.Layer | None = None,
    block_class: type[EncoderBlock] = EncoderBlock,
    **block: Any,
) -> EncoderBlock:
    """A block as BERT has it.

    Args:
        hidden_size: D.
        num_heads: Attention heads.
        intermediate_size: Width of the feed-forward part.
        activation: A Hugging Face activation name.
        attention_dropout: Rate on the attention weights.
        initializer_range: Standard deviation of new kernels.
        dtype: Keras dtype policy; None for the global one.
        attention: Stands in the place of the usual `MultiHeadAttention`.
        block_class: What to make of the parts.
        **block: For `block_class`.
    """
    if attention is None:
        attention = MultiHeadAttention(
            hidden_size,
            num_heads,
            attention_dropout,
            initializer_range,
            dtype=dtype,
            name="attention",
        )
    feed_forward = FeedForward(
        intermediate_size,
        hidden_size,
        activation,
        initializer_range,
        dtype=dtype,
        name="feed_forward",
    )
    return block_class(attention, feed_forward, dtype=dtype, **block)


def encoder(
    embeddings: Embeddings,
    blocks: Sequence[EncoderBlock],
    masks: Sequence[AttentionMask] | None = None,
    positions: Sequence[keras.layers.Layer] | None = None,
    final_norm: keras.layers.Layer | None = None,
) -> Backbone:
    """Chains embeddings and blocks over symbolic inputs.

    Args:
        embeddings: The first stage. There is an input `token_type_ids` if it has a table for it.
        blocks: The other stages; a block that stands several times shares its weights.
        masks: The mask of each block. A layer that stands several times is called once, and its
            output handed to all of these blocks. By default all see every real token.
        positions: The layer of each block for relative positions, likewise; None for none.
        final_norm: After the last block.
    """
    names = ["input_ids", "token_type_ids", "attention_mask"]
    if embeddings.token_type is None:
        names.remove("token_type_ids")
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in names}
    ids, tokens = inputs["input_ids"], inputs["attention_mask"]
    more = {name: tensor for name, tensor in inputs.items() if name != "input_ids"}
    if not embeddings.mask_padding:
        del more["attention_mask"]
    hidden = embeddings(ids, **more)

    # Each layer is called once, whichever blocks share its output.
    masks = masks or [AttentionMask(name="mask")] * len(blocks)
    positions = positions or [None] * len(blocks)
    made = {id(layer): layer(tokens) for layer in dict.fromkeys([*masks, *positions]) if layer}
    known = [
        {"attention_mask": made[id(mask)], "positions": made.get(id(layer))}
        for mask, layer in zip(masks, positions, strict=True)
    ]
    for block, arguments in zip(blocks[:-1], known, strict=False):
        hidden = block(hidden, **arguments)
    first = FirstToken(name="first_token")(hidden)
    ends = [
        blocks[-1](hidden, **known[-1]),
        blocks[-1](first, context=hidden, **known[-1]),
    ]
    if final_norm is not None:
        ends = [final_norm(end) for end in ends]
    return Backbone(inputs, *ends, embeddings)
