"""Beam search with a model, as one TensorFlow graph for all prompts of a model.

Shape legend: B batch, N beams of a text, P tokens of a prompt, T new tokens, V vocabulary.
"""

from typing import Any

import keras
import numpy as np

from finetune_tf.base.keras_internals import ReadOnce
from finetune_tf.generation.beams import State, advance, follow, is_going_on, result, start
from finetune_tf.generation.forward import Cache, beginning, forward
from finetune_tf.generation.rules import Seen, apply_rules
from finetune_tf.generation.way import (
    Way,
    are_finite,
    prompts,
    scalar,
    seed_of_step,
    seeds,
    trace,
)


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
        with ReadOnce():
            state, is_finite = _search(model, ids, mask, most, seed, way)
        return *result(state, way.returned), is_finite

    function = trace(model, ("search", way), traced, [*prompts(), scalar("int32"), seeds()])
    return function(ids, attention_mask, max_new_tokens, np.asarray(seed, "int64"))


def _search(
    model: keras.Model, ids: Any, mask: Any, most: Any, seed: Any, way: Way
) -> tuple[State, Any]:
    import tensorflow as tf

    ids, mask, memory, cache = beginning(model, ids, mask, way.first)
    batch, beams = tf.shape(ids)[0], way.choice

    def choose(logits: Any, state: State, cache: Cache, memory: Any) -> tuple[State, Cache]:
        """The state with another token of each beam, and the caches in the beams' new order."""
        scores = tf.nn.log_softmax(logits)  # (B · N, V)
        new = tf.reshape(state.running[:, :, : state.step], (-1, state.step))
        seen = tf.concat([every_beam(ids), new], axis=1)
        real = tf.concat([every_beam(mask), tf.ones_like(new)], axis=1)
        scores = apply_rules(way.rules, scores, Seen(seen, real, state.step, most, memory))
        scores = tf.reshape(scores, (batch, beams.count, logits.shape[-1]))
        step_seed = seed_of_step(seed, state.step)
        state, parents = advance(state, scores, most, beams, way.ends, step_seed)
        return state, tf.nest.map_structure(follow(parents), cache)

    def every_beam(tensor: Any) -> Any:
        return tf.repeat(tensor, beams.count, axis=0)

    # The prompt is passed through the model once for all beams of a text.
    logits, cache = forward(model, ids, mask, cache, memory)
    is_finite = are_finite(logits)
    memory = tf.nest.map_structure(every_beam, memory)
    cache = tf.nest.map_structure(every_beam, cache)
    state = start(way.ends.states(ids, mask), most, beams, way.padding)
    state, cache = choose(every_beam(logits), state, cache, memory)

    def body(state: State, is_finite: Any, mask: Any, cache: Cache) -> tuple:
        last = tf.reshape(tf.gather(state.running, state.step - 1, axis=2), (-1, 1))
        mask = tf.concat([mask, tf.ones_like(last)], axis=1)
        logits, cache = forward(model, last, mask, cache, memory)
        state, cache = choose(logits, state, cache, memory)
        return state, is_finite & are_finite(logits), mask, cache

    caches = tf.nest.map_structure(
        lambda part: tf.TensorShape((None, part.shape[1], None, part.shape[3])), cache
    )
    shapes = tf.nest.map_structure(lambda part: part.shape, state)
    rows = tf.TensorShape((None, None))
    return tf.while_loop(
        lambda state, is_finite, mask, cache: is_going_on(state, beams) & is_finite,
        body,
        (state, is_finite, every_beam(mask), cache),
        (shapes, tf.TensorShape(()), rows, caches),
    )[:2]
