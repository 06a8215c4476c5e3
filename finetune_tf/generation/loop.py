"""The loop that generates tokens, as one graph for all prompts of a model."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
from keras import ops

from finetune_tf.generation import engine
from finetune_tf.generation.forward import (
    Cache,
    Memory,
    beginning,
    forward,
    sources_in_cache,
)
from finetune_tf.generation.rules import Seen, apply_rules
from finetune_tf.generation.sampling import log_probs_of, next_token
from finetune_tf.generation.way import Way


class Progress(NamedTuple):
    """Where generation stands.

    Attributes:
        step: The number of generated tokens.
        ids: (B, K) int32, prompts and generated tokens, the last one in the last column.
        mask: (B, K) int32, 1 for real tokens.
        finished: (B,) bool, which texts have ended.
        is_finite: Whether all logits were finite.
        states: (B,), what `Ends` knows about the texts.
        scores: (B,), sums of log-probabilities of the chosen tokens; 0 unless they are asked for.
        cache: The keys and values of all tokens but the last one.
        memory: What the blocks of an encoder-decoder read of the sources.
    """

    step: Any
    ids: Any
    mask: Any
    finished: Any
    is_finite: Any
    states: Any
    scores: Any
    cache: Cache
    memory: Memory | tuple[()]


def generate_ids(
    model: keras.Model,
    ids: Any,
    attention_mask: Any,
    max_new_tokens: int,
    way: Way,
    seed: tuple[int, int],
) -> Any:
    """Continues prompts.

    Args:
        model: A causal language model or an encoder-decoder.
        ids: (B, P) int32, prompts with padding before them; for an encoder-decoder the sources,
            with padding after them.
        attention_mask: (B, P), 1 for real tokens.
        max_new_tokens: How many to generate at most.
        way: How they are generated, by sampling or greedily.
        seed: The seed of the samples, and the index of the first prompt.

    Returns:
        The new tokens (B, N) int32, N up to `max_new_tokens`, the sums of their log-probabilities
        (B,), and whether all logits were finite.
    """

    def traced(model: Any, ids: Any, mask: Any, most: Any, seed: Any) -> Any:
        with engine.reading():
            progress = _begin(model, ids, mask, most, seed, way)
            progress = _advance(model, progress, most, most, seed, way)
        return progress.ids, progress.step, progress.scores, progress.is_finite

    signature = [*engine.prompts(), engine.scalar("int32"), engine.seeds()]
    function = engine.trace(model, ("generate", way), traced, signature)
    found = function(ids, attention_mask, max_new_tokens, engine.seed_array(seed))
    ids, step, scores, is_finite = found
    return ids[:, ids.shape[1] - int(step) :], scores, is_finite


def stream_ids(
    model: keras.Model,
    ids: Any,
    attention_mask: Any,
    max_new_tokens: int,
    way: Way,
    seed: tuple[int, int],
) -> Iterator[Progress]:
    """Continues prompts token by token, with the same tokens as `generate_ids`.

    Args:
        model: A causal language model.
        ids: (B, P) int32, prompts with padding before them.
        attention_mask: (B, P), 1 for real tokens.
        max_new_tokens: How many to generate at most.
        way: How they are generated, by sampling or greedily.
        seed: The seed of the samples, and the index of the first prompt.

    Yields:
        Where generation stands after each token.
    """

    def begun(model: Any, ids: Any, mask: Any, most: Any, seed: Any) -> Any:
        return _begin(model, ids, mask, most, seed, way)

    def continued(model: Any, most: Any, seed: Any, *progress: Any) -> Any:
        progress = Progress(*progress)
        return _advance(model, progress, progress.step + 1, most, seed, way)

    most, seed = max_new_tokens, engine.seed_array(seed)
    numbers = [engine.scalar("int32"), engine.seeds()]
    begin = engine.trace(model, ("begin", way), begun, [*engine.prompts(), *numbers])
    progress = Progress(*begin(ids, attention_mask, most, seed))
    yield _without_room(progress, most)
    kinds = engine.kinds_of(progress, _shapes(progress))
    step = engine.trace(model, ("continue", way), continued, [*numbers, *kinds])
    while _has_more(progress, most):
        progress = Progress(*step(most, seed, *progress))
        yield _without_room(progress, most)


def _without_room(progress: Progress, most: int) -> Progress:
    """Returns where generation stands without the room for other tokens; see `engine.windowed`."""
    left = most - int(progress.step)
    rows = progress.ids, progress.mask
    ids, mask = (engine.without_room(tensor, left) for tensor in rows)
    return progress._replace(ids=ids, mask=mask)


def _begin(model: keras.Model, ids: Any, mask: Any, most: Any, seed: Any, way: Way) -> Progress:
    """Passes prompts through the model, and chooses the first token of each text."""
    ids, mask, memory, cache = beginning(model, ids, mask, way.first)
    batch = ops.shape(ids)[0]
    logits, cache = forward(model, ids, mask, cache, memory)
    progress = Progress(
        step=ops.convert_to_tensor(0, "int32"),
        ids=engine.windowed(ids, most),
        mask=engine.windowed(mask, most),
        finished=ops.zeros((batch,), "bool"),
        is_finite=ops.convert_to_tensor(True),
        states=way.ends.states(ids, mask),
        scores=ops.zeros((batch,), "float32"),
        cache=engine.windowed_cache(cache, most, sources_in_cache(model, memory)),
        memory=memory,
    )
    return _chosen(logits, progress, most, seed, way)


def _advance(
    model: keras.Model, progress: Progress, until: Any, most: Any, seed: Any, way: Way
) -> Progress:
    """Generates tokens until there are so many, or all texts have ended."""

    def body(*progress: Any) -> Progress:
        progress = Progress(*progress)
        token = ops.reshape(progress.ids[:, -1], (-1, 1))
        logits, cache = forward(model, token, progress.mask, progress.cache, progress.memory)
        cache = engine.shortened_cache(cache, sources_in_cache(model, progress.memory))
        return _chosen(logits, progress._replace(cache=cache), most, seed, way)

    return engine.loop(
        lambda *progress: _has_more(Progress(*progress), until), body, progress, _shapes(progress)
    )


def _has_more(progress: Progress, most: Any) -> Any:
    return (progress.step < most) & ~ops.all(progress.finished) & progress.is_finite


def _chosen(logits: Any, progress: Progress, most: Any, seed: Any, way: Way) -> Progress:
    """Appends the next token to each text."""
    step, ids, mask, finished = progress[:4]
    scores = apply_rules(way.rules, logits, Seen(ids, mask, step, most, progress.memory))
    token, scores = next_token(scores, way.choice, engine.seed_of_step(seed, step))
    total = progress.scores
    if way.has_scores:
        total += ops.where(finished, 0.0, log_probs_of(token, scores))
    token = ops.where(finished, way.padding, token)
    states, is_end = way.ends.after(progress.states, token)
    return Progress(
        step=step + 1,
        ids=engine.appended(ids, token[:, None]),
        mask=engine.appended(mask, ops.ones_like(token[:, None])),
        finished=finished | is_end,
        is_finite=progress.is_finite & engine.are_finite(logits),
        states=states,
        scores=total,
        cache=progress.cache,
        memory=progress.memory,
    )


def _shapes(progress: Progress) -> Progress:
    """Returns the shapes of which some axes grow in the loop."""
    scalar, texts, rows = map(engine.growing, range(3))
    caches = engine.cache_shapes(progress.cache)
    memory = progress.memory
    if memory:  # a stream has sources of any length
        memory = Memory(rows, rows, engine.cache_shapes(memory.keys_and_values))
    return Progress(scalar, rows, rows, texts, scalar, texts, texts, caches, memory)
