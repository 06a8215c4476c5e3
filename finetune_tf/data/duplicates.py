"""Texts that stand in two sets: a score on texts seen in training says little."""

import unicodedata

from finetune_tf.data.examples import Examples

_TEXTS = ("text", "text_pair", "tokens", "question", "context")  # what makes two rows the same


def overlap(train: Examples, test: Examples) -> list[int]:
    """Finds the rows of `test` whose text also stands in `train`.

    Texts (and pairs) count as equal when they differ in upper and lower case, white space or
    Unicode compatibility forms (NFKC) only.

    Returns:
        The row numbers in `test`, ascending.
    """
    seen = set(_keys(train))
    return [row for row, key in enumerate(_keys(test)) if key in seen]


def _keys(examples: Examples) -> list[tuple[str, ...]]:
    columns = [examples.columns[c] for c in _TEXTS if c in examples.columns]
    return list(zip(*([_normalized(text) for text in texts] for texts in columns), strict=True))


def _normalized(text: str | list[str]) -> str:
    text = text if isinstance(text, str) else " ".join(text)
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
