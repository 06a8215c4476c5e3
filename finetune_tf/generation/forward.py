"""The forward pass of a decoder over a few tokens, with the keys and values of earlier ones cached.

The layers of the model's own graph are called again, each with the positions of the tokens, so
there is no second model and no second version of a block. Of an encoder-decoder, only the decoder's
part of the graph is called; its blocks get the keys and values of the encoder's output, which are
computed once for each source. A prefix language model reads a source as its prompt: the graph is
called with an empty target, and its blocks cache the keys and values of the source.

Shape legend: B batch, H key and value heads, Q new tokens, C cached tokens, K = C + Q, M source
tokens, F features of a head, V vocabulary.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import ops

from finetune_tf.architectures import (
    AttentionMask,
    CrossAttentionBlock,
    Embeddings,
    EncoderBlock,
    EndOfChain,
    JoinTexts,
    PositionEmbeddings,
    RelativePositionBias,
    RotaryPositions,
    TargetStates,
)
from finetune_tf.base.keras_internals import run_graph, scope_of_reading
from finetune_tf.errors import ModelError
from finetune_tf.graph.splitting import upper_part
from finetune_tf.graph.traces import traces_of

Cache = tuple[tuple[Any, Any], ...]  # keys and values (B, H, C, F) of each block


class Memory(NamedTuple):
    """What the blocks of a decoder read of the source texts.

    Attributes:
        attention_mask: (B, M), 1 for tokens and 0 for padding.
        ids: (B, M), the tokens, which rules compare with those of the target.
        keys_and_values: For each block the keys and values (B, H, M, F) of its cross-attention;
            empty for a prefix language model, which has those of the sources in its cache.
    """

    attention_mask: Any
    ids: Any
    keys_and_values: Cache


_MEMORY = "memory"  # the input of the decoder for the encoder's output
NO_MEMORY = ()  # of models that are no encoder-decoders


class Sides(NamedTuple):
    """The two parts of an encoder-decoder.

    Attributes:
        encoder: Maps `input_ids` and `attention_mask` (B, M) to hidden states (B, M, D).
        decoder: Maps these hidden states (the input "memory"), `attention_mask`,
            `decoder_input_ids` and `decoder_attention_mask` to logits.
    """

    encoder: keras.Model
    decoder: keras.Model


def reads_sources(model: keras.Model) -> bool:
    """Whether a model writes targets for sources instead of continuing prompts."""
    return any(tensor.name == "decoder_input_ids" for tensor in model.inputs)


def is_prefix_model(model: keras.Model) -> bool:
    """Whether a model reads sources and targets joined to one sequence."""
    return any(isinstance(layer, JoinTexts) for layer in model.layers)


def sides_of(model: keras.Model) -> Sides | None:
    """Returns the parts of an encoder-decoder; None for any other model.

    A prefix language model, which reads sources as well, has a single part.
    """
    traces = traces_of(model)
    if "sides" not in traces:
        ends = [layer for layer in model.layers if isinstance(layer, EndOfChain)]
        ends = [layer for layer in ends if layer.name == "encoder"]
        sides = None
        if ends and any(isinstance(layer, CrossAttentionBlock) for layer in model.layers):
            inputs = {tensor.name: tensor for tensor in model.inputs}
            source = [inputs["input_ids"], inputs["attention_mask"]]
            known, outputs = upper_part(model, {_MEMORY: ends[0].output})
            sides = Sides(keras.Model(source, ends[0].output), keras.Model(known, outputs))
        traces["sides"] = sides
    return traces["sides"]


def cached_blocks(model: keras.Model) -> list[EncoderBlock]:
    """The blocks whose keys and values are cached, from the bottom up.

    Raises:
        ModelError: If the model does not predict each token from those before it.
    """
    sides = sides_of(model)
    layers = model.layers if sides is None else sides.decoder.layers
    kind = EncoderBlock if sides is None else CrossAttentionBlock
    blocks = [layer for layer in layers if isinstance(layer, kind)]
    masks = [layer for layer in layers if isinstance(layer, AttentionMask)]
    if not blocks or (sides is None and not all(mask.causal for mask in masks)):
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


def remember(model: keras.Model, ids: Any, attention_mask: Any) -> Memory:
    """Passes source texts through the encoder of an encoder-decoder.

    Args:
        model: An encoder-decoder.
        ids: (B, M), the tokens of the sources.
        attention_mask: (B, M), 1 for tokens and 0 for padding.
    """
    hidden = sides_of(model).encoder([ids, attention_mask])
    blocks = cached_blocks(model)
    return Memory(
        attention_mask,
        ids,
        tuple(block.cross_attention.keys_and_values(hidden) for block in blocks),
    )


def read_prefix(model: keras.Model, ids: Any, attention_mask: Any) -> tuple[Memory, Cache]:
    """Passes source texts through a prefix language model.

    Args:
        model: A prefix language model.
        ids: (B, M), the tokens of the sources.
        attention_mask: (B, M), 1 for tokens and 0 for padding.

    Returns:
        What the later tokens need to know of the sources: the mask, and the cache.
    """
    batch = ops.shape(ids)[0]
    blocks, cache = cached_blocks(model), empty_cache(model, batch)
    caches = dict(zip(map(id, blocks), cache, strict=True))

    def run_block(block: EncoderBlock, x: Any, **known: Any) -> Any:
        x, caches[id(block)] = block(x, cache=caches[id(block)], **known)
        return x

    def placed(operation: Any) -> Callable:
        is_block = isinstance(operation, EncoderBlock)
        return functools.partial(run_block, operation) if is_block else operation

    nothing = ops.zeros((batch, 0), "int32")
    known = {"input_ids": ids, "attention_mask": attention_mask}
    run_graph(model, [known.get(tensor.name, nothing) for tensor in model.inputs], placed)
    return Memory(attention_mask, ids, ()), tuple(caches[id(block)] for block in blocks)


def beginning(
    model: keras.Model, ids: Any, attention_mask: Any, first: int | None
) -> tuple[Any, Any, Memory | tuple[()], Cache]:
    """Returns what the first pass through a decoder reads.

    Args:
        model: A causal language model, a prefix language model or an encoder-decoder.
        ids: (B, P), prompts, or the sources of a model that reads sources.
        attention_mask: (B, P), 1 for real tokens.
        first: The token with which targets begin; None for a model that continues prompts.

    Returns:
        The tokens that are continued, their mask, what the blocks read of the sources, and the
        cache.
    """
    batch = ops.shape(ids)[0]
    if first is None:
        return ids, attention_mask, NO_MEMORY, empty_cache(model, batch)
    if is_prefix_model(model):
        memory, cache = read_prefix(model, ids, attention_mask)
    else:
        memory, cache = remember(model, ids, attention_mask), empty_cache(model, batch)
    ones = ops.ones((batch, 1), "int32")
    return first * ones, ones, memory, cache


def sources_in_cache(model: keras.Model, memory: Memory | tuple[()]) -> int:
    """Returns how many places of a cache, the first ones, are those of sources."""
    return memory.attention_mask.shape[1] if is_prefix_model(model) else 0


def forward(
    model: keras.Model,
    ids: Any,
    attention_mask: Any,
    cache: Cache,
    memory: Memory | tuple[()] = NO_MEMORY,
) -> tuple[Any, Cache]:
    """Passes tokens through the model.

    Args:
        model: A causal language model, a prefix language model or an encoder-decoder.
        ids: (B, Q), all tokens of the prompt, or the one that follows the cached ones. In a model
            that reads sources, it is a token of the target.
        attention_mask: (B, K), 1 for real tokens, of the cached and of the new ones. Padding
            comes first, so that the last token of every text is a real one.
        cache: Of the earlier tokens.
        memory: What the blocks of a model that reads sources read of them.

    Returns:
        The logits of the token after the last one, (B, V) in float32, and the cache with the new
        tokens.
    """
    blocks = cached_blocks(model)
    caches = dict(zip(map(id, blocks), cache, strict=True))
    memories, is_prefix = {}, is_prefix_model(model)
    if is_prefix:  # the cache holds the sources as well
        sources = ops.cast(memory.attention_mask, "int32")
        attention_mask = ops.concatenate([sources, attention_mask], axis=1)
    elif memory:
        memories = dict(zip(map(id, blocks), memory.keys_and_values, strict=True))
    is_single = ids.shape[1] == 1
    places = ops.maximum(ops.cumsum(ops.cast(attention_mask, "int32"), axis=1) - 1, 0)  # (B, K)
    # TensorFlow cannot infer that `places[:, -1:]` has exactly one column.
    positions = places[:, -1][:, None] if is_single else places

    def run_block(block: EncoderBlock, x: Any, context: Any = None, **known: Any) -> Any:
        if memories:
            known["memory"] = memories[id(block)]
        x, caches[id(block)] = block(x, context=context, cache=caches[id(block)], **known)
        # Only the last token is needed above the last block.
        return x[:, -1:] if block is blocks[-1] else x

    def embed(embeddings: Embeddings, x: Any, decode: bool = False, **more: Any) -> Any:
        if decode:
            return scores(embeddings, x, **more)
        return embeddings(x, **{**more, "position_ids": positions})

    def join(layer: JoinTexts, *_: Any) -> tuple[Any, ...]:
        types = ops.full_like(ids, layer.target_type)
        return ids, attention_mask, positions, types, None

    def scores(embeddings: Embeddings, x: Any, **more: Any) -> Any:
        reading = scope_of_reading()
        if reading is None or x.dtype != "float32":
            return embeddings(x, decode=True, **more)
        # In float32 on CPUs, the product with a transposed matrix takes more than twice as long.
        return ops.matmul(x, reading.transposed(embeddings.word.embeddings, "float32"))

    def placed(operation: Any) -> Callable:
        """Returns an operation of the graph that knows the positions of the tokens."""
        if isinstance(operation, EncoderBlock):
            return functools.partial(run_block, operation)
        if isinstance(operation, Embeddings):
            return functools.partial(embed, operation)
        if isinstance(operation, AttentionMask):
            return functools.partial(operation, last_query=is_single and operation.causal)
        if isinstance(operation, RelativePositionBias):
            return functools.partial(operation, last_query=is_single)
        if isinstance(operation, PositionEmbeddings | RotaryPositions):
            return functools.partial(operation, position_ids=positions)
        if isinstance(operation, JoinTexts):
            return functools.partial(join, operation)
        if isinstance(operation, TargetStates):  # all tokens are those of the target
            return lambda _, hidden: hidden
        return operation

    if is_prefix:  # its first layer, in whose place `join` is called, is all that reads inputs
        graph, known = model, {tensor.name: ids for tensor in model.inputs}
    elif not memory:
        graph, known = model, {"input_ids": ids, "attention_mask": attention_mask}
    else:
        graph = sides_of(model).decoder
        known = {"attention_mask": memory.attention_mask, _MEMORY: memory.attention_mask}
        # No block reads the hidden states of the encoder, so that anything may be in their place.
        known |= {"decoder_input_ids": ids, "decoder_attention_mask": attention_mask}
    logits = run_graph(graph, [known[tensor.name] for tensor in graph.inputs], placed)
    return logits[:, -1], tuple(caches[id(block)] for block in blocks)
