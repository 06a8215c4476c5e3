"""Examples from lists, arrays and data frames in memory."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from finetune_tf.base.labels import ProblemType
from finetune_tf.base.spelling import names_checked
from finetune_tf.data.columns import synonyms_of_other_columns
from finetune_tf.data.examples import Examples
from finetune_tf.data.sources.building import (
    GivenLabels,
    LabelColumns,
    OnInvalid,
    Wanted,
    build_examples,
)
from finetune_tf.data.sources.dropping import Dropped
from finetune_tf.errors import DataTypeError


@names_checked(also=synonyms_of_other_columns)
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
    """Makes examples from lists or arrays.

    Args:
        text: Texts, one for each row.
        label: Labels, one for each row: a class name or number, a score, or a list of labels. A
            2-D array (rows, labels) has 0 or 1 for each label.
        text_pair: Second texts, one for each row.
        labels: Names of the labels in the order of their numbers; by default they are inferred
            from `label`.
        problem_type: As in Hugging Face configs; by default it is inferred from `label`.
        name: Name of the data in messages.
        on_invalid: What to do about rows in which a text or label is missing or wrong: "raise" an
            error that names them, or "drop" them and say how many there are.
        **others: Other columns by their names in `data.columns.COLUMNS`, where further columns can
            be added: `image=` and `video=` (paths, bytes, arrays, …), `tokens=` and `tags=` (lists
            of words and of their labels), or `question=`, `context=` and `answers=`. These are read
            instead of the texts, and those with labels of their own instead of `label`.

    Raises:
        DataError: If columns differ in length, or a text or label is missing or wrong.
        DataTypeError: If `text` is not a list of texts.

    Example:
        >>> ft.data.from_arrays(["good", "bad"], ["positive", "negative"])
        <Examples arrays: 2 rows of text, label; labels negative 1, positive 1>
    """
    wanted = Wanted(
        "text" if text is not None else None,
        "text_pair" if text_pair is not None else None,
        "label" if label is not None else None,
        {column: column for column in others},
        labels,
        problem_type,
        text is not None,
    )
    if text is None and wanted.reads("text"):
        raise DataTypeError(
            "from_arrays needs texts, or the columns of another task, such as image=…."
        )
    if isinstance(label, np.ndarray) and label.ndim == 2 and label.shape[1] == 1:
        label = label[:, 0]
    columns = {"text": text, "text_pair": text_pair, "label": label, **others}
    return build_examples(
        available=columns,
        read=columns.__getitem__,
        wanted=wanted,
        name=name,
        dropped=Dropped(name, on_invalid),
    )


@names_checked(also=synonyms_of_other_columns)
def from_pandas(
    frame: Any,
    text: str | None = None,
    text_pair: str | None = None,
    label: LabelColumns | None = "label",
    labels: GivenLabels | None = None,
    problem_type: ProblemType | None = None,
    name: str = "the data frame",
    on_invalid: OnInvalid = "raise",
    **columns: str,
) -> Examples:
    """Makes examples from a pandas data frame, or from anything with `.columns` like one.

    Args:
        frame: The data frame.
        text: Column of the texts.
        text_pair: Column of the second texts.
        label: Column of the labels; or several columns of 0 and 1, one for each label; or None.
        labels: Names of the labels in the order of their numbers; by default they are inferred.
        problem_type: As in Hugging Face configs; by default it is inferred from the column.
        name: Name of the data in messages.
        on_invalid: What to do about rows in which a text or label is missing or wrong: "raise" an
            error that names them, or "drop" them and say how many there are.
        **columns: Other columns by their names in `data.columns.COLUMNS`, where further columns can
            be added: `image=` and `video=` (paths, bytes, arrays, …), `tokens=` and `tags=` (lists
            of words and of their labels), or `question=`, `context=` and `answers=`. These are read
            instead of the texts, and those with labels of their own instead of `label`.

    Raises:
        DataError: If a column is missing, or a text or label is missing or wrong.
        DataTypeError: If `frame` is not a data frame.
    """
    if not hasattr(frame, "columns"):
        raise DataTypeError(
            f"from_pandas takes a data frame, found {type(frame).__name__}. For lists and arrays "
            "there is from_arrays."
        )
    names = list(frame.columns)
    # The columns of a frame without a header are numbers, but they are asked for as texts.
    columns_of = {str(column): column for column in names}
    return build_examples(
        available=names,
        read=lambda column: frame[columns_of[column]],
        wanted=Wanted(
            text or "text", text_pair, label, columns, labels, problem_type, text is not None
        ),
        name=name,
        dropped=Dropped(name, on_invalid),
    )
