"""Beam search with the rules of transformers 5, so that it finds the same texts.

Shape legend: B batch, N beams of a text, M candidates of a text, T new tokens, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from keras import ops

from finetune_tf.generation.ends import Ends
from finetune_tf.generation.engine import gumbel_like, rows_of

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
    shape = batch, _ = ops.shape(states)[0], beams.count
    nothing = ops.full((*shape, most), fill, "int32")
    # All beams are the same prompt at first, so only one of them may have successors.
    first = np.full(beams.count, _NEVER, "float32")
    first[0] = 0.0
    return State(
        step=ops.convert_to_tensor(0, "int32"),
        running=nothing,
        running_scores=ops.broadcast_to(first, shape),
        ended=nothing,
        ended_scores=ops.full(shape, _NEVER, "float32"),
        has_ended=ops.zeros(shape, "bool"),
        can_improve=ops.ones((batch, 1), "bool"),
        all_stop=ops.convert_to_tensor(False),
        states=ops.repeat(states[:, None], beams.count, axis=1),
    )


def is_going_on(state: State, beams: Beams) -> Any:
    """Whether another token is needed: a boolean scalar."""
    going_on = ops.any(state.can_improve) & ~state.all_stop
    if beams.early_stopping is True:
        going_on &= ~ops.all(state.has_ended)
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
        seed: From `engine.seed_of_step`, determines what is drawn; needed to sample.

    Returns:
        The state after it, and for each beam the one that it continues, (B, N).
    """
    size, step, power = log_probs.shape[-1], state.step + 1, beams.length_penalty
    totals = log_probs + state.running_scores[:, :, None]
    # So many that enough of them go on even if the best ones all end.
    count = max(2, 1 + len(ends.tokens)) * beams.count
    scores, places = _candidates(_flat(totals), count, seed if beams.do_sample else None)  # (B, M)
    parents, tokens = places // size, places % size
    candidates = _appended(rows_of(state.running, parents), tokens, state.step)
    states, is_end = ends.after(rows_of(state.states, parents), tokens)
    is_end |= step >= most

    running_scores, best = ops.top_k(scores + _never(is_end), beams.count)
    # A candidate that ends counts only if it is among the best N.
    counts = is_end & (np.arange(count) < beams.count)[None]
    final = scores / ops.cast(step, "float32") ** power + _never(~counts)
    final += _never(~state.can_improve)
    if beams.early_stopping is True:
        final += _never(ops.all(state.has_ended, axis=1, keepdims=True))
    merged = ops.concatenate([state.ended_scores, final], axis=1)
    ended_scores, chosen = ops.top_k(merged, beams.count)
    has_ended = rows_of(ops.concatenate([state.has_ended, counts], axis=1), chosen)

    longest = most if beams.early_stopping == "never" and power > 0 else step
    hope = running_scores[:, :1] / ops.cast(longest, "float32") ** power
    worst = ops.where(has_ended, ops.min(ended_scores, axis=1, keepdims=True), _NEVER)
    can_improve = state.can_improve & ops.any(hope > worst, axis=1, keepdims=True)
    state = State(
        step=step,
        running=rows_of(candidates, best),
        running_scores=running_scores,
        ended=rows_of(ops.concatenate([state.ended, candidates], axis=1), chosen),
        ended_scores=ended_scores,
        has_ended=has_ended,
        can_improve=can_improve,
        all_stop=ops.all(is_end),
        states=rows_of(states, best),
    )
    return state, rows_of(parents, best)


def result(state: State, returned: int) -> tuple[Any, Any]:
    """The best texts and their scores: (B, returned, T) and (B, returned)."""
    # If no beam has ended, the running beams are returned.
    some = ops.any(state.has_ended, axis=1)[:, None]
    tokens = ops.where(some[:, :, None], state.ended, state.running)
    scores = ops.where(some, state.ended_scores, state.running_scores)
    return tokens[:, :returned], scores[:, :returned]


def follow(parents: Any) -> Callable[[Any], Any]:
    """What reorders tensors of all beams, (B · N, …), as their parents (B, N) say."""
    batch, count = ops.shape(parents)
    rows = ops.reshape(ops.arange(batch, dtype="int32")[:, None] * count + parents, (-1,))
    return lambda tensor: ops.take(tensor, rows, axis=0)


def _candidates(totals: Any, count: int, seed: Any) -> tuple[Any, Any]:
    """Returns candidates from the best to the worst: their scores and places (B, M).

    Args:
        totals: (B, N · V), the scores of all candidates.
        count: M.
        seed: None for the best ones. Otherwise, they are drawn without replacement from the softmax
            of the scores: those that are the best after Gumbel noise is added (Kool et al. 2019,
            "Stochastic Beams and Where to Find Them").
    """
    if seed is None:
        return ops.top_k(totals, count)
    _, drawn = ops.top_k(totals + gumbel_like(totals, seed), count)
    scores, order = ops.top_k(rows_of(totals, drawn), count)
    return scores, rows_of(drawn, order)


def _never(mask: Any) -> Any:
    return ops.cast(mask, "float32") * _NEVER


def _flat(totals: Any) -> Any:
    return ops.reshape(totals, (ops.shape(totals)[0], -1))


def _appended(rows: Any, tokens: Any, place: Any) -> Any:
    """(B, M, T) with tokens (B, M) at one place."""
    here = ops.equal(ops.arange(ops.shape(rows)[2], dtype="int32"), place)
    return ops.where(here, tokens[:, :, None], rows)
