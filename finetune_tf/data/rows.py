"""Reading the rows of a feature into batches, from memory or from a file.

Shape legend: R rows, T positions of all rows, B batch, L length.
"""

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from finetune_tf.errors import DataError
from finetune_tf.tasks.feature import Feature

if TYPE_CHECKING:
    import tensorflow as tf

_FREED = "The rows of these batches were freed together with their dataset."

# From the indices of rows (B,) and their length L to an array (B, L, …), or (B, …) without an axis.
Reader = Callable[["tf.Tensor", "tf.Tensor | None"], "tf.Tensor"]


@dataclass(frozen=True, eq=False)
class StoredRows(Sequence):
    """Rows in one array that is never copied: it is mapped from a file, or too large.

    Attributes:
        array: (T, …), the concatenated rows; or (R, …), one entry for each row.
        ends: (R,), where each row ends in the concatenated ones; None for one entry a row.
    """

    array: np.ndarray
    ends: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.array if self.ends is None else self.ends)

    def __getitem__(self, row: int) -> np.ndarray:
        row = range(len(self))[row]
        if self.ends is None:
            return np.asarray(self.array[row])
        return np.asarray(self.array[self.ends[row - 1] if row else 0 : self.ends[row]])

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of `array`."""
        return self.array.shape

    @property
    def lengths(self) -> np.ndarray | None:
        """The lengths of the rows (R,); None for one entry a row."""
        return None if self.ends is None else np.diff(self.ends, prepend=0)

    def batch(self, rows: np.ndarray, dtype: str) -> np.ndarray:
        """Rows (B,) with one entry each as an array (B, …)."""
        return self.array[rows].astype(dtype, copy=False)

    def padded(self, rows: np.ndarray, length: int, padding: float, dtype: str) -> np.ndarray:
        """Rows (B,) as an array (B, L, …), padded at their ends."""
        array = np.asarray(self.array)  # slices of a memmap take longer
        out = np.zeros((len(rows), length, *array.shape[1:]), dtype)
        if padding:
            out[...] = padding
        starts = np.where(rows > 0, self.ends[rows - 1], 0)
        for line, start, end in zip(out, starts, self.ends[rows], strict=True):
            line[: end - start] = array[start:end]
        return out

    def joined(self, rows: np.ndarray, dtype: str) -> np.ndarray:
        """Rows (B,) one after the other, an array (T, …)."""
        array = np.asarray(self.array)  # slices of a memmap take longer
        starts = np.where(rows > 0, self.ends[rows - 1], 0)
        parts = [array[start:end] for start, end in zip(starts, self.ends[rows], strict=True)]
        # A process may read packed rows without a text.
        return np.concatenate(parts or [array[:0]]).astype(dtype, copy=False)


class VariantRows(Sequence):
    """Rows of which there are several variants; an epoch reads one of them.

    Row i of variant v has the index v * rows + i.

    Args:
        variants: The rows of each variant, with one entry for each row.
    """

    def __init__(self, variants: Sequence[StoredRows]) -> None:
        self.variants = list(variants)
        self.shape = self.variants[0].shape

    def __len__(self) -> int:
        return len(self.variants[0])

    def __getitem__(self, index: int) -> np.ndarray:
        variant, row = divmod(index, len(self))
        return self.variants[variant][row]

    def batch(self, rows: np.ndarray, dtype: str) -> np.ndarray:
        """Rows (B,) of one variant as an array (B, …)."""
        variant = int(rows[0]) // len(self)
        return self.variants[variant].batch(rows - variant * len(self), dtype)


def reader(feature: Feature, row_splits: "tf.Tensor | None") -> Reader:
    """Returns the function that reads rows of a feature into a batch.

    Args:
        feature: Its rows stay where they are if they are `StoredRows`, and become a constant of
            the pipeline otherwise.
        row_splits: (R + 1,), where each row begins and ends in the concatenated ones; None for a
            feature without an axis.

    Raises:
        DataError: If the feature has no axis and its rows differ in shape.
    """
    import tensorflow as tf

    if hasattr(feature.rows, "batch"):  # `StoredRows`, and images that are decoded when read
        return _stored_reader(feature, feature.rows)
    if feature.axis is not None:
        return ragged_reader(tf.constant(joined(feature)), row_splits, feature.padding)
    entries = tf.constant(joined(feature))  # (R, …)
    return lambda rows, length: tf.gather(entries, rows)


def ragged_reader(flat: "tf.Tensor", row_splits: "tf.Tensor", padding: float) -> Reader:
    """Returns the function that reads and pads rows that are concatenated in a tensor (T, …)."""
    import tensorflow as tf

    inner = flat.shape[1:].as_list()

    def read(rows: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
        ragged = tf.RaggedTensor.from_row_splits(flat, row_splits, validate=False)
        shape = tf.stack([tf.constant(-1, tf.int64), length, *inner])
        padded = tf.gather(ragged, rows).to_tensor(tf.cast(padding, flat.dtype), shape=shape)
        return tf.ensure_shape(padded, (None, None, *inner))

    return read


def joined_reader(
    feature: Feature, row_splits: "tf.Tensor"
) -> Callable[["tf.Tensor", "tf.Tensor | None"], "tf.Tensor"]:
    """Returns the function that reads rows (B,) of a feature one after the other, without padding.

    Args:
        feature: Its rows stay where they are if they are `StoredRows`.
        row_splits: (R + 1,), where each row begins and ends in the concatenated ones.

    Returns:
        A function from the indices of rows, and from the concatenated rows (T, …) if they were
        drawn anew, to an array (T, …).
    """
    import tensorflow as tf

    if isinstance(feature.rows, StoredRows):
        dtype, inner, reference = feature.dtype, feature.rows.shape[1:], weakref.ref(feature.rows)

        def read(rows: np.ndarray) -> np.ndarray:
            if (found := reference()) is None:
                raise DataError(_FREED)
            return found.joined(rows, dtype)

        def read_stored(rows: tf.Tensor, drawn: tf.Tensor | None) -> tf.Tensor:
            found = tf.numpy_function(read, [rows], dtype, stateful=False)
            return tf.ensure_shape(found, (None, *inner))

        return read_stored
    flat = tf.constant(joined(feature))

    def read_flat(rows: tf.Tensor, drawn: tf.Tensor | None) -> tf.Tensor:
        values = flat if drawn is None else drawn
        ragged = tf.RaggedTensor.from_row_splits(values, row_splits, validate=False)
        return tf.gather(ragged, rows).values

    return read_flat


def _stored_reader(feature: Feature, stored: "StoredRows | Sequence") -> Reader:
    """Reads in Python, because the rows may be in a file that is larger than memory.

    TensorFlow never releases a function that it calls, so the function has only a weak reference to
    the rows; the dataset has to keep them.
    """
    import tensorflow as tf

    has_axis, padding, dtype = feature.axis is not None, feature.padding, feature.dtype
    inner, reference = stored.shape[1:], weakref.ref(stored)

    def batch(rows: np.ndarray, *length: int) -> np.ndarray:
        found = reference()
        if found is None:
            raise DataError(_FREED)
        if has_axis:
            return found.padded(rows, *length, padding, dtype)
        return found.batch(rows, dtype)

    def read(rows: tf.Tensor, length: tf.Tensor | None) -> tf.Tensor:
        shape = (None, *[None] * has_axis, *inner)
        arguments = [rows, length] if has_axis else [rows]
        found = tf.numpy_function(batch, arguments, dtype, stateful=False)
        return tf.ensure_shape(found, shape)

    return read


def joined(feature: Feature) -> np.ndarray:
    """Returns the rows of a feature in one array of its dtype: (T, …), or (R, …) without an axis.

    Raises:
        DataError: If the feature has no axis and its rows differ in shape.
    """
    if feature.axis is not None:
        return np.concatenate(feature.rows).astype(feature.dtype, copy=False)
    try:
        return np.asarray(feature.rows).astype(feature.dtype, copy=False)
    except ValueError:
        raise DataError(
            "The rows of a feature without an axis have one shape, found several. Resize them, or "
            "declare the axis along which they are to be padded."
        ) from None


@dataclass(frozen=True)
class ArraySpec:
    """The shape of an array of a batch, with None where batches differ, and its dtype."""

    shape: tuple[int | None, ...]
    dtype: str


class ArrayReader:
    """Reads rows of a feature into a NumPy array, outside of any pipeline.

    Args:
        feature: Its rows stay where they are if they are `StoredRows` or images that are decoded
            when they are read, and are joined to one array otherwise.

    Attributes:
        axis: As in the feature.
        padding: As in the feature.
        inner: The shape of what a row has at each position, or of the row without an axis.
        dtype: Of the arrays.

    Raises:
        DataError: If the feature has no axis and its rows differ in shape.

    Example:
        >>> from finetune_tf.data.rows import ArrayReader
        >>> from finetune_tf.tasks.feature import Feature
        >>> read = ArrayReader(Feature([np.array([2, 7, 3]), np.array([2, 3])], padding=9))
        >>> read(np.array([1, 0]), {"tokens": 4}).tolist()
        [[2, 3, 9, 9], [2, 7, 3, 9]]
    """

    def __init__(self, feature: Feature) -> None:
        self.axis, self.dtype, self.padding = feature.axis, feature.dtype, feature.padding
        rows = feature.rows
        if not hasattr(rows, "batch"):
            ends = None if self.axis is None else np.cumsum(feature.lengths)
            rows = StoredRows(joined(feature), ends)
        self._rows, self.inner = rows, tuple(rows.shape[1:])

    def __call__(
        self, rows: np.ndarray, lengths: Mapping[str, int], drawn: np.ndarray | None = None
    ) -> np.ndarray:
        """Returns rows (B,) as an array (B, L, …), or (B, …) without an axis.

        Args:
            rows: The indices of the rows.
            lengths: The length L of each axis.
            drawn: The concatenated rows (T, …), if they were drawn anew.
        """
        if self.axis is None:
            return self._rows.batch(rows, self.dtype)
        found = self._rows_or(drawn)
        return found.padded(rows, lengths[self.axis], self.padding, self.dtype)

    def joined(self, rows: np.ndarray, drawn: np.ndarray | None = None) -> np.ndarray:
        """Returns rows (B,) of a feature with an axis one after the other, an array (T, …)."""
        return self._rows_or(drawn).joined(rows, self.dtype)

    def _rows_or(self, drawn: np.ndarray | None) -> "StoredRows | Sequence":
        return self._rows if drawn is None else StoredRows(drawn, self._rows.ends)

    @property
    def spec(self) -> ArraySpec:
        """The shape and the dtype of what a call returns."""
        return ArraySpec((None, *[None] * (self.axis is not None), *self.inner), self.dtype)
