"""Reads off a raw label column what kind of problem it poses and what the classes are called."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

import numpy as np

from finetune_tf.data.checks import (
    check_labels,
    check_present,
    offenders,
    rows_in_words,
)
from finetune_tf.errors import DataError
from finetune_tf.labels import Labels, ProblemType, is_integer_text

_SEVERAL: ProblemType = "multi_label_classification"


def infer_labels(
    values: Iterable[Any],
    column: str,
    source: str,
    labels: Labels | int | Iterable[object] | None = None,
    problem_type: ProblemType | None = None,
) -> tuple[list, Labels]:
    """Decides what a label column means.

    Texts and whole numbers are classes, named by `str(value)` and sorted (numerically where
    they are numbers). Numbers with a fraction, also written as text, are scores. Lists are
    several labels a row: of names, of class numbers, or of one 0 or 1 for each label.

    Args:
        values: One label a row, as the source has it.
        column: Name of the column; a regression's output is called so.
        source: Name of the data in messages.
        labels: What the labels are called, when it should not be inferred.
        problem_type: What kind of problem it is, when it should not be inferred.

    Returns:
        The values (scores as float, everything else as it was) and their labels.

    Raises:
        DataError: If a label is missing or not among `labels`, the column has one class only, or
            there is no such problem type.
    """
    if problem_type not in (None, *get_args(ProblemType)):
        raise DataError(
            f"Unknown problem type {problem_type!r}: choose one of {get_args(ProblemType)}."
        )
    values = [_plain(value) for value in values]
    check_present(values, source)
    if isinstance(labels, Labels) and problem_type not in (None, labels.problem_type):
        raise DataError(
            f"labels= are for the problem type {labels.problem_type!r}, but "
            f"problem_type={problem_type!r} was asked for. Give one of the two."
        )
    if labels is not None and not isinstance(labels, Labels):
        names = Labels.of(labels)
        if problem_type is None:
            has_lists = any(isinstance(value, list) for value in values)
            problem_type = _SEVERAL if has_lists else names.problem_type
        labels = Labels(names, problem_type)
    problem_type = labels.problem_type if labels else problem_type or _problem_type(values)

    if problem_type == "regression":
        values = [_as_score(value) for value in values]
        labels = labels or Labels([column], problem_type)
    elif problem_type == _SEVERAL:
        values, labels = _label_lists(values, labels, source)
    else:
        labels = labels or _classes(values, column, source)
    check_labels(values, labels, source)
    return values, labels


def infer_tags(
    rows: Iterable[Any],
    source: str,
    labels: Labels | int | Iterable[object] | None = None,
    class_names: Sequence[str] | None = None,
) -> tuple[list[list], Labels]:
    """Decides what the tags of words are called.

    Args:
        rows: One list of tags a row: names, or numbers of `class_names`.
        source: Name of the data in messages.
        labels: What the tags are called, when it should not be inferred.
        class_names: What the source itself calls its numbers 0, 1, ….

    Returns:
        The tags, and their names: those given, else those of the source, else all that occur,
        "O" (outside of any entity) first and the others sorted.
    """
    rows = [_plain(row) for row in rows]
    wrong = offenders(rows, lambda row: not isinstance(row, list) or not row)
    if wrong:
        raise DataError(
            f"Each row of {source} needs a list of tags, one a word; found "
            f"{rows_in_words(wrong, len(rows))}."
        )
    if class_names:
        rows = [[class_names[tag] if isinstance(tag, int) else tag for tag in row] for row in rows]
    if labels is None:
        names = class_names or _class_names(tag for row in rows for tag in row)
        labels = sorted(names, key=lambda name: name != "O") if class_names is None else names
    labels = labels if isinstance(labels, Labels) else Labels.of(labels)
    unknown = {tag for row in rows for tag in row if labels.number_of(tag) is None}
    if unknown:
        raise DataError(
            f"{source} has the tags {sorted(map(str, unknown))[:5]}, which are none of the labels "
            f"{', '.join(labels)}."
        )
    return rows, labels


def labels_of_columns(columns: Mapping[str, Sequence[Any]], source: str) -> list[list[str]]:
    """Turns several columns of 0 and 1, one a label, into a list of label names a row.

    Raises:
        DataError: If another value stands in a column.
    """
    flags = {
        column: [_flag(_plain(value)) for value in values] for column, values in columns.items()
    }
    for column, found in flags.items():
        wrong = [(row, columns[column][row]) for row, flag in enumerate(found) if flag is None]
        if wrong:
            raise DataError(
                f"The label column {column!r} of {source} must hold 0 or 1, found "
                f"{rows_in_words(wrong, len(found))}."
            )
    names = list(flags)
    rows = zip(*flags.values(), strict=True)
    return [[name for name, flag in zip(names, row, strict=True) if flag] for row in rows]


def _plain(value: Any) -> Any:
    """The Python value behind a NumPy one; whole floats, as pandas makes them, become ints."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        return [_plain(item) for item in items]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _problem_type(values: list) -> ProblemType:
    if any(isinstance(value, list) for value in values):
        return _SEVERAL
    scores = [_as_score(value) for value in values]
    if all(isinstance(score, float) for score in scores):
        finite = [score for score in scores if math.isfinite(score)]
        if any(not score.is_integer() for score in finite):
            return "regression"
    return "single_label_classification"


def _as_score(value: Any) -> Any:
    """The number a value is or writes; the value itself if it is none."""
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except (ValueError, OverflowError):
            return value
    return value


def _flag(value: Any) -> bool | None:
    return {"0": False, "1": True, "false": False, "true": True}.get(str(value).strip().lower())


def _class_names(values: Iterable[Any]) -> list[str]:
    names = {str(value) for value in values}
    return sorted(names, key=int if all(map(is_integer_text, names)) else None)


def _classes(values: list, column: str, source: str) -> Labels:
    names = _class_names(values)
    if len(names) == 1:
        raise DataError(
            f"The label column {column!r} of {source} has one class only, {names[0]!r}: a "
            "classifier needs two or more. Name them all with labels=[…], for example "
            "labels=train.labels."
        )
    return Labels(names, "single_label_classification")


def _label_lists(values: list, labels: Labels | None, source: str) -> tuple[list, Labels]:
    single = offenders(values, lambda row: not isinstance(row, list))
    if single:
        raise DataError(
            f"Several labels a row were expected in {source}, a list in each row; found "
            f"{rows_in_words(single, len(values))}."
        )
    width = len(values[0])
    # Class numbers in one list differ, so equally long rows of 0 and 1 can only be flags.
    if width > 1 and all(_is_flags(row, width) for row in values):
        labels = labels or Labels((f"LABEL_{i}" for i in range(width)), _SEVERAL)
        if len(labels) != width:
            raise DataError(
                f"Each row of {source} has {width} values of 0 or 1, but there are {len(labels)} "
                f"labels: {', '.join(labels)}. Name one label for each value."
            )
        values = [[name for name, flag in zip(labels, row, strict=True) if flag] for row in values]
    return values, labels or Labels(_class_names(v for row in values for v in row), _SEVERAL)


def _is_flags(row: list, width: int) -> bool:
    return len(row) == width and all(isinstance(v, int) and v in (0, 1) for v in row)
