"""The checks of labels, which are the same for every source."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from finetune_tf.base.labels import Labels, label_text, unseen_labels
from finetune_tf.data.checks import invalid_rows, is_missing, offenders
from finetune_tf.data.places import Places

# Texts that libraries write for a missing value and that are no names of classes.
_MISSING_LABELS = {"nan", "<na>", "nat"}


def is_missing_label(value: Any) -> bool:
    """Whether a label is missing, or is the text "nan" or "<NA>" that libraries write for that."""
    return is_missing(value) or (
        isinstance(value, str) and value.strip().lower() in _MISSING_LABELS
    )


def check_labels(values: Sequence[Any], labels: Labels, name: str, places: Places) -> None:
    """Checks that each row has a label which is one of `labels`, or a finite score.

    Raises:
        DataError: If a label is missing, unknown, or not a finite number.
    """
    check_present(values, name, places, labels)
    advice = ""
    if labels.problem_type == "regression":
        wrong = offenders(values, lambda value: not _is_score(value))
        expected, reason = "finite numbers as scores", "with a label that is no finite number"
    else:
        several = labels.problem_type == "multi_label_classification"
        lists = [row for row in values if isinstance(row, list)] if several else [values]
        unknown = _unknown((value for row in lists for value in row), labels)
        if several:
            wrong = offenders(
                values,
                lambda row: not isinstance(row, list) or any(label_text(v) in unknown for v in row),
            )
        else:
            wrong = offenders(values, lambda value: label_text(value) in unknown) if unknown else []
        expected = "lists of these labels: " if several else "one of these labels: "
        expected, reason = expected + labels.listed(), "with an unknown label"
        advice = unseen_labels(unknown, labels)
    if wrong:
        raise invalid_rows(
            f"The labels of {name} must be {expected}; found {places.listed(wrong)}.{advice}",
            wrong,
            reason,
        )


def check_present(
    values: Sequence[Any], name: str, places: Places, labels: Sequence[str] | None = None
) -> None:
    """Checks that each row has a label.

    Raises:
        DataError: If a label is missing.
    """
    if set(map(type, values)) <= {str} and not any(map(is_missing_label, set(values))):
        return
    missing = offenders(
        values,
        lambda value: (
            is_missing_label(value) and not (isinstance(value, str) and value in (labels or ()))
        ),
    )
    if missing:
        raise invalid_rows(
            f"Labels of {name} are missing: {places.listed(missing)}. "
            "Remove these rows, or read the data with label=None to predict only.",
            missing,
            "without a label",
        )


def _unknown(values: Iterable[Any], labels: Labels) -> set[str]:
    """The values, as text, that are not among the labels."""
    return {name for name in set(map(label_text, values)) if labels.index_of(name) is None}


def _is_score(value: Any) -> bool:
    try:
        return not isinstance(value, bool | str) and math.isfinite(value)
    except (TypeError, OverflowError):
        return False
