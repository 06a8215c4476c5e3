"""Beam search with a model, as one graph for all prompts of a model.

Shape legend: B batch, N beams of a text, P tokens of a prompt, T new tokens, V vocabulary.
"""

from typing import Any

import keras
from keras import ops

from finetune_tf.generation import engine
from finetune_tf.generation.beams import State, advance, follow, is_going_on, result, start
from finetune_tf.generation.forward import Cache, beginning, forward, sources_in_cache
from finetune_tf.generation.rules import Seen, apply_rules
from finetune_tf.generation.way import Way


def search_ids(
    model: keras.Model,
    ids: Any,
    attention_mask: Any,
    max_new_tokens: int,
    way: Way,
    seed: tuple[int, int] = (0, 0),
) -> tuple[Any, Any, Any]:
    """Continues prompts by beam search.

    Args:
        model: A causal language model or an encoder-decoder.
        ids: (B, P) int32, prompts with padding before them; for an encoder-decoder the sources,
            with padding after them.
        attention_mask: (B, P), 1 for real tokens.
        max_new_tokens: T, how many to generate at most.
        way: How they are generated, by beam search. Its rules change log-probabilities.
        seed: The seed of samples, and the index of the first prompt.

    Returns:
        The new tokens (B, returned, T) int32, the scores (B, returned), and whether all logits
        were finite.
    """

    def traced(model: Any, ids: Any, mask: Any, most: Any, seed: Any) -> Any:
        with engine.reading():
            state, is_finite = _search(model, ids, mask, most, seed, way)
        return *result(state, way.returned), is_finite

    signature = [*engine.prompts(), engine.scalar("int32"), engine.seeds()]
    function = engine.trace(model, ("search", way), traced, signature)
    return function(ids, attention_mask, max_new_tokens, engine.seed_array(seed))


def _search(
    model: keras.Model, ids: Any, mask: Any, most: Any, seed: Any, way: Way
) -> tuple[State, Any]:
    ids, mask, memory, cache = beginning(model, ids, mask, way.first)
    batch, beams = ops.shape(ids)[0], way.choice
    sources = sources_in_cache(model, memory)

    def choose(logits: Any, state: State, cache: Cache, memory: Any) -> tuple[State, Cache]:
        """The state with another token of each beam, and the caches in the beams' new order."""
        scores = ops.log_softmax(logits)  # (B · N, V)
        new = ops.reshape(state.running, (-1, ops.shape(state.running)[2]))
        is_new = ops.broadcast_to(ops.arange(ops.shape(new)[1]) < state.step, ops.shape(new))
        seen = engine.joined(every_beam(ids), new, state.step)
        real = engine.joined(every_beam(mask), ops.cast(is_new, "int32"), state.step)
        scores = apply_rules(way.rules, scores, Seen(seen, real, state.step, most, memory))
        scores = ops.reshape(scores, (batch, beams.count, logits.shape[-1]))
        step_seed = engine.seed_of_step(seed, state.step)
        state, parents = advance(state, scores, most, beams, way.ends, step_seed)
        return state, keras.tree.map_structure(follow(parents), cache)

    def every_beam(tensor: Any) -> Any:
        return ops.repeat(tensor, beams.count, axis=0)

    # The prompt is passed through the model once for all beams of a text.
    logits, cache = forward(model, ids, mask, cache, memory)
    is_finite = engine.are_finite(logits)
    memory = keras.tree.map_structure(every_beam, memory)
    cache = engine.windowed_cache(keras.tree.map_structure(every_beam, cache), most, sources)
    state = start(way.ends.states(ids, mask), most, beams, way.padding)
    state, cache = choose(every_beam(logits), state, cache, memory)

    def body(state: State, is_finite: Any, mask: Any, cache: Cache) -> tuple:
        last = ops.reshape(ops.take(state.running, state.step - 1, axis=2), (-1, 1))
        mask = engine.appended(mask, ops.ones_like(last))
        logits, cache = forward(model, last, mask, cache, memory)
        cache = engine.shortened_cache(cache, sources)
        state, cache = choose(logits, state, cache, memory)
        return state, is_finite & engine.are_finite(logits), mask, cache

    return engine.loop(
        lambda state, is_finite, mask, cache: is_going_on(state, beams) & is_finite,
        body,
        (state, is_finite, engine.windowed(every_beam(mask), most), cache),
        (
            engine.shapes_of(state),
            engine.growing(0),
            engine.growing(2),
            engine.cache_shapes(cache),
        ),
    )[:2]
