"""Finds the best answer in a context from the logits of its windows."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True, repr=False)
class Answer:
    """The part of a context that answers a question.

    Attributes:
        text: The part itself; "" if the model finds no answer.
        start: Its first character in the context; None without an answer.
        end: The position after its last character; None without an answer.
        score: Its probability among all spans of its window and "no answer". Without an answer,
            the lowest probability of "no answer" in a window.
    """

    text: str
    start: int | None
    end: int | None
    score: float

    def __repr__(self) -> str:
        return f"Answer({self.text!r}, {self.score:.3f})"


class Span(NamedTuple):
    """The best span of a window.

    Attributes:
        score: Sum of the logits of start and end.
        start: First character in the context.
        end: The position after the last character.
        no_answer: Sum of the logits of the first token, which means "no answer here".
        log_total: Logarithm of the sum of exp(score) over all spans and "no answer".
    """

    score: float
    start: int
    end: int
    no_answer: float
    log_total: float


def best_span(logits: np.ndarray, offsets: np.ndarray, max_answer_length: int) -> Span:
    """Finds the span of the context with the highest score.

    Args:
        logits: The logits of start and end (2, tokens).
        offsets: The offsets of the tokens in the context (tokens, 2), -1 outside of it.
        max_answer_length: Tokens that a span may have.
    """
    logits = logits.astype("float64")
    inside = np.flatnonzero(offsets[:, 0] >= 0)
    window = slice(inside[0], inside[-1] + 1)
    starts_at, ends_at = offsets[window].T
    start, end = np.where(
        starts_at < ends_at, logits[:, window], -np.inf
    )  # tokens without characters are no answers
    width = min(max_answer_length, len(start))
    padded = np.concatenate([end, np.full(width - 1, -np.inf)])
    # Row i contains the ends i, i + 1, …, so that only valid spans have a score.
    scores = start[:, None] + np.lib.stride_tricks.sliding_window_view(padded, width)
    first, more = np.unravel_index(scores.argmax(), scores.shape)  # scores: (tokens, width)
    best, no_answer = scores[first, more], logits[:, 0].sum()
    highest = max(best, no_answer)
    total = np.exp(scores - highest).sum() + np.exp(no_answer - highest)
    return Span(
        score=float(best),
        start=int(starts_at[first]),
        end=int(ends_at[first + more]),
        no_answer=float(no_answer),
        log_total=float(highest + np.log(total)),
    )


def best_answer(spans: list[Span], context: str, null_threshold: float | None) -> Answer:
    """Finds the answer in a context from the best spans of its windows.

    As for SQuAD 2 (Rajpurkar et al. 2018; Devlin et al. 2019), the answer is the span with the
    highest sum of logits over all windows, unless the lowest sum for "no answer" exceeds it.

    Args:
        spans: The best span of each window.
        context: The complete context.
        null_threshold: By how much "no answer" must exceed it; None to always return an answer.
    """
    best = max(spans, key=lambda span: span.score)
    no_answer = min(span.no_answer for span in spans)
    if null_threshold is not None and no_answer - best.score > null_threshold:
        score = min(np.exp(span.no_answer - span.log_total) for span in spans)
        return Answer("", None, None, float(score))
    score = float(np.exp(best.score - best.log_total))
    return Answer(context[best.start : best.end], best.start, best.end, score)


def span_tokens(offsets: np.ndarray, start: int, end: int) -> tuple[int, int] | None:
    """Finds the first and the last token of a span of the context.

    Args:
        offsets: The offsets of the tokens of a window in the context (tokens, 2), -1 outside of it.
        start: The first character of the span.
        end: The position after its last character.

    Returns:
        The positions of the tokens; None if the window does not hold all of the span.

    Example:
        >>> from finetune_tf.tasks.answers import span_tokens
        >>> span_tokens(np.array([[-1, -1], [0, 4], [5, 7], [8, 9], [-1, -1]]), 5, 9)
        (2, 3)
    """
    starts, ends = offsets.T
    shared = np.flatnonzero((starts >= 0) & (starts < end) & (ends > start))
    if not len(shared) or starts[shared[0]] > start or ends[shared[-1]] < end:
        return None
    return int(shared[0]), int(shared[-1])
