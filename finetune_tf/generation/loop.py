"""The loop that generates tokens, as one TensorFlow graph for all prompts of a model."""

import weakref
from typing import Any

import keras
import numpy as np

from finetune_tf.generation.beams import (
    Beams,
    State,
    advance,
    follow,
    is_going_on,
    result,
    start,
)
from finetune_tf.generation.forward import Cache, Memory, empty_cache, forward, remember
from finetune_tf.generation.sampling import Rules, Sampling, next_token
from finetune_tf.graph.traces import traces_of

_MOST_STEPS = 2**32  # more tokens than any text has, so that no two samples share a seed


def generate_ids(
    model: keras.Model,
    ids: Any,
    attention_mask: Any,
    max_new_tokens: int,
    sampling: Sampling,
    rules: Rules,
    eos: tuple[int, ...],
    padding: int,
    seed: tuple[int, int],
    first: int | None = None,
) -> Any:
    """Continues prompts, or generates the targets of sources.

    Args:
        model: A causal language model or an encoder-decoder.
        ids: (B, P) int32, prompts with padding before them; for an encoder-decoder the sources,
            with padding after them.
        attention_mask: (B, P), 1 for real tokens.
        max_new_tokens: How many to generate at most.
        sampling: How each is chosen.
        rules: What is changed of the scores before.
        eos: The tokens that end a text; none if nothing does.
        padding: What follows the end of a text.
        seed: The seed of the samples, and the index of the first prompt.
        first: The token with which the targets of an encoder-decoder begin; None for other models.

    Returns:
        The new tokens (B, N) int32, N up to `max_new_tokens`, and whether all logits were finite.
    """
    import tensorflow as tf

    options = (sampling, rules, eos, padding, first)
    traces, key = traces_of(model), ("generate", *options, len(model.weights))
    if key not in traces:
        reference = weakref.ref(model)  # the trace must not keep the model alive

        def traced(ids: Any, mask: Any, most: Any, seed: Any) -> Any:
            return _loop(reference(), ids, mask, most, seed, *options)

        signature = [
            tf.TensorSpec((None, None), tf.int32),
            tf.TensorSpec((None, None), tf.int32),
            tf.TensorSpec((), tf.int32),
            tf.TensorSpec((2,), tf.int64),
        ]
        traces[key] = tf.function(traced, input_signature=signature, autograph=False)
    return traces[key](ids, attention_mask, max_new_tokens, np.asarray(seed, "int64"))


def _loop(
    model: keras.Model,
    ids: Any,
    mask: Any,
    most: Any,
    seed: Any,
    sampling: Sampling,
    rules: Rules,
    eos: tuple[int, ...],
    padding: int,
    first: int | None,
) -> Any:
    import tensorflow as tf

    ids, mask, memory = _begin(model, ids, mask, first)
    batch, prompt = tf.unstack(tf.shape(ids))

    def choose(logits: Any, step: Any, ids: Any, mask: Any, finished: Any) -> tuple:
        """Ids, mask and ends with the next token of each text."""
        logits = rules.apply(logits, ids, mask, step, eos)
        place = seed[1] * _MOST_STEPS + tf.cast(step, tf.int64)
        token = next_token(logits, sampling, tf.stack([seed[0], place]))
        token = tf.where(finished, padding, token)
        ids = tf.concat([ids, token[:, None]], axis=1)
        mask = tf.concat([mask, tf.ones((batch, 1), "int32")], axis=1)
        for end in eos:
            finished = finished | tf.equal(token, end)
        return ids, mask, finished

    logits, cache = forward(model, ids, mask, empty_cache(model, batch), memory)
    is_finite = are_finite(logits)
    ids, mask, finished = choose(logits, 0, ids, mask, tf.zeros([batch], "bool"))

    def has_more(step: Any, ids: Any, mask: Any, finished: Any, is_finite: Any, _: Cache) -> Any:
        return (step < most) & ~tf.reduce_all(finished) & is_finite

    def body(step: Any, ids: Any, mask: Any, finished: Any, is_finite: Any, cache: Cache) -> tuple:
        token = tf.ensure_shape(ids[:, -1:], (None, 1))
        logits, cache = forward(model, token, mask, cache, memory)
        ids, mask, finished = choose(logits, step, ids, mask, finished)
        return step + 1, ids, mask, finished, is_finite & are_finite(logits), cache

    rows = tf.TensorShape((None, None))
    caches = tf.nest.map_structure(
        lambda part: tf.TensorShape((None, part.shape[1], None, part.shape[3])), cache
    )
    state = (tf.constant(1), ids, mask, finished, is_finite, cache)
    scalar = tf.TensorShape(())
    shapes = (scalar, rows, rows, tf.TensorShape((None,)), scalar, caches)
    _, ids, _, _, is_finite, _ = tf.while_loop(has_more, body, state, shapes)
    return ids[:, prompt:], is_finite


