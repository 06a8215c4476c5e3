"""The forward pass of a decoder over a few tokens, with the keys and values of earlier ones cached.

The layers of the model's own graph are called again, each with the positions of the tokens, so
there is no second model and no second version of a block.

Shape legend: B batch, H key and value heads, Q new tokens, C cached tokens, K = C + Q, F features
of a head, V vocabulary.
"""

import functools
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from finetune_tf.architectures import AttentionMask, Embeddings, EncoderBlock, RotaryPositions
from finetune_tf.base.keras_internals import run_graph
from finetune_tf.errors import ModelError

Cache = tuple[tuple[Any, Any], ...]  # keys and values (B, H, C, F) of each block


def cached_blocks(model: keras.Model) -> list[EncoderBlock]:
    """The blocks whose keys and values are cached, from the bottom up.

    Raises:
        ModelError: If the model does not predict each token from those before it.
    """
    blocks = [layer for layer in model.layers if isinstance(layer, EncoderBlock)]
    masks = [layer for layer in model.layers if isinstance(layer, AttentionMask)]
    if not blocks or not all(mask.causal for mask in masks):
        raise ModelError(
            f"{model.name} is no causal language model, so it generates no text. Load a checkpoint "
            "of a decoder, such as GPT-2 or Llama, with ft.load(checkpoint, 'text-generation')."
        )
    return blocks


def empty_cache(model: keras.Model, batch: Any) -> Cache:
    """A cache of no tokens, for so many texts."""
    made = []
    for block in cached_blocks(model):
        attention = block.attention
        shape = (batch, attention.num_kv_heads, 0, attention.head_size)
        empty = ops.zeros(shape, attention.compute_dtype)
        made.append((empty, empty))
    return tuple(made)


def forward(model: keras.Model, ids: Any, attention_mask: Any, cache: Cache) -> tuple[Any, Cache]:
    """Passes tokens through the model.

    Args:
        model: A causal language model.
        ids: (B, Q), all tokens of the prompt, or the one that follows the cached ones.
        attention_mask: (B, K), 1 for real tokens, of the cached and of the new ones. Padding
            comes first, so that the last token of every text is a real one.
        cache: Of the earlier tokens.

    Returns:
        The logits of the token after the last one, (B, V) in float32, and the cache with the new
        tokens.
    """
    blocks = cached_blocks(model)
    caches = dict(zip(map(id, blocks), cache, strict=True))
    is_single = ids.shape[1] == 1
    places = ops.maximum(ops.cumsum(ops.cast(attention_mask, "int32"), axis=1) - 1, 0)  # (B, K)
    positions = places[:, -1:] if is_single else places

    def run_block(block: EncoderBlock, x: Any, context: Any = None, **known: Any) -> Any:
        x, caches[id(block)] = block(x, cache=caches[id(block)], **known)
        # Only the last token is needed above the last block.
        return x[:, -1:] if block is blocks[-1] else x

    def embed(embeddings: Embeddings, x: Any, decode: bool = False, **more: Any) -> Any:
        if decode:
            return embeddings(x, decode=True, **more)
        return embeddings(x, position_ids=positions, **more)

    def placed(operation: Any) -> Callable:
        """Returns an operation of the graph that knows the positions of the tokens."""
        if isinstance(operation, EncoderBlock):
            return functools.partial(run_block, operation)
        if isinstance(operation, Embeddings):
            return functools.partial(embed, operation)
        if isinstance(operation, AttentionMask):
            return functools.partial(operation, last_query=is_single)
        if isinstance(operation, RotaryPositions):
            return functools.partial(operation, position_ids=positions)
        return operation

    known = {"input_ids": ids, "attention_mask": attention_mask}
    logits = run_graph(model, [known[tensor.name] for tensor in model.inputs], placed)
    return logits[:, -1], tuple(caches[id(block)] for block in blocks)
