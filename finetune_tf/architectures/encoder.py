"""The bidirectional encoder of BERT and related models (Devlin et al. 2019), as a chain of stages.

Shape legend: B batch, L length, D features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import keras

from finetune_tf.architectures.attention import MultiHeadAttention
from finetune_tf.architectures.blocks import EncoderBlock
from finetune_tf.architectures.decoder import CrossAttentionBlock
from finetune_tf.architectures.embeddings import Embeddings
from finetune_tf.architectures.heads import LastToken, Pooling
from finetune_tf.architectures.layers import FeedForward, FirstToken
from finetune_tf.architectures.masks import AttentionMask


@dataclass(frozen=True)
class Backbone:
    """The symbolic tensors of an encoder, of texts or of images, without a head.

    Attributes:
        inputs: Symbolic model inputs by name.
        hidden: (B, L, D), the output of the last block; (B, H, W, D) for a convolutional network.
        first_token: (B, 1, D), the output for the first token, computed without the other tokens;
            None for a model whose texts are not pooled.
        embeddings: The embedding layer, for heads that are tied to its table.
    """

    inputs: dict[str, Any]
    hidden: Any
    first_token: Any
    embeddings: Embeddings

    def pooled(
        self,
        mode: Literal["cls", "mean", "last", "cls_and_mean"],
        dtype: Any,
        padding_idx: int | None = None,
    ) -> Any:
        """One vector for each text, (B, D).

        Args:
            mode: As for `Pooling`; or "last", see `LastToken`.
            dtype: Keras dtype policy.
            padding_idx: For "last", as for `LastToken`.
        """
        mask = self.inputs.get("attention_mask")  # images have none
        if mode == "last":
            last = LastToken(padding_idx, dtype=dtype, name="pooling")
            return last(self.hidden, self.inputs["input_ids"], mask)
        hidden = self.first_token if mode == "cls" else self.hidden
        pooling = Pooling(mode, dtype=dtype, name="pooling")
        return pooling(hidden) if mask is None else pooling(hidden, mask)

    def vector(self, head: Any, pooling: str, dtype: Any) -> Any:
        """The vector (B, D) of each text or image that a bare model returns.

        Args:
            head: A head of the family with `pooling` and `transform`; see `families.Head`.
            pooling: "pooler" for that of the family, or a mode of `pooled`.
            dtype: Keras dtype policy.
        """
        own = pooling == "pooler"
        features = self.pooled(head.pooling if own else pooling, dtype)
        return head.transform(dtype=dtype)(features) if own and head.transform else features


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
    has_cross_attention: bool = False,
    block_class: type[EncoderBlock] = EncoderBlock,
    **block: Any,
) -> EncoderBlock:
    """Makes a block of BERT (Devlin et al. 2019) or of a related family.

    Args:
        hidden_size: D.
        num_heads: Number of attention heads.
        intermediate_size: Width of the feed-forward sublayer.
        activation: A Hugging Face activation name.
        attention_dropout: Dropout rate of the attention weights.
        initializer_range: Standard deviation of new kernels.
        dtype: Keras dtype policy; None for the global one.
        attention: The attention layer; by default a `MultiHeadAttention`.
        attention_options: Keyword arguments of `MultiHeadAttention` in which a family differs from
            BERT.
        feed_forward_options: Keyword arguments of `FeedForward` in which it differs from BERT.
        has_cross_attention: Whether the block is a `CrossAttentionBlock`, whose second attention
            has the same options.
        block_class: The class of the block otherwise.
        **block: Keyword arguments of `block_class`.
    """

    def make_attention(name: str) -> MultiHeadAttention:
        sizes = (hidden_size, num_heads, attention_dropout, initializer_range)
        return MultiHeadAttention(*sizes, **attention_options, dtype=dtype, name=name)

    if attention is None:
        attention = make_attention("attention")
    feed_forward = FeedForward(
        intermediate_size,
        hidden_size,
        activation,
        initializer_range,
        **feed_forward_options,
        dtype=dtype,
        name="feed_forward",
    )
    if has_cross_attention:
        block_class = CrossAttentionBlock
        block["cross_attention"] = make_attention("cross_attention")
    return block_class(attention, feed_forward, dtype=dtype, **block)


def encoder(
    embeddings: Embeddings,
    blocks: Sequence[EncoderBlock],
    masks: Sequence[AttentionMask] | None = None,
    positions: Sequence[keras.layers.Layer] | None = None,
    final_norm: keras.layers.Layer | None = None,
) -> Backbone:
    """Calls embeddings and blocks in order on symbolic inputs.

    Args:
        embeddings: The first stage. The model has an input `token_type_ids` if this layer has a
            token-type table.
        blocks: The other stages. A block that is listed several times shares its weights.
        masks: The mask layer of each block. A layer that is listed several times is called once,
            and these blocks share its output. By default every token attends to all tokens that are
            not padding.
        positions: The layer of each block for relative or rotary positions, shared in the same way;
            None for no such positions.
        final_norm: Normalisation after the last block; None for no normalisation.

    Example:
        >>> from finetune_tf.architectures import Embeddings, bert_block
        >>> sizes = {"hidden_size": 8, "num_heads": 2, "intermediate_size": 16}
        >>> options = {"activation": "gelu", "attention_dropout": 0.1, "initializer_range": 0.02}
        >>> blocks = [bert_block(**sizes, **options, dtype=None, name=f"block_{i}") for i in (0, 1)]
        >>> backbone = encoder(Embeddings(100, 8, 32, name="embeddings"), blocks)
        >>> [stage.name for stage in ft.stages(keras.Model(backbone.inputs, backbone.hidden))]
        ['embeddings', 'block_0', 'block_1']
    """
    names = ["input_ids", "token_type_ids", "attention_mask"]
    if embeddings.token_type is None:
        names.remove("token_type_ids")
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in names}
    ids, attention_mask = inputs["input_ids"], inputs["attention_mask"]
    other_inputs = {name: tensor for name, tensor in inputs.items() if name != "input_ids"}
    if not embeddings.mask_padding:
        del other_inputs["attention_mask"]
    hidden = embeddings(ids, **other_inputs)

    # Each layer is called once, whichever blocks share its output.
    masks = masks or [AttentionMask(name="mask")] * len(blocks)
    positions = positions or [None] * len(blocks)
    outputs = {
        id(layer): layer(attention_mask) for layer in dict.fromkeys([*masks, *positions]) if layer
    }
    arguments_of_blocks = [
        {"attention_mask": outputs[id(mask)], "positions": outputs.get(id(layer))}
        for mask, layer in zip(masks, positions, strict=True)
    ]
    for block, arguments in zip(blocks[:-1], arguments_of_blocks, strict=False):
        hidden = block(hidden, **arguments)
    first_token = FirstToken(name="first_token")(hidden)
    results = [
        blocks[-1](hidden, **arguments_of_blocks[-1]),
        blocks[-1](first_token, context=hidden, **arguments_of_blocks[-1]),
    ]
    if final_norm is not None:
        results = [final_norm(result) for result in results]
    return Backbone(inputs, *results, embeddings)
