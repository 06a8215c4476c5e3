"""Splits long contexts into windows: rows of the question and a part of its context."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from finetune_tf.errors import DataError
from finetune_tf.tasks.encoded import tokenized

#: The fewest tokens of the context in a window; fewer would hardly contain an answer.
LEAST_ROOM = 16
_ROWS_AT_ONCE = 1000  # the output of a tokenizer takes a hundred times the memory of its ids
# Whether a code point is white space; the last entry is for all code points above.
_IS_SPACE = np.asarray([chr(i).isspace() for i in range(0x3002)])


@dataclass
class Windows:
    """Windows as rows; those of one example are neighbours.

    Attributes:
        input_ids: Token ids of each row.
        token_type_ids: Token types of each row.
        example: The example of each row.
        offsets: (tokens, 2) for each row: start and end of each context token in characters,
            without white space; -1 for tokens of the question and special tokens.
        answers: First and last token of the answer in each row; both 0 if it is not complete.
        lost: Number of answers that no row contains completely.
    """

    input_ids: list[np.ndarray] = field(default_factory=list)
    token_type_ids: list[np.ndarray] = field(default_factory=list)
    example: list[int] = field(default_factory=list)
    offsets: list[np.ndarray] = field(default_factory=list)
    answers: list[tuple[int, int]] = field(default_factory=list)
    lost: int = 0


def windows(
    tokenizer: Any,
    questions: list[str],
    contexts: list[str],
    spans: list[tuple[int, int] | None],
    max_length: int,
    stride: int,
    name: str,
    places: Any,
) -> Windows:
    """Splits contexts into overlapping parts and puts the question before each.

    The tokens are those of the question and the complete context, and the parts are those of the
    tokenizer's truncation "only_second".

    Args:
        tokenizer: A fast tokenizer of transformers.
        questions: One for each row.
        contexts: One for each row.
        spans: Start and end of the answer in the context, in characters; None without an answer.
        max_length: Tokens that a window may have, question and special ones included.
        stride: Tokens that neighbouring windows share, at most half of the context tokens in one.
        name: Name of the examples in messages.
        places: Where the rows are in their source; see `data.places.Places`.

    Raises:
        DataError: If a question leaves too little room for its context, or an answer or a context
            has no token.
    """
    made = Windows()
    for row, (ids, types, sides, offsets) in enumerate(_pairs(tokenizer, questions, contexts)):
        inside = np.flatnonzero(sides == 1)  # the tokens of the context, which are consecutive
        if not len(inside):
            raise DataError(
                f"The tokenizer finds no token in the context of {places.name(row)} of {name}, "
                f"{contexts[row][:40]!r}. Remove the row."
            )
        first, stop = inside[0], inside[-1] + 1
        count, room = stop - first, max_length - (len(ids) - (stop - first))
        if count > room < LEAST_ROOM:
            raise DataError(
                f"The question in {places.name(row)} of {name} has {(sides == 0).sum():,} tokens, "
                f"which leaves {max(room, 0)} of max_length={max_length} for its context of "
                f"{count:,}; at least {LEAST_ROOM} are needed. Shorten the question, or raise "
                f"max_length if the model can take more. It begins {questions[row][:40]!r}."
            )
        offsets = _without_spaces(offsets, contexts[row])
        answer = _tokens_of(spans[row], offsets[first:stop])
        if answer is not None and answer[0] > answer[1]:
            raise DataError(
                f"The tokenizer has no token for the answer in {places.name(row)} of {name}, "
                f"{contexts[row][slice(*spans[row])]!r}. Remove the row."
            )
        kept = False
        offsets[:first], offsets[stop:] = -1, -1
        for start, end in _parts(count, room, stride):
            chosen = np.r_[0:first, first + start : first + end, stop : len(ids)]
            made.input_ids.append(ids[chosen])
            made.token_type_ids.append(types[chosen])
            made.offsets.append(offsets[chosen])
            made.example.append(row)
            whole = answer is not None and start <= answer[0] and answer[1] < end
            kept |= whole
            made.answers.append(tuple(first + at - start for at in answer) if whole else (0, 0))
        made.lost += answer is not None and not kept
    return made


def _pairs(tokenizer: Any, questions: list[str], contexts: list[str]) -> Iterator[tuple]:
    """Ids, types, sides (0 question, 1 context, -1 special) and offsets of each pair."""
    for at in range(0, len(questions), _ROWS_AT_ONCE):
        piece = slice(at, at + _ROWS_AT_ONCE)
        encoding = tokenized(
            tokenizer, questions[piece], contexts[piece], return_offsets_mapping=True
        )
        for i, ids in enumerate(encoding["input_ids"]):
            yield (
                np.asarray(ids, dtype="int32"),
                np.asarray(encoding["token_type_ids"][i], dtype="int32"),
                np.asarray([-1 if side is None else side for side in encoding.sequence_ids(i)]),
                np.asarray(encoding["offset_mapping"][i], dtype="int32").reshape(-1, 2),
            )


def _parts(count: int, room: int, stride: int) -> Iterator[tuple[int, int]]:
    """Yields start and end of each part of `count` tokens; the last part ends at `count`."""
    step = room - min(stride, room // 2)
    start = 0
    while True:
        yield start, min(start + room, count)
        if start + room >= count:
            return
        start += step


def _without_spaces(offsets: np.ndarray, context: str) -> np.ndarray:
    """Moves the starts of tokens after white space, which some tokenizers count to the token."""
    codes = np.frombuffer(context.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    places = np.arange(len(codes) + 1)
    places[:-1][_IS_SPACE[np.minimum(codes, len(_IS_SPACE) - 1)]] = len(codes)
    next_letter = np.minimum.accumulate(places[::-1])[::-1]
    starts = next_letter[np.minimum(offsets[:, 0], len(codes))]
    return np.stack([np.minimum(starts, offsets[:, 1]), offsets[:, 1]], axis=1).astype("int32")


def _tokens_of(span: tuple[int, int] | None, offsets: np.ndarray) -> tuple[int, int] | None:
    """The first and the last token that share a character with the span."""
    if span is None:
        return None
    starts, ends = offsets.T
    first = int(np.searchsorted(ends, span[0], side="right"))
    return first, int(np.searchsorted(starts, span[1], side="left")) - 1
