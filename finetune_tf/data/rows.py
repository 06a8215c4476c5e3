"""Arrays of ids of different lengths: in memory, or in a file that may be larger than it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass(frozen=True, eq=False)
class Rows(Sequence):
    """Rows on end in one array, most often one that is mapped from a file.

    Attributes:
        flat: (tokens,) of all rows.
        ends: (rows,), where each row ends in `flat`.
    """

    flat: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, i: int) -> np.ndarray:
        i = range(len(self))[i]
        return np.asarray(self.flat[self.ends[i - 1] if i else 0 : self.ends[i]])

    @property
    def lengths(self) -> np.ndarray:
        """(rows,)."""
        return np.diff(self.ends, prepend=0)

    def padded(self, rows: np.ndarray, length: int, filler: int) -> np.ndarray:
        """Rows (batch,) as an array (batch, length)."""
        out = np.full((len(rows), length), filler, self.flat.dtype)
        for line, i in zip(out, rows, strict=True):
            row = self[i]
            line[: len(row)] = row
        return out


def lengths_of(rows: Sequence[np.ndarray]) -> np.ndarray:
    """How long each row is: (rows,) int64."""
    if isinstance(rows, Rows):
        return rows.lengths
    return np.fromiter((len(row) for row in rows), dtype="int64", count=len(rows))


def padder(rows: Any, lengths: np.ndarray) -> Callable[["tf.Tensor", "tf.Tensor", int], Any]:
    """What makes of the numbers of rows (batch,), a length and a filler an array (batch, length).

    Args:
        rows: Arrays of ids, or a tensor of all of them on end.
        lengths: Of each row.
    """
    import tensorflow as tf

    if isinstance(rows, Rows):

        def from_file(which: tf.Tensor, length: tf.Tensor, filler: int) -> tf.Tensor:
            found = tf.numpy_function(
                rows.padded, [which, length, filler], rows.flat.dtype, stateful=False
            )
            return tf.ensure_shape(found, (None, None))

        return from_file
    flat = rows
    if not tf.is_tensor(rows):
        flat = tf.constant(np.concatenate(rows).astype("int32", copy=False))
    # A tensor, because an array would be written into the graph.
    row_splits = tf.constant(np.concatenate([[0], np.cumsum(lengths)]))

    def from_memory(which: tf.Tensor, length: tf.Tensor, filler: int) -> tf.Tensor:
        ragged = tf.RaggedTensor.from_row_splits(flat, row_splits, validate=False)
        shape = tf.stack([tf.constant(-1, tf.int64), length])
        return tf.ensure_shape(
            tf.gather(ragged, which).to_tensor(filler, shape=shape), (None, None)
        )

    return from_memory
