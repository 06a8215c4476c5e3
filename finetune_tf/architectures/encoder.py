"""The bidirectional encoder of BERT and its kin, as a chain of stages.

Shape legend: B batch, L length, D features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras
from keras.saving import deserialize_keras_object, serialize_keras_object

from finetune_tf import kernels
from finetune_tf.architectures.attention import SelfAttention
from finetune_tf.architectures.embeddings import Embeddings
from finetune_tf.architectures.heads import Pooling
from finetune_tf.architectures.layers import PACKAGE, FeedForward, LayerNorm, first_row


@keras.saving.register_keras_serializable(PACKAGE)
class EncoderBlock(keras.layers.Layer):
    """Attention and feed-forward, each with a residual and a normalisation.

    Both parts are handed in, so that a family with another attention needs no other block.

    Args:
        attention: Takes (hidden, attention_mask, positions); named "attention".
        feed_forward: Takes hidden; named "feed_forward".
        dropout: Rate on the output of the feed-forward part.
        attention_output_dropout: Rate on the output of the attention; by default `dropout`.
        layer_norm_eps: Epsilon of both normalisations.
        norm_first: Whether a part sees the normalised input and the residual stays as it is
            (Xiong et al. 2020), instead of normalising the sum.
        norm_bias: Whether normalisations have an offset.
        has_attention_norm: Whether the attention has a normalisation; the first block of
            ModernBERT has none, since the embeddings end in one.
        gradient_checkpointing: Whether training keeps only input and output of the block and
            computes the rest again for the gradient: less memory for more time.
    """

    role = "block"

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
        gradient_checkpointing: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if attention_output_dropout is None:
            attention_output_dropout = dropout
        self._config = {
            "dropout": dropout,
            "attention_output_dropout": attention_output_dropout,
            "layer_norm_eps": layer_norm_eps,
            "norm_first": norm_first,
            "norm_bias": norm_bias,
            "has_attention_norm": has_attention_norm,
        }
        self.gradient_checkpointing = gradient_checkpointing
        policy = self.dtype_policy
        self.attention = attention
        self.feed_forward = feed_forward
        norm = {"epsilon": layer_norm_eps, "use_bias": norm_bias, "dtype": policy}
        self.attention_norm = LayerNorm(**norm, name="attention_norm")
        self.feed_forward_norm = LayerNorm(**norm, name="feed_forward_norm")
        self.attention_output_dropout = keras.layers.Dropout(
            attention_output_dropout, dtype=policy, name="attention_output_dropout"
        )
        self.dropout = keras.layers.Dropout(dropout, dtype=policy, name="dropout")

    def build(
        self,
        hidden_shape: tuple,
        attention_mask_shape: tuple | None = None,
        positions_shape: tuple | None = None,
    ) -> None:
        """Builds both parts."""
        self.attention.build(hidden_shape, attention_mask_shape, positions_shape)
        self.feed_forward.build(hidden_shape)
        if self._config["has_attention_norm"]:
            self.attention_norm.build(hidden_shape)
        self.feed_forward_norm.build(hidden_shape)

    def call(
        self,
        hidden: Any,
        attention_mask: Any,
        positions: Any = None,
        first_token: bool = False,
        training: bool | None = None,
    ) -> Any:
        """(B, L, D) to (B, L, D), or to (B, 1, D).

        Args:
            hidden: (B, L, D).
            attention_mask: (B, L), 1 for real tokens.
            positions: What the family's layer for positions gives, for the attention.
            first_token: Whether only the first token is asked for, which spares the others all
                that they do not do for it.
            training: Whether dropout is active.
        """
        options = {"first_token": first_token, "training": training}
        inputs = (hidden, attention_mask, positions)
        if self.gradient_checkpointing and training:
            return kernels.recomputed(self, "transform", *inputs, **options)
        return self.transform(*inputs, **options)

    def transform(
        self,
        hidden: Any,
        attention_mask: Any,
        positions: Any,
        first_token: bool,
        training: bool | None,
    ) -> Any:
        """What the block computes; arguments as of `call`."""
        first, norm = self._config["norm_first"], self.attention_norm
        attended = self.attention(
            self._attended(hidden),
            attention_mask,
            positions,
            first_token=first_token,
            training=training,
        )
        if first_token:
            hidden = first_row(hidden, 1)
        if first:
            hidden = hidden + self.attention_output_dropout(attended, training=training)
            transformed = self.feed_forward(self.feed_forward_norm(hidden), training=training)
            return hidden + self.dropout(transformed, training=training)
        hidden = norm.of_sum(attended, hidden, self.attention_output_dropout, training)
        transformed = self.feed_forward(hidden, training=training)
        return self.feed_forward_norm.of_sum(transformed, hidden, self.dropout, training)

    def attention_weights(self, hidden: Any, attention_mask: Any, positions: Any = None) -> Any:
        """How much each token takes from each other one: (B, H, L, L); arguments as of `call`."""
        return self.attention.weights_of(self._attended(hidden), attention_mask, positions)

    def _attended(self, hidden: Any) -> Any:
        """What the attention sees."""
        normed = self._config["norm_first"] and self._config["has_attention_norm"]
        return self.attention_norm(hidden) if normed else hidden

    def compute_output_spec(
        self, hidden: Any, *others: Any, first_token: bool = False, training: bool | None = None
    ) -> keras.KerasTensor:
        """(B, L, D), as the input, or (B, 1, D)."""
        batch, length, size = hidden.shape
        return keras.KerasTensor((batch, 1 if first_token else length, size), self.compute_dtype)

    def get_config(self) -> dict:
        """Keras config, with the parts that were handed in."""
        parts = {
            name: serialize_keras_object(getattr(self, name))
            for name in ("attention", "feed_forward")
        }
        for part in parts.values():
            # Revived with it, a part would be built by itself, and its variables would be
            # called "attention/…" instead of "block_0/attention/…".
            part.pop("build_config", None)
        own = {"gradient_checkpointing": self.gradient_checkpointing}
        return {**super().get_config(), **self._config, **own, **parts}

    @classmethod
    def from_config(cls, config: dict) -> "EncoderBlock":
        """Revives the parts, then the block."""
        parts = {
            name: deserialize_keras_object(config[name]) for name in ("attention", "feed_forward")
        }
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
        attention: Stands in the place of the usual `SelfAttention`.
        block_class: What to make of the parts.
        **block: For `block_class`.
    """
    if attention is None:
        attention = SelfAttention(
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
    blocks: Sequence[keras.layers.Layer],
    positions: keras.layers.Layer | None = None,
    final_norm: keras.layers.Layer | None = None,
) -> Backbone:
    """Chains embeddings and blocks over symbolic inputs.

    Args:
        embeddings: The first stage. There is an input `token_type_ids` if it has a table for it.
        blocks: The other stages; a block that stands several times shares its weights.
        positions: Gives each block what its attention needs to know of relative positions.
        final_norm: After the last block.
    """
    names = ["input_ids", "token_type_ids", "attention_mask"]
    if embeddings.token_type is None:
        names.remove("token_type_ids")
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in names}
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    more = {name: tensor for name, tensor in inputs.items() if name != "input_ids"}
    if not embeddings.mask_padding:
        del more["attention_mask"]
    hidden = embeddings(ids, **more)
    known = () if positions is None else (positions(ids),)
    for block in blocks[:-1]:
        hidden = block(hidden, mask, *known)
    ends = [blocks[-1](hidden, mask, *known, first_token=only) for only in (False, True)]
    if final_norm is not None:
        ends = [final_norm(end) for end in ends]
    return Backbone(inputs, *ends, embeddings)
