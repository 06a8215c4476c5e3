"""What explanations ask of a task: which output of a row is explained, and the words of a row."""

import difflib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from finetune_tf.base.arguments import shown
from finetune_tf.base.labels import Labels
from finetune_tf.errors import ArgumentError, DataError
from finetune_tf.tasks.encoded import tokenized

# Characters of scripts that write no spaces between words: each is a word, unless a token of the
# model holds several. Chinese, Japanese, Thai, Lao, Tibetan, Burmese, Khmer.
_WITHOUT_SPACES = (
    (0x0E00, 0x0FFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
    (0x3040, 0x30FF),
    (0x31F0, 0x31FF),
    (0x3400, 0x9FFF),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9F),
    (0x20000, 0x323AF),
)
_JOINING = frozenset("'’-_.@&/:+")  # between two letters or digits they are a part of the word
_OUTSIDE = -1e30  # the logarithm of a probability of 0 whose gradient is still a number


@dataclass(frozen=True)
class Aim:
    """The number that is explained for one example: an output of the model for one row.

    Attributes:
        row: The encoded row.
        index: Where the output is; what the numbers mean is up to `Task.explained_score`.
        target: What the output says, such as a label, in words.
        prediction: What the model predicts, in words.
        probability: The probability of the prediction, of the most probable label of several; None
            if it has none, such as a regression or a prediction of no label.
        is_number: Whether the output is a number itself, and not the log-odds of a probability.
    """

    row: int
    index: tuple[int, ...]
    target: str
    prediction: str
    probability: float | None = None
    is_number: bool = False


@dataclass(frozen=True)
class Word:
    """A word of a row, as it is written in the text.

    Attributes:
        text: The word.
        column: The column of the examples that the text is from.
        start: Its first character in the text.
        end: The position after its last character.
        tokens: The positions of its tokens in the row.
    """

    text: str
    column: str
    start: int
    end: int
    tokens: tuple[int, ...]


def log_odds(logits: Any, index: Any) -> Any:
    """The log-odds, log p - log(1 - p), of one class of a softmax.

    The difference of a logit from the logarithm of the sum of the others: unlike the logit alone,
    it does not depend on what all logits have in common, and unlike the probability it does not
    saturate. Of two classes it is the difference of the logits.

    Args:
        logits: (batch, classes).
        index: The class, an integer tensor.

    Returns:
        (batch,).

    Example:
        >>> from finetune_tf.tasks.explained import log_odds
        >>> log_odds(keras.ops.convert_to_tensor([[1.0, 3.0]]), 1).numpy()
        array([2.], dtype=float32)
    """
    chosen = ops.equal(ops.arange(ops.shape(logits)[-1]), index)
    others = ops.logsumexp(ops.where(chosen, _OUTSIDE, logits), axis=-1)
    return ops.sum(ops.where(chosen, logits, 0.0), axis=-1) - others


def log_odds_of_both(one: Any, other: Any) -> Any:
    """The log-odds that two independent events with these log-odds both happen."""
    both = ops.log_sigmoid(one) + ops.log_sigmoid(other)
    not_both = ops.logaddexp(ops.log_sigmoid(-one), ops.log_sigmoid(one) + ops.log_sigmoid(-other))
    return both - not_both


