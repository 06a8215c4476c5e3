"""The loop that generates tokens, as one TensorFlow graph for all prompts of a model."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np

from finetune_tf.base.keras_internals import ReadOnce
from finetune_tf.generation.forward import Cache, Memory, beginning, forward
from finetune_tf.generation.rules import Seen, apply_rules
from finetune_tf.generation.sampling import log_probs_of, next_token
from finetune_tf.generation.way import (
    Way,
    are_finite,
    prompts,
    scalar,
    seed_of_step,
    seeds,
    trace,
)


class Progress(NamedTuple):
    """Where generation stands.

    Attributes:
        step: The number of generated tokens.
        ids: (B, K) int32, prompts and generated tokens.
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
        with ReadOnce():
            progress = _begin(model, ids, mask, most, seed, way)
            progress = _advance(model, progress, most, most, seed, way)
        given = _length(ids) if way.first is None else 1
        return progress.ids[:, given:], progress.scores, progress.is_finite

    signature = [*prompts(), scalar("int32"), seeds()]
    function = trace(model, ("generate", way), traced, signature)
    return function(ids, attention_mask, max_new_tokens, np.asarray(seed, "int64"))


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
    import tensorflow as tf

    def begun(model: Any, ids: Any, mask: Any, most: Any, seed: Any) -> Any:
        return _begin(model, ids, mask, most, seed, way)

    def continued(model: Any, most: Any, seed: Any, *progress: Any) -> Any:
        progress = Progress(*progress)
        return _advance(model, progress, progress.step + 1, most, seed, way)

    most, seed = tf.constant(max_new_tokens), tf.constant(seed, "int64")
    begin = trace(model, ("begin", way), begun, [*prompts(), scalar("int32"), seeds()])
    progress = Progress(*begin(ids, attention_mask, most, seed))
    yield progress
    kinds = tf.nest.map_structure(
        lambda shape, part: tf.TensorSpec(shape, part.dtype), _shapes(progress), progress
    )
    step = trace(model, ("continue", way), continued, [scalar("int32"), seeds(), *kinds])
    while _has_more(progress, most):
        progress = Progress(*step(most, seed, *progress))
        yield progress


def _length(ids: Any) -> Any:
    import tensorflow as tf

    return tf.shape(ids)[1]


def _begin(model: keras.Model, ids: Any, mask: Any, most: Any, seed: Any, way: Way) -> Progress:
    """Passes prompts through the model, and chooses the first token of each text."""
    import tensorflow as tf

    ids, mask, memory, cache = beginning(model, ids, mask, way.first)
    batch = tf.shape(ids)[0]
    logits, cache = forward(model, ids, mask, cache, memory)
    progress = Progress(
        step=tf.constant(0),
        ids=ids,
        mask=mask,
        finished=tf.zeros([batch], "bool"),
        is_finite=tf.constant(True),
        states=way.ends.states(ids, mask),
        scores=tf.zeros([batch]),
        cache=cache,
        memory=memory,
    )
    return _chosen(logits, progress, most, seed, way)


def _advance(
    model: keras.Model, progress: Progress, until: Any, most: Any, seed: Any, way: Way
) -> Progress:
    """Generates tokens until there are so many, or all texts have ended."""
    import tensorflow as tf

    def body(*progress: Any) -> Progress:
        progress = Progress(*progress)
        token = tf.ensure_shape(progress.ids[:, -1:], (None, 1))
        logits, cache = forward(model, token, progress.mask, progress.cache, progress.memory)
        return _chosen(logits, progress._replace(cache=cache), most, seed, way)

    return tf.while_loop(
        lambda *progress: _has_more(Progress(*progress), until), body, progress, _shapes(progress)
    )


def _has_more(progress: Progress, most: Any) -> Any:
    import tensorflow as tf

    return (progress.step < most) & ~tf.reduce_all(progress.finished) & progress.is_finite


def _chosen(logits: Any, progress: Progress, most: Any, seed: Any, way: Way) -> Progress:
    """Appends the next token to each text."""
    import tensorflow as tf

    step, ids, mask, finished = progress[:4]
    scores = apply_rules(way.rules, logits, Seen(ids, mask, step, most, progress.memory))
    token, scores = next_token(scores, way.choice, seed_of_step(seed, step))
    total = progress.scores
    if way.has_scores:
        total += tf.where(finished, 0.0, log_probs_of(token, scores))
    token = tf.where(finished, way.padding, token)
    states, is_end = way.ends.after(progress.states, token)
    return Progress(
        step=step + 1,
        ids=tf.concat([ids, token[:, None]], axis=1),
        mask=tf.concat([mask, tf.ones_like(token[:, None])], axis=1),
        finished=finished | is_end,
        is_finite=progress.is_finite & are_finite(logits),
        states=states,
        scores=total,
        cache=progress.cache,
        memory=progress.memory,
    )


def _shapes(progress: Progress) -> Progress:
    """Returns the shapes of which some axes grow in the loop."""
    import tensorflow as tf

    rows, texts, scalar = (tf.TensorShape(shape) for shape in ((None, None), (None,), ()))
    caches = tf.nest.map_structure(
        lambda part: tf.TensorShape((None, part.shape[1], None, part.shape[3])), progress.cache
    )
    memory = tf.nest.map_structure(lambda part: part.shape, progress.memory)
    return Progress(scalar, rows, rows, texts, scalar, texts, texts, caches, memory)
