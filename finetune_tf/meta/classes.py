"""Rows with one class each: `Examples` with labels, or a pair of arrays (inputs, classes)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetune_tf.base.arguments import shown
from finetune_tf.data import Examples
from finetune_tf.data.copies import text_keys
from finetune_tf.errors import DataError, DataTypeError
from finetune_tf.model.equal_rows import digests_of

_LISTED = 5  # the classes that a message names


@dataclass(frozen=True, eq=False)
class Classes:
    """The classes of rows.

    Attributes:
        names: The name of each class that has rows, in the order of the data's own labels.
        numbers: The class of each row (rows,), an index of `names`.
        data: What the rows are called in messages.
    """

    names: tuple[str, ...]
    numbers: np.ndarray
    data: str

    def without_copies(self, data: Any) -> list[np.ndarray]:
        """The rows of each class in ascending order; of those with the same inputs the first one.

        Args:
            data: What the classes are those of.
        """
        if isinstance(data, Examples):
            keys = text_keys(data.columns)
        else:
            keys = list(zip(*map(digests_of, arrays_of(data[0])), strict=True))
        first: dict[Any, int] = {}
        rows = [
            row
            for row, key in enumerate(zip(self.numbers.tolist(), keys, strict=True))
            if first.setdefault(key, row) == row
        ]
        numbers = self.numbers[rows]
        return [np.array(rows)[numbers == number] for number in range(len(self.names))]


def classes_of(data: Any) -> Classes:
    """Returns the classes of rows.

    Args:
        data: `Examples` with one label for each row, or a pair (inputs, classes) of arrays.

    Raises:
        DataTypeError: If it is something else.
        DataError: If there are no labels, or they are not classes of complete rows.
    """
    name = name_of(data)
    if isinstance(data, Examples):
        if "label" not in data.columns or data.labels is None:
            raise DataError(
                f"{name} has no column of labels, so episodes have no classes to be drawn from. "
                'Name the column when reading the data, such as label="intent".'
            )
        if data.labels.problem_type != "single_label_classification":
            raise DataError(
                f"Episodes need one class for each row, but the labels of {name} are those of a "
                f"{data.labels.problem_type}. Use examples with a single label each."
            )
        numbers = np.array([data.labels.index_of(value) for value in data.columns["label"]], int)
        return _used(data.labels, numbers, name)
    names, numbers = np.unique(np.asarray(data[1]), return_inverse=True)
    return _used([str(each) for each in names], numbers.reshape(-1), name)


def name_of(data: Any) -> str:
    """Returns what rows are called in messages.

    Raises:
        DataTypeError: If the data are neither `Examples` nor a pair of arrays.
        DataError: If the arrays of a pair differ in their rows, or there are none.
    """
    if isinstance(data, Examples):
        return data.name
    if not isinstance(data, tuple) or len(data) != 2:
        raise DataTypeError(
            "Expected Examples with labels, or a pair (inputs, classes) of arrays; "
            f"found {shown(data)}."
        )
    inputs, classes = data
    if np.ndim(classes) != 1:
        raise DataError(
            "The classes of a pair (inputs, classes) must be an array (rows,) with one class for "
            f"each row, found the shape {np.shape(classes)}."
        )
    for array in arrays_of(inputs):
        if len(array) != len(classes):
            raise DataError(
                f"The arrays (inputs, classes) must have the same number of rows, found "
                f"{len(array):,} and {len(classes):,}."
            )
    if not len(classes):
        raise DataError("The arrays (inputs, classes) have no rows. Pass at least one.")
    return "the arrays"


def arrays_of(inputs: Any) -> list[np.ndarray]:
    """Returns the arrays of a model's inputs: a single one, a list, or a dict by name."""
    if isinstance(inputs, Mapping):
        inputs = list(inputs.values())
    return [np.asarray(each) for each in (inputs if isinstance(inputs, list) else [inputs])]


def take(data: Any, rows: np.ndarray) -> Any:
    """Returns some rows of `Examples` or of a pair of arrays, in the same form."""
    if isinstance(data, Examples):
        return data[rows]
    inputs, classes = data
    if isinstance(inputs, Mapping):
        taken: Any = {name: np.asarray(array)[rows] for name, array in inputs.items()}
    elif isinstance(inputs, list):
        taken = [np.asarray(array)[rows] for array in inputs]
    else:
        taken = np.asarray(inputs)[rows]
    return taken, np.asarray(classes)[rows]


def listed(names: list[str]) -> str:
    """Lists the first names for a message."""
    more = f" and {len(names) - _LISTED:,} others" if len(names) > _LISTED else ""
    return ", ".join(map(repr, names[:_LISTED])) + more


def _used(names: Any, numbers: np.ndarray, data: str) -> Classes:
    present, numbers = np.unique(numbers, return_inverse=True)
    return Classes(tuple(names[i] for i in present), numbers, data)
