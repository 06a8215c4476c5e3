"""Examples from what is in memory already: lists, arrays, data frames."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from finetune_tf.base.labels import ProblemType
from finetune_tf.base.spelling import names_checked
from finetune_tf.data.examples import Examples
from finetune_tf.data.sources.columns import (
    OTHER_COLUMNS,
    GivenLabels,
    LabelColumns,
    OnInvalid,
    build_examples,
)
from finetune_tf.data.sources.dropping import Dropped
from finetune_tf.errors import DataTypeError


@names_checked(also=OTHER_COLUMNS)
def from_arrays(
    text: Sequence[str] | None = None,
    label: Sequence[Any] | None = None,
    text_pair: Sequence[str] | None = None,
    labels: GivenLabels | None = None,
    problem_type: ProblemType | None = None,
    name: str = "arrays",
    on_invalid: OnInvalid = "raise",
    **others: Sequence[Any],
) -> Examples:
    """Makes examples of lists or arrays.

    Args:
        text: Texts, one a row.
        label: One label a row: a class name or number, a score, or a list of labels. A 2-D
            array holds 0 or 1 for each label.
        text_pair: Second texts, one a row.
        labels: Names of the labels in the order of their numbers; by default read off `label`.
        problem_type: As in Hugging Face configs; by default read off `label`.
        name: What messages call this data.
        on_invalid: What happens with rows that cannot be used, because a text or label is missing
            or wrong: "raise" for an error that names them, "drop" to leave them out and say how
            many there are.
        **others: Columns of tasks that are not about whole texts, instead of those above:
            `tokens=` and `tags=` (lists of words and of their labels), or `question=`, `context=`
            and `answers=`.

    Raises:
        DataError: If columns differ in length, or a text or label is missing or wrong.
        DataTypeError: If `text` is no list of texts.
    """
    if text is None and not others:
        raise DataTypeError("from_arrays needs texts, or the columns of another task.")
    if isinstance(label, np.ndarray) and label.ndim == 2 and label.shape[1] == 1:
        label = label[:, 0]
    columns = {"text": text, "text_pair": text_pair, "label": label}
    columns = others or {name: values for name, values in columns.items() if values is not None}
    return build_examples(
        available=columns,
        read=columns.__getitem__,
        text="text",
        text_pair="text_pair" if text_pair is not None else None,
        label="label" if label is not None else None,
        labels=labels,
        problem_type=problem_type,
        name=name,
        more={column: column for column in others},
        dropped=Dropped(name, on_invalid),
    )


@names_checked(also=OTHER_COLUMNS)
def from_pandas(
    frame: Any,
    text: str = "text",
    text_pair: str | None = None,
    label: LabelColumns | None = "label",
    labels: GivenLabels | None = None,
    problem_type: ProblemType | None = None,
    name: str = "the data frame",
    on_invalid: OnInvalid = "raise",
    **columns: str,
) -> Examples:
    """Makes examples of a pandas data frame, or of anything with `.columns` like one.

    Args:
        frame: The data frame.
        text: Column of the texts.
        text_pair: Column of the second texts.
        label: Column of the labels; several columns of 0 and 1, one a label; None without labels.
        labels: Names of the labels in the order of their numbers; by default read off the column.
        problem_type: As in Hugging Face configs; by default read off the column.
        name: What messages call this data.
        on_invalid: What happens with rows that cannot be used, because a text or label is missing
            or wrong: "raise" for an error that names them, "drop" to leave them out and say how
            many there are.
        **columns: Columns of tasks that are not about whole texts, instead of those above:
            `tokens=` and `tags=` (lists of words and of their labels), or `question=`, `context=`
            and `answers=`.

    Raises:
        DataError: If a column is missing, or a text or label is missing or wrong.
        DataTypeError: If it is no data frame.
    """
    if not hasattr(frame, "columns"):
        raise DataTypeError(
            f"from_pandas takes a data frame, found {type(frame).__name__}. For lists and arrays "
            "there is from_arrays."
        )
    names = list(frame.columns)
    # By text, since a frame without a header has numbers for names.
    columns_of = {str(column): column for column in names}
    return build_examples(
        available=names,
        read=lambda column: frame[columns_of[column]],
        text=text,
        text_pair=text_pair,
        label=label,
        labels=labels,
        problem_type=problem_type,
        name=name,
        more=columns,
        dropped=Dropped(name, on_invalid),
    )
