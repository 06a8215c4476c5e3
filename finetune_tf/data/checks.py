"""What every column must keep to, whichever source it comes from."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from finetune_tf.errors import DataError, DataTypeError
from finetune_tf.labels import Labels

SHOWN = 5


def is_missing(value: Any) -> bool:
    """Whether a value stands for "nothing": None, NaN, pandas' NA, or a blank text."""
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, float):
        return math.isnan(value)
    # By name, since pandas is no dependency and its NA cannot be compared.
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def offenders(values: Iterable[Any], is_wrong: Callable[[Any], bool]) -> list[tuple[int, Any]]:
    """Row and value of everything wrong in a column."""
    return [(row, value) for row, value in enumerate(values) if is_wrong(value)]


def rows_in_words(wrong: Sequence[tuple[int, Any]], total: int) -> str:
    """Names the first offending rows and tells how many there are: "row 3 (None), 1 of 20"."""
    shown = ", ".join(f"row {row} ({_short(value)})" for row, value in wrong[:SHOWN])
    more = ", …" if len(wrong) > SHOWN else ""
    return f"{shown}{more}; {len(wrong):,} of {total:,} rows, counted from 0"


def check_columns(columns: dict[str, list], name: str) -> None:
    """Checks that there are rows and that all columns have equally many.

    Raises:
        DataError: If not.
    """
    lengths = {column: len(values) for column, values in columns.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{column} {length:,}" for column, length in lengths.items())
        raise DataError(f"The columns of {name} differ in length: {told}. Each row needs all.")
    if not lengths or not next(iter(lengths.values())):
        raise DataError(f"{name} has no rows: at least one example is needed.")


def check_texts(values: Sequence[Any], column: str, name: str) -> None:
    """Checks that each value of a column is a text that says something.

    Raises:
        DataError: If a text is missing or blank.
        DataTypeError: If a value is no text at all.
    """
    no_text = offenders(values, lambda v: not isinstance(v, str) and not is_missing(v))
    if no_text:
        kind = type(no_text[0][1]).__name__
        raise DataTypeError(
            f"The column {column!r} of {name} must hold texts (str), found {kind}: "
            f"{rows_in_words(no_text, len(values))}. {_instead_of_text(no_text[0][1])}"
        )
    blank = offenders(values, is_missing)
    if blank:
        raise DataError(
            f"The column {column!r} of {name} has empty texts: "
            f"{rows_in_words(blank, len(values))}. Remove these rows or fill them in."
        )


def check_words(words: Sequence[Any], tags: Sequence[Any] | None, name: str) -> None:
    """Checks that each row is a list of words, with a tag for each if there are tags.

    Raises:
        DataError: If a row is empty, or has more or fewer tags than words.
        DataTypeError: If a row is no list of texts.
    """
    wrong = offenders(
        words,
        lambda row: not isinstance(row, list | tuple) or not all(isinstance(w, str) for w in row),
    )
    if wrong:
        raise DataTypeError(
            f"The column 'tokens' of {name} must hold lists of words: found "
            f"{rows_in_words(wrong, len(words))}. Split texts into words first: text.split()."
        )
    empty = offenders(words, lambda row: not row or any(is_missing(word) for word in row))
    if empty:
        raise DataError(
            f"The column 'tokens' of {name} has empty rows or words: "
            f"{rows_in_words(empty, len(words))}. Remove them."
        )
    wrong = offenders(tags or (), lambda row: not isinstance(row, list | tuple | np.ndarray))
    if wrong:
        raise DataError(
            f"The column 'tags' of {name} must hold lists of labels, one a word: found "
            f"{rows_in_words(wrong, len(words))}."
        )
    for row, (some, theirs) in enumerate(
        zip(words, tags if tags is not None else (), strict=False)
    ):
        if len(some) != len(theirs):
            raise DataError(
                f"Row {row} of {name} has {len(some):,} words but {len(theirs):,} tags; each word "
                f"needs one. The words begin with {list(some[:3])}."
            )


def check_labels(values: Sequence[Any], labels: Labels, name: str) -> None:
    """Checks that each row has a label and that it is one of `labels`, or a finite score.

    Raises:
        DataError: If not.
    """
    check_present(values, name)
    if labels.problem_type == "regression":
        wrong = offenders(values, lambda value: not _is_score(value))
        expected = "finite numbers as scores"
    elif labels.problem_type == "multi_label_classification":
        unknown = _unknown((v for row in values if isinstance(row, list) for v in row), labels)
        wrong = offenders(
            values, lambda row: not isinstance(row, list) or any(str(v) in unknown for v in row)
        )
        expected = f"lists of these labels: {', '.join(labels)}"
    else:
        unknown = _unknown(values, labels)
        wrong = offenders(values, lambda value: str(value) in unknown)
        expected = f"one of these labels: {', '.join(labels)}"
    if wrong:
        hint = ""
        if any(str(value) == "-1" for _, value in wrong):
            hint = " A label of -1 often marks a hidden one: read such data with label=None."
        raise DataError(
            f"The labels of {name} must be {expected}; found "
            f"{rows_in_words(wrong, len(values))}.{hint}"
        )


def check_present(values: Sequence[Any], name: str) -> None:
    """Checks that no row lacks its label.

    Raises:
        DataError: If one does.
    """
    missing = offenders(values, is_missing)
    if missing:
        raise DataError(
            f"Labels of {name} are missing: {rows_in_words(missing, len(values))}. "
            "Remove these rows, or read the data with label=None to predict only."
        )


def _unknown(values: Iterable[Any], labels: Labels) -> set[str]:
    """Those of the values, as text, that are no label."""
    return {name for name in {str(v) for v in values} if labels.number_of(name) is None}


def _is_score(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _instead_of_text(value: Any) -> str:
    if isinstance(value, bytes):
        return "Decode them first: value.decode('utf-8')."
    if isinstance(value, list | tuple):
        return "Give one text a row; join words with ' '.join(words)."
    return (
        "Give the texts themselves, not token ids or other numbers: the model's tokenizer "
        "encodes them. If the numbers are meant as text, use str(value)."
    )


def _short(value: Any) -> str:
    told = repr(value)
    return told if len(told) <= 40 else told[:37] + "…"