def _begin(
    model: keras.Model, ids: Any, mask: Any, first: int | None
) -> tuple[Any, Any, Memory | None]:
    """Returns the tokens to continue, their mask, and what the decoder reads of the sources."""
    import tensorflow as tf

    if first is None:
        return ids, mask, None
    memory = remember(model, ids, mask)
    ones = tf.ones([tf.shape(ids)[0], 1], "int32")
    return first * ones, ones, memory


def are_finite(logits: Any) -> Any:
    """Whether all logits are finite: a boolean scalar."""
    import tensorflow as tf

    return tf.reduce_all(tf.math.is_finite(logits))


def search_ids(
    model: keras.Model,
    ids: Any,
    attention_mask: Any,
    max_new_tokens: int,
    beams: Beams,
    rules: Rules,
    eos: tuple[int, ...],
    padding: int,
    returned: int = 1,
    first: int | None = None,
) -> tuple[Any, Any]:
    """Continues prompts, or generates the targets of sources, by beam search.

    Args:
        model: As for `generate_ids`.
        ids: As for `generate_ids`.
        attention_mask: (B, P), 1 for real tokens.
        max_new_tokens: T, how many to generate at most.
        beams: How the search runs.
        rules: What is changed of the log-probabilities before.
        eos: The tokens that end a text.
        padding: What follows the end of a text.
        returned: How many texts are returned for each prompt.
        first: As for `generate_ids`.

    Returns:
        The new tokens (B, returned, T) int32, the scores (B, returned), and whether all logits
        were finite.
    """
    import tensorflow as tf

    options = (beams, rules, eos, padding, first)
    traces, key = traces_of(model), ("search", *options, returned, len(model.weights))
    if key not in traces:
        reference = weakref.ref(model)

        def traced(ids: Any, mask: Any, most: Any) -> Any:
            state, is_finite = _search(reference(), ids, mask, most, *options)
            return *result(state, returned), is_finite

        signature = [
            tf.TensorSpec((None, None), tf.int32),
            tf.TensorSpec((None, None), tf.int32),
            tf.TensorSpec((), tf.int32),
        ]
        traces[key] = tf.function(traced, input_signature=signature, autograph=False)
    return traces[key](ids, attention_mask, max_new_tokens)


def _search(
    model: keras.Model,
    ids: Any,
    mask: Any,
    most: Any,
    beams: Beams,
    rules: Rules,
    eos: tuple[int, ...],
    padding: int,
    first: int | None,
) -> tuple[State, Any]:
    import tensorflow as tf

    ids, mask, memory = _begin(model, ids, mask, first)
    batch = tf.shape(ids)[0]

    def choose(logits: Any, state: State, cache: Cache) -> tuple[State, Cache]:
        """The state with another token of each beam, and the caches in the beams' new order."""
        scores = tf.nn.log_softmax(logits)  # (B · N, V)
        new = tf.reshape(state.running[:, :, : state.step], (-1, state.step))
        seen = tf.concat([every_beam(ids), new], axis=1)
        real = tf.concat([every_beam(mask), tf.ones_like(new)], axis=1)
        scores = rules.apply(scores, seen, real, state.step, eos)
        scores = tf.reshape(scores, (batch, beams.count, logits.shape[-1]))
        state, parents = advance(state, scores, most, beams, eos)
        return state, tf.nest.map_structure(follow(parents), cache)

    def every_beam(tensor: Any) -> Any:
        return tf.repeat(tensor, beams.count, axis=0)

    # The prompt is passed through the model once for all beams of a text.
    logits, cache = forward(model, ids, mask, empty_cache(model, batch), memory)
    is_finite = are_finite(logits)
    memory = tf.nest.map_structure(every_beam, memory)
    cache = tf.nest.map_structure(every_beam, cache)
    state, cache = choose(every_beam(logits), start(batch, most, beams, padding), cache)

    def body(state: State, is_finite: Any, mask: Any, cache: Cache) -> tuple:
        last = tf.reshape(tf.gather(state.running, state.step - 1, axis=2), (-1, 1))
        mask = tf.concat([mask, tf.ones_like(last)], axis=1)
        logits, cache = forward(model, last, mask, cache, memory)
        state, cache = choose(logits, state, cache)
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
