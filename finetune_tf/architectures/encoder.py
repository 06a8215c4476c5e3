"""The bidirectional encoder of BERT and its kin, as a chain of stages.

Shape legend: B batch, L length, D features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import keras

from finetune_tf.architectures.attention import MultiHeadAttention
from finetune_tf.architectures.blocks import EncoderBlock
from finetune_tf.architectures.embeddings import Embeddings
from finetune_tf.architectures.heads import LastToken, Pooling
from finetune_tf.architectures.layers import FeedForward, FirstToken
from finetune_tf.architectures.masks import AttentionMask


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

    def pooled(
        self, mode: Literal["cls", "mean", "last"], dtype: Any, padding_idx: int | None = None
    ) -> Any:
        """One vector for each text, (B, D).

        Args:
            mode: As for `Pooling`; or "last", see `LastToken`.
            dtype: Keras dtype policy.
            padding_idx: For "last", as for `LastToken`.
        """
        mask = self.inputs["attention_mask"]
        if mode == "last":
            last = LastToken(padding_idx, dtype=dtype, name="pooling")
            return last(self.hidden, self.inputs["input_ids"], mask)
        hidden = self.first_token if mode == "cls" else self.hidden
        return Pooling(mode, dtype=dtype, name="pooling")(hidden, mask)


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
    attention_options: Mapping[str, Any] = MappingProxyType({}),
    feed_forward_options: Mapping[str, Any] = MappingProxyType({}),
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
        attention_options: For `MultiHeadAttention`, where a family differs from BERT.
        feed_forward_options: For `FeedForward`, likewise.
        block_class: What to make of the parts.
        **block: For `block_class`.
    """
    if attention is None:
        attention = MultiHeadAttention(
            hidden_size,
            num_heads,
            attention_dropout,
            initializer_range,
            **attention_options,
            dtype=dtype,
            name="attention",
        )
    feed_forward = FeedForward(
        intermediate_size,
        hidden_size,
        activation,
        initializer_range,
        **feed_forward_options,
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
