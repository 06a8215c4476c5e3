"""Beam search with the rules of transformers 5, so that it finds the same texts.

Shape legend: B batch, N beams of a text, M candidates of a text, T new tokens, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from finetune_tf.generation.ends import Ends

_NEVER = -1e9  # the score of what must not be chosen; finite, so that sums of it can be compared


@dataclass(frozen=True)
class Beams:
    """How beam search runs.

    Attributes:
        count: Beams of a text (N).
        length_penalty: The sum of log-probabilities is divided by the number of new tokens to this
            power: above 0 long texts are favoured, below 0 short ones.
        early_stopping: When a text is done: True, as soon as N beams have ended; False, when a
            running beam of the present length cannot beat them; "never", when one of any length
            cannot.
        do_sample: Whether candidates are drawn at random, without replacement, instead of taking
            the best ones.
    """

    count: int
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    do_sample: bool = False


class State(NamedTuple):
    """Where a search stands.

    Attributes:
        step: How many tokens were generated.
        running: (B, N, T), the tokens of running beams, filled up with padding.
        running_scores: (B, N), sums of their log-probabilities.
        ended: (B, N, T), the best texts that have ended.
        ended_scores: (B, N), their scores with the length penalty.
        has_ended: (B, N), which of these rows are texts.
        can_improve: (B, 1), whether a running beam can still beat the ended ones.
        all_stop: Whether every candidate of the last step has ended.
        states: (B, N), what `Ends` knows about running beams.
    """

    step: Any
    running: Any
    running_scores: Any
    ended: Any
    ended_scores: Any
    has_ended: Any
    can_improve: Any
    all_stop: Any
    states: Any


def start(states: Any, most: Any, beams: Beams, fill: int) -> State:
    """The state before the first token.

    Args:
        states: (B,), what `Ends` knows about the prompts.
        most: T, how many tokens may be generated.
        beams: How the search runs.
        fill: What stands behind the end of a text.
    """
    import tensorflow as tf

    batch = tf.shape(states)[0]
    shape = tf.stack([batch, beams.count])
    nothing = tf.fill(tf.stack([batch, beams.count, most]), fill)
    # All beams are the same prompt at first, so only one of them may have successors.
    first = tf.one_hot(tf.zeros([batch], "int32"), beams.count, 0.0, _NEVER)
    return State(
        step=tf.constant(0),
        running=nothing,
        running_scores=first,
        ended=nothing,
        ended_scores=tf.fill(shape, _NEVER),
        has_ended=tf.zeros(shape, "bool"),
        can_improve=tf.ones([batch, 1], "bool"),
        all_stop=tf.constant(False),
        states=tf.repeat(states[:, None], beams.count, axis=1),
    )


def is_going_on(state: State, beams: Beams) -> Any:
    """Whether another token is needed: a boolean scalar."""
    import tensorflow as tf

    going_on = tf.reduce_any(state.can_improve) & ~state.all_stop
    if beams.early_stopping is True:
        going_on &= ~tf.reduce_all(state.has_ended)
    return going_on


def advance(
    state: State, log_probs: Any, most: Any, beams: Beams, ends: Ends, seed: Any = None
) -> tuple[State, Any]:
    """Appends a token to every beam.

    Args:
        state: Before.
        log_probs: (B, N, V), of the next token of each running beam.
        most: T.
        beams: How the search runs.
        ends: What ends a text.
        seed: (2,) int64, determines what is drawn; needed to sample.

    Returns:
        The state after it, and for each beam the one that it continues, (B, N).
    """
    import tensorflow as tf

    size, step, power = log_probs.shape[-1], state.step + 1, beams.length_penalty
    totals = log_probs + state.running_scores[:, :, None]
    # So many that enough of them go on even if the best ones all end.
    count = max(2, 1 + len(ends.tokens)) * beams.count
    scores, places = _candidates(_flat(totals), count, seed if beams.do_sample else None)  # (B, M)
    parents, tokens = places // size, places % size
    candidates = _appended(_rows(state.running, parents), tokens, state.step)
    states, is_end = ends.after(_rows(state.states, parents), tokens)
    is_end |= step >= most

    running_scores, best = tf.math.top_k(scores + _never(is_end), beams.count)
    # A candidate that ends counts only if it is among the best N.
    counts = is_end & (tf.range(count) < beams.count)[None]
    final = scores / tf.cast(step, "float32") ** power + _never(~counts)
    final += _never(~state.can_improve)
    if beams.early_stopping is True:
        final += _never(tf.reduce_all(state.has_ended, axis=1, keepdims=True))
    merged = tf.concat([state.ended_scores, final], axis=1)
    ended_scores, chosen = tf.math.top_k(merged, beams.count)
    has_ended = _rows(tf.concat([state.has_ended, counts], axis=1), chosen)

    longest = most if beams.early_stopping == "never" and power > 0 else step
    hope = running_scores[:, :1] / tf.cast(longest, "float32") ** power
    worst = tf.where(has_ended, tf.reduce_min(ended_scores, axis=1, keepdims=True), _NEVER)
    can_improve = state.can_improve & tf.reduce_any(hope > worst, axis=1, keepdims=True)
    state = State(
        step=step,
        running=_rows(candidates, best),
        running_scores=running_scores,
        ended=_rows(tf.concat([state.ended, candidates], axis=1), chosen),
        ended_scores=ended_scores,
        has_ended=has_ended,
        can_improve=can_improve,
        all_stop=tf.reduce_all(is_end),
        states=_rows(states, best),
    )
    return state, _rows(parents, best)


def result(state: State, returned: int) -> tuple[Any, Any]:
    """The best texts and their scores: (B, returned, T) and (B, returned)."""
    import tensorflow as tf

    # If no beam has ended, the running beams are returned.
    some = tf.reduce_any(state.has_ended, axis=1)[:, None]
    tokens = tf.where(some[:, :, None], state.ended, state.running)
    scores = tf.where(some, state.ended_scores, state.running_scores)
    return tokens[:, :returned], scores[:, :returned]


def follow(parents: Any) -> Callable[[Any], Any]:
    """What reorders tensors of all beams, (B · N, …), as their parents (B, N) say."""
    import tensorflow as tf

    batch, count = tf.unstack(tf.shape(parents))
    rows = tf.reshape(tf.range(batch)[:, None] * count + parents, [-1])
    return lambda tensor: tf.gather(tensor, rows)


def _candidates(totals: Any, count: int, seed: Any) -> tuple[Any, Any]:
    """Returns candidates from the best to the worst: their scores and places (B, M).

    Args:
        totals: (B, N · V), the scores of all candidates.
        count: M.
        seed: None for the best ones. Otherwise, they are drawn without replacement from the softmax
            of the scores: those that are the best after Gumbel noise is added (Kool et al. 2019,
            "Stochastic Beams and Where to Find Them").
    """
    import tensorflow as tf

    if seed is None:
        return tf.math.top_k(totals, count)
    # In float32, numbers near 1 are too coarse for tokens of low probability.
    uniform = tf.random.stateless_uniform(tf.shape(totals), seed, 1e-300, 1.0, tf.float64)
    noise = tf.cast(-tf.math.log(-tf.math.log(uniform)), totals.dtype)
    _, drawn = tf.math.top_k(totals + noise, count)
    scores, order = tf.math.top_k(_rows(totals, drawn), count)
    return scores, _rows(drawn, order)


def _never(mask: Any) -> Any:
    import tensorflow as tf

    return tf.cast(mask, "float32") * _NEVER


def _flat(totals: Any) -> Any:
    import tensorflow as tf

    return tf.reshape(totals, [tf.shape(totals)[0], -1])


def _rows(tensor: Any, which: Any) -> Any:
    """(B, N, …) and (B, M) to (B, M, …)."""
    import tensorflow as tf

    return tf.gather(tensor, which, batch_dims=1)


def _appended(rows: Any, tokens: Any, place: Any) -> Any:
    """(B, M, T) with tokens (B, M) at one place."""
    import tensorflow as tf

    here = tf.equal(tf.range(tf.shape(rows)[2]), place)
    return tf.where(here, tokens[:, :, None], rows)