def label_index(target: Any, labels: Labels) -> int:
    """The index of the label that a user wants explained.

    Raises:
        ArgumentError: If the model has no such label.
    """
    is_name = isinstance(target, str | int | np.integer) and not isinstance(target, bool)
    index = labels.index_of(target) if is_name else None
    if index is None:
        close = difflib.get_close_matches(str(target), labels, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ArgumentError(
            f"target= is a label of the model, one of {labels.listed()}; found "
            f"{shown(target)}.{hint}"
        )
    return index


def words_of_texts(tokenizer: Any, texts: Mapping[str, str], ids: np.ndarray) -> list[Word]:
    """Finds the words of a row that holds one or two texts, which may have been truncated.

    Args:
        tokenizer: A fast tokenizer of transformers.
        texts: The texts by column, in their order in the row.
        ids: The token ids of the row; padding may follow them.

    Raises:
        DataError: If the tokenizer gives other ids than it did for the row.
    """
    columns, (first, *second) = list(texts), texts.values()
    encoding = tokenized(
        tokenizer,
        [first],
        second or None,
        return_offsets_mapping=True,
        truncation=True,
        max_length=len(ids),
    )
    found = encoding["input_ids"][0]
    if list(ids[: len(found)]) != list(found):
        raise DataError(
            "The tokenizer gives other tokens for the text than the model read, so words cannot be "
            "found in it. Do not change the tokenizer while explaining."
        )
    sides = encoding.sequence_ids(0)
    named = [None if side is None else columns[side] for side in sides]
    return words_of(texts, named, encoding["offset_mapping"][0])


def words_of(
    texts: Mapping[str, str], columns: Sequence[str | None], offsets: Iterable[Sequence[int]]
) -> list[Word]:
    """Groups the tokens of a row to words.

    Words end at spaces and at punctuation, except between two letters or digits ("don't", "3.5").
    In scripts without spaces, a word is a character, or a token of several characters.

    Args:
        texts: The texts by column.
        columns: The column of each token; None for special tokens.
        offsets: The characters of each token: the first and the position after the last.

    Returns:
        The words that have tokens, in their order.

    Example:
        >>> from finetune_tf.tasks.explained import words_of
        >>> text = {"text": "Don't buy it."}
        >>> found = words_of(text, ["text"] * 4, [(0, 3), (3, 5), (6, 9), (10, 13)])
        >>> [(word.text, word.tokens) for word in found]
        [("Don't", (0, 1)), ('buy', (2,)), ('it.', (3,))]
    """
    offsets = list(offsets)
    words = []
    for column, text in texts.items():
        tokens = [i for i, name in enumerate(columns) if name == column]
        words += _words_of_text(text, column, [(i, *offsets[i]) for i in tokens])
    return words


def _words_of_text(text: str, column: str, tokens: list[tuple[int, int, int]]) -> list[Word]:
    units = np.asarray(_units(text), dtype="int64").reshape(-1, 2)
    owner = np.arange(len(units))  # the first unit of the word that each unit is a part of
    places: list[tuple[int, int]] = []  # (token, unit)
    waiting: list[int] = []  # tokens of white space, which belong to the word after them
    for token, start, end in tokens:
        first = int(np.searchsorted(units[:, 1], start, side="right"))
        stop = int(np.searchsorted(units[:, 0], end, side="left"))
        if first >= stop:
            waiting.append(token)
            continue
        owner[first:stop] = owner[first]
        places += [(each, first) for each in (*waiting, token)]
        waiting = []
    held: dict[int, list[int]] = {}
    for token, unit in places:
        held.setdefault(int(owner[unit]), []).append(token)
    words = []
    for first, own in sorted(held.items()):
        start, end = int(units[first, 0]), int(units[owner == first, 1].max())
        words.append(Word(text[start:end], column, start, end, tuple(own)))
    return words


def _units(text: str) -> list[list[int]]:
    """The smallest parts of a text that can be words: [start, end] of each."""
    units: list[list[int]] = []
    is_open = False  # whether the next letter continues the unit before it
    for i, character in enumerate(text):
        if character.isspace():
            is_open = False
            continue
        category = unicodedata.category(character)
        is_mark = category in ("Mn", "Me", "Cf") and units and units[-1][1] == i
        is_letter = not _stands_alone(character, category) or _joins(text, i)
        if is_mark or (is_letter and is_open):
            units[-1][1] = i + 1
        else:
            units.append([i, i + 1])
        is_open = is_open if is_mark else is_letter
    return units


def _stands_alone(character: str, category: str) -> bool:
    code = ord(character)
    return category[0] in "PS" or any(low <= code <= high for low, high in _WITHOUT_SPACES)


def _joins(text: str, i: int) -> bool:
    before, after = text[i - 1 : i], text[i + 1 : i + 2]
    if text[i] == ",":
        return before.isdigit() and after.isdigit()
    return text[i] in _JOINING and before.isalnum() and after.isalnum()
