"""Rows that have the same texts, within one data set or in two, and what their labels say."""

import itertools
import unicodedata
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol

from finetune_tf.base.labels import Labels, label_text

_TEXTS = ("text", "text_pair", "tokens", "question", "context")  # what makes two rows the same
_TARGETS = ("label", "tags", "answers")


class Rows(Protocol):
    """What is read of examples."""

    columns: dict[str, list]
    labels: Labels | None


def text_keys(columns: Mapping[str, list]) -> list[Hashable]:
    """What is equal for rows of the same texts, one a row.

    Texts count as equal when they differ in upper and lower case, white space or Unicode
    compatibility forms (NFKC) only.
    """
    texts = [list(map(normalized, columns[name])) for name in _TEXTS if name in columns]
    return texts[0] if len(texts) == 1 else list(zip(*texts, strict=True))


def normalized(text: str | list[str]) -> str:
    """A text, or words, without what does not tell two texts apart."""
    text = text if isinstance(text, str) else " ".join(text)
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.casefold().split())


def target_of(columns: Mapping[str, list]) -> str | None:
    """The column that says what is right, if there is one."""
    return next((name for name in _TARGETS if name in columns), None)


def contradictions(
    examples: Rows, other: Rows | None = None, labels: Labels | None = None
) -> list[list[int]]:
    """Finds the texts that stand in several rows with different labels.

    Args:
        examples: Whose rows are given back.
        other: Rows that may contradict them as well, such as the training examples of a test.
        labels: What to understand labels by; by default each set's own.

    Returns:
        For each such text its rows in `examples`, ascending.
    """
    keys = text_keys(examples.columns)
    others = text_keys(other.columns) if other else []
    if target_of(examples.columns) is None or len({*keys, *others}) == len(keys) + len(others):
        return []
    rows: dict[Hashable, list[int]] = {}
    for row, key in enumerate(keys):
        rows.setdefault(key, []).append(row)
    times = Counter(keys) + Counter(others)
    said: dict[Hashable, set[Hashable]] = {}
    for source, theirs in ((examples, keys), (other, others)):
        column = source and target_of(source.columns)
        if column:
            meaning = _Meaning(labels or source.labels)
            for key, value in zip(theirs, source.columns[column], strict=True):
                if times[key] > 1 and key in rows:
                    said.setdefault(key, set()).add(meaning.of(value))
    return [rows[key] for key, meant in said.items() if _contradict(meant)]


def _contradict(meant: set[Hashable]) -> bool:
    """Whether what is said of one text cannot all be right.

    Accepted answers only contradict each other where they have none in common.
    """
    if not all(isinstance(each, frozenset) for each in meant):
        return len(meant) > 1
    return any(one.isdisjoint(other) for one, other in itertools.combinations(meant, 2))


class _Meaning:
    """What a target says, in a form that can be compared."""

    def __init__(self, labels: Labels | None) -> None:
        self._labels = labels
        self._known: dict[Any, Hashable] = {}

    def of(self, value: Any) -> Hashable:
        if isinstance(value, Mapping):  # answers
            return frozenset(map(normalized, value["text"]))
        if isinstance(value, Sequence) and not isinstance(value, str):
            return tuple(map(self.of, value))
        if isinstance(value, float):  # a score
            return value
        if value not in self._known:
            number = None if self._labels is None else self._labels.index_of(value)
            self._known[value] = label_text(value) if number is None else number
        return self._known[value]
