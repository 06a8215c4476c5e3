"""The loop that generates tokens, as one TensorFlow graph for all prompts of a model."""

import weakref
from typing import Any

import keras

from finetune_tf.generation.forward import Cache, empty_cache, forward
from finetune_tf.generation.sampling import Sampling, next_token, penalized
from finetune_tf.graph.traces import traces_of


def generate_ids(
    model: keras.Model,
    ids: Any,
    attention_mask: Any,
    max_new_tokens: int,
    sampling: Sampling,
    eos: tuple[int, ...],
    padding: int,
    seed: int,
) -> Any:
    """Continues prompts.

    Args:
        model: A causal language model.
        ids: (B, P) int32, prompts with padding before them.
        attention_mask: (B, P), 1 for real tokens.
        max_new_tokens: How many to generate at most.
        sampling: How each is chosen.
        eos: The tokens that end a text; none if nothing does.
        padding: What follows the end of a text.
        seed: Decides what is drawn.

    Returns:
        (B, N) int32, the new tokens, N up to `max_new_tokens`.
    """
    import tensorflow as tf

    traces, key = traces_of(model), ("generate", sampling, eos, padding)
    if key not in traces:
        reference = weakref.ref(model)  # the trace must not keep the model alive

        def traced(ids: Any, mask: Any, most: Any, seed: Any) -> Any:
            return _loop(reference(), ids, mask, most, seed, sampling, eos, padding)

        signature = [
            tf.TensorSpec((None, None), tf.int32),
            tf.TensorSpec((None, None), tf.int32),
            tf.TensorSpec((), tf.int32),
            tf.TensorSpec((), tf.int32),
        ]
        traces[key] = tf.function(traced, input_signature=signature, autograph=False)
    return traces[key](ids, attention_mask, max_new_tokens, seed)


def _loop(
    model: keras.Model,
    ids: Any,
    mask: Any,
    most: Any,
    seed: Any,
    sampling: Sampling,
    eos: tuple[int, ...],
    padding: int,
) -> Any:
    import tensorflow as tf

    batch, prompt = tf.unstack(tf.shape(ids))

    def choose(logits: Any, step: Any, ids: Any, mask: Any, finished: Any) -> tuple:
        """Ids, mask and ends with the next token of each text."""
        if sampling.repetition_penalty != 1.0:
            logits = penalized(logits, ids, mask, sampling.repetition_penalty)
        token = next_token(logits, sampling, tf.stack([seed, step]))
        token = tf.where(finished, padding, token)
        ids = tf.concat([ids, token[:, None]], axis=1)
        mask = tf.concat([mask, tf.ones((batch, 1), "int32")], axis=1)
        for end in eos:
            finished = finished | tf.equal(token, end)
        return ids, mask, finished

    logits, cache = forward(model, ids, mask, empty_cache(model, batch))
    ids, mask, finished = choose(logits, 0, ids, mask, tf.zeros([batch], "bool"))

    def going_on(step: Any, ids: Any, mask: Any, finished: Any, cache: Cache) -> Any:
        return (step < most) & ~tf.reduce_all(finished)

    def body(step: Any, ids: Any, mask: Any, finished: Any, cache: Cache) -> tuple:
        token = tf.ensure_shape(ids[:, -1:], (None, 1))
        logits, cache = forward(model, token, mask, cache)
        ids, mask, finished = choose(logits, step, ids, mask, finished)
        return step + 1, ids, mask, finished, cache

    rows = tf.TensorShape((None, None))
    caches = tf.nest.map_structure(
        lambda part: tf.TensorShape((None, part.shape[1], None, part.shape[3])), cache
    )
    state = (tf.constant(1), ids, mask, finished, cache)
    invariants = (tf.TensorShape(()), rows, rows, tf.TensorShape((None,)), caches)
    ids = tf.while_loop(going_on, body, state, invariants)[1]
    return ids[:, prompt:]
