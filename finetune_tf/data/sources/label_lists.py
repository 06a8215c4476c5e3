"""Columns with several labels for each row: lists of names, or 0 and 1 for each label."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from finetune_tf.base.labels import Labels, ProblemType, label_text, whole_number
from finetune_tf.data.checks import invalid_rows, offenders
from finetune_tf.data.label_checks import is_missing_label
from finetune_tf.data.places import Places
from finetune_tf.data.sources.label_values import (
    check_numbers,
    has_fraction,
    plain,
    sorted_names,
    spelled_alike,
    warn_of_similar,
)
from finetune_tf.errors import DataError
from finetune_tf.messages import say

_SEVERAL: ProblemType = "multi_label_classification"
_FEW = 10  # of fewer rows, all may have a single label by chance


def labels_of_columns(
    columns: Mapping[str, Sequence[Any]], source: str, places: Places | None = None
) -> list[list[str]]:
    """Converts columns of 0 and 1, one for each label, to a list of label names for each row.

    Raises:
        DataError: If a column has another value.

    Example:
        >>> from finetune_tf.data.sources.label_lists import labels_of_columns
        >>> labels_of_columns({"fast": [1, 0], "cheap": [1, 1]}, "reviews")
        [['fast', 'cheap'], ['cheap']]
    """
    flags = {
        column: [_flag(plain(value)) for value in values] for column, values in columns.items()
    }
    for column, found in flags.items():
        wrong = [(row, columns[column][row]) for row, flag in enumerate(found) if flag is None]
        if wrong:
            places = places or Places(range(len(found)))
            raise invalid_rows(
                f"The label column {column!r} of {source} must hold 0 or 1, found "
                f"{places.listed(wrong)}.",
                wrong,
                "with a label that is neither 0 nor 1",
            )
    names = list(flags)
    rows = zip(*flags.values(), strict=True)
    return [[name for name, flag in zip(names, row, strict=True) if flag] for row in rows]


def label_lists(
    values: list, labels: Labels | None, source: str, places: Places
) -> tuple[list, Labels]:
    """Infers what lists of labels mean; see `label_inference.infer_labels`."""
    single = offenders(values, lambda row: not isinstance(row, list))
    if single:
        raise invalid_rows(
            f"Several labels a row were expected in {source}, a list in each row; found "
            f"{places.listed(single)}.",
            single,
            "without a list of labels",
        )
    check_items(values, source, places, "labels")
    width = len(values[0])
    one_each = width > 1 and all(len(row) == width for row in values)
    # The class numbers of a row differ; rows of one length that repeat a number must be flags.
    flags = [[_flag(value) for value in row] for row in values] if one_each else []
    if one_each and all(None not in row for row in flags):
        labels = labels or Labels((f"LABEL_{i}" for i in range(width)), _SEVERAL)
        if len(labels) != width:
            raise DataError(
                f"Each row of {source} has {width} values of 0 or 1, but there are {len(labels)} "
                f"labels: {labels.listed()}. Name one label for each value."
            )
        named = [[name for name, flag in zip(labels, row, strict=True) if flag] for row in flags]
        return named, labels
    if one_each and _are_numbers(values) and any(len(set(row)) < width for row in values):
        wrong = [(i, row) for i, row in enumerate(values) if None in flags[i]]
        raise invalid_rows(
            f"Each row of {source} has {width} numbers, one for each label, which have to be 0 or "
            f"1; found {places.listed(wrong)}.",
            wrong,
            "with a label that is neither 0 nor 1",
        )
    if labels is None:
        values = spelled_alike(values, source)
        counts = Counter(label_text(value) for row in values for value in row)
        check_numbers(counts, "label", source, "columns of 0 and 1, one a label")
        warn_of_similar(counts, source)
        labels = Labels(sorted_names(counts), _SEVERAL)
    return values, labels


def say_if_one_each(values: list, labels: Labels, source: str) -> None:
    """Says that lists mean several labels a row if each row has one, such as one-hot vectors.

    Args:
        values: The labels of each row.
        labels: Their names and the problem type.
        source: Name of the data in messages.
    """
    if labels.problem_type != _SEVERAL or len(values) < _FEW:
        return
    if all(len(row) == 1 for row in values):
        say(
            f"{source}: lists mean that a text may have several labels, but each of the "
            f"{len(values):,} rows has exactly one. If only one can be right, give classes: "
            "label.argmax(axis=1) of rows of 0 and 1, or the name itself instead of a list."
        )


def check_items(rows: list[list], source: str, places: Places, what: str) -> None:
    """Checks that lists contain names and class numbers: no missing values, no probabilities."""
    wrong = offenders(rows, lambda row: any(map(is_missing_label, row)))
    if wrong:
        raise invalid_rows(
            f"The {what} of {source} are missing in places: {places.listed(wrong)}. Remove these "
            "rows or fill them in.",
            wrong,
            f"with missing {what}",
        )
    wrong = offenders(rows, lambda row: any(has_fraction(label_text(value)) for value in row))
    if wrong:
        raise invalid_rows(
            f"The {what} of {source} are lists of numbers with a fraction: {places.listed(wrong)}. "
            "If they are probabilities, give the most probable class a row, "
            "np.argmax(values, axis=1), or 0 and 1 for each label, values >= 0.5.",
            wrong,
            "with numbers that are no labels",
        )


def _flag(value: Any) -> bool | None:
    text = label_text(value).strip().lower()
    text = whole_number(text) or text
    return {"0": False, "1": True, "false": False, "true": True}.get(text)


def _are_numbers(rows: list[list]) -> bool:
    return all(isinstance(value, int | float) for row in rows for value in row)
