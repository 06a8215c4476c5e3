"""The way from a source's columns to `Examples`, shared by all sources."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from finetune_tf.data.examples import Examples
from finetune_tf.data.label_inference import infer_labels, infer_tags, labels_of_columns
from finetune_tf.errors import DataError
from finetune_tf.labels import Labels, ProblemType

#: Columns of tasks that are not about whole texts, with what each row of them holds.
OTHER_COLUMNS = {
    "tokens": "a list of words",
    "tags": "a list of labels, one a word",
    "question": "a text",
    "context": "a text",
    "answers": "the texts that answer and where they start, as in SQuAD",
}

LabelColumns = str | Sequence[str]
GivenLabels = Labels | int | Iterable[object]


def build_examples(
    available: Iterable[Any],
    read: Callable[[str], Sequence[Any]],
    text: str,
    text_pair: str | None,
    label: LabelColumns | None,
    labels: GivenLabels | None,
    problem_type: ProblemType | None,
    name: str,
    class_names: Sequence[str] | None = None,
    more: Mapping[str, str] | None = None,
) -> Examples:
    """Reads the wanted columns of a source and gives them their canonical names.

    Args:
        available: All columns of the source.
        read: Gives the values of one column.
        text: Column of the texts.
        text_pair: Column of the second texts.
        label: Column of the labels, several columns of 0 and 1, or None.
        labels: What the labels are called, when it should not be inferred.
        problem_type: What kind of problem it is, when it should not be inferred.
        name: What messages call the source.
        class_names: What the source itself calls its class numbers 0, 1, ….
        more: Columns of tasks that are not about whole texts, by their canonical names; given
            any, the arguments about texts and labels are not read.

    Raises:
        DataError: If a column is missing, or its values are wrong.
    """
    if more:
        return _other_examples(available, read, labels, name, class_names, more)
    label_columns = [label] if isinstance(label, str) else list(label or ())
    pair_columns = [text_pair] if text_pair else []
    wanted = {"text": [text], "text_pair": pair_columns, "label": label_columns}
    available = [str(column) for column in available]
    for argument, columns in wanted.items():
        for column in columns:
            if column not in available:
                raise DataError(_missing_column(argument, column, available, name))

    columns = {"text": read(text)}
    if text_pair:
        columns["text_pair"] = read(text_pair)
    if not label_columns:
        return Examples(columns, None if labels is None else Labels.of(labels), name)

    if isinstance(label, str):
        values = read(label)
    else:
        values = labels_of_columns({column: read(column) for column in label_columns}, name)
        labels = label_columns if labels is None else labels
        problem_type = problem_type or "multi_label_classification"
    if class_names and problem_type != "regression":
        values = [_class_name(value, class_names) for value in values]
        labels = class_names if labels is None else labels
    columns["label"], labels = infer_labels(
        values, ", ".join(label_columns), name, labels, problem_type
    )
    return Examples(columns, labels, name)


def _other_examples(
    available: Iterable[Any],
    read: Callable[[str], Sequence[Any]],
    labels: GivenLabels | None,
    name: str,
    class_names: Sequence[str] | None,
    more: Mapping[str, str],
) -> Examples:
    """Examples of tasks that read other columns than texts and labels."""
    unknown = sorted(more.keys() - OTHER_COLUMNS.keys())
    if unknown:
        raise DataError(
            f"There is no column argument {', '.join(unknown)}; there are text, text_pair, label, "
            f"{', '.join(OTHER_COLUMNS)}."
        )
    available = [str(column) for column in available]
    for argument, column in more.items():
        if column not in available:
            raise DataError(_missing_column(argument, column, available, name))
    columns = {argument: list(read(column)) for argument, column in more.items()}
    if "tokens" in columns:  # data frames read from Parquet hold arrays
        columns["tokens"] = [
            row.tolist() if isinstance(row, np.ndarray) else row for row in columns["tokens"]
        ]
    if "tags" in columns:
        columns["tags"], labels = infer_tags(columns["tags"], name, labels, class_names)
    return Examples(columns, labels and Labels.of(labels), name)


def _missing_column(argument: str, column: str, available: list[str], name: str) -> str:
    told = ", ".join(repr(column) for column in available) or "none"
    way_out = f'Say which one it is with {argument}="…"'
    if argument == "label":
        way_out += ", or label=None for texts without labels"
    return f"{name} has no column {column!r}. Its columns are {told}. {way_out}."


def _class_name(value: Any, class_names: Sequence[str]) -> Any:
    """The name of a class number; what is no such number stays, for the checks to find."""
    if isinstance(value, list | tuple | np.ndarray):
        return [_class_name(item, class_names) for item in value]
    is_number = isinstance(value, int | np.integer) and 0 <= value < len(class_names)
    return class_names[value] if is_number else value
