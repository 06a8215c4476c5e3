"""The dataset of batches for training and evaluation on JAX: NumPy arrays, without TensorFlow."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from finetune_tf.data.array_batches import Batch, map_ahead
from finetune_tf.data.cursor import Cursor
from finetune_tf.distribution.current import shares

_AHEAD = 8  # batches that are made before they are needed


class ArrayDataset(keras.utils.PyDataset):
    """Batches of NumPy arrays whose plan is made anew when an epoch begins.

    `batches` returns it on JAX. It has what a `tf.data.Dataset` of batches has: an iterator goes
    through one epoch, the epoch that comes next; `len`, `cardinality`, `element_spec` and
    `as_numpy_iterator` are those of TensorFlow. Batches are made in a thread, ahead of their use.

    Keras reads a dataset by numbers, and shuffles them unless it is told not to. Each of them gets
    the next batch of the epoch, so the order is always that of the plan. One fit or evaluation can
    read a dataset at a time; iterators are independent of each other.

    Several processes share the reading of the batches that Keras gets: each reads the rows of its
    own devices, and the batches are arrays of all devices. Iterators have whole batches in every
    process.

    Args:
        next_epoch: Returns the plan of the next epoch: the items of each batch (batches, items),
            what describes the shape of each (batches, …), and arrays that were drawn for the epoch.
        read_batch: Makes a batch of what was drawn and of its part of both arrays. For several
            processes, it has a method `count` and an argument `only`; see `BatchReader`.
        cursor: Knows the number of batches, and is moved on by `next_epoch`.
        spec: An `ArraySpec` for each array of a batch, in its structure.

    Attributes:
        cursor: As given.
        element_spec: As `spec`.
        labels: The names of the classes; None if there are none.
        class_counts: How many rows have each class; it is not set if they have none.
        is_sorted: Whether rows that are not shuffled have the order of their classes; likewise.
        rows: The rows that batches are read from.

    Example:
        >>> from finetune_tf.data.array_dataset import ArrayDataset
        >>> from finetune_tf.data.cursor import Cursor
        >>> cursor = Cursor(batch_count=2, seed=0)
        >>> def next_epoch():
        ...     return np.array([[0, 1], [2, 3]]) + 10 * cursor.advance()[0], np.zeros((2, 1))
        >>> batches = ArrayDataset(next_epoch, lambda drawn, items, shape: items, cursor, None)
        >>> [batch.tolist() for batch in batches], [batch.tolist() for batch in batches]
        ([[0, 1], [2, 3]], [[10, 11], [12, 13]])
    """

    def __init__(
        self,
        next_epoch: Callable[[], tuple[np.ndarray, ...]],
        read_batch: Callable[[Sequence[np.ndarray], np.ndarray, np.ndarray], Batch],
        cursor: Cursor,
        spec: Any,
    ) -> None:
        super().__init__()
        self._next_epoch, self._read_batch = next_epoch, read_batch
        self.cursor, self.element_spec = cursor, spec
        self.labels: Any = None
        self.rows: list = []
        self._epoch: Iterator[Batch] = iter(())
        self._begins = False  # whether Keras begins an epoch

    def __len__(self) -> int:
        """The number of batches of a whole epoch."""
        return self.cursor.batch_count

    def cardinality(self) -> int:
        """Returns the number of batches of a whole epoch."""
        return len(self)

    def __iter__(self) -> Iterator[Batch]:
        """Yields the batches of the next epoch; the cursor moves on with the first one."""
        return self._batches(None)

    def _batches(self, shared: Any) -> Iterator[Batch]:
        """Yields the batches of the next epoch, whole ones or those of `current.shares`."""
        items, shapes, *drawn = self._next_epoch()

        def read(number: int) -> tuple[Batch, int]:
            of_batch = items[number], shapes[number]
            if shared is None:
                return self._read_batch(drawn, *of_batch), 0
            count = self._read_batch.count(*of_batch)
            return self._read_batch(drawn, *of_batch, shared.of_process(count)), count

        for batch, count in map_ahead(read, range(len(items)), workers=1, ahead=_AHEAD):
            # Not in the thread that reads: all processes have to do this in the same order.
            yield batch if shared is None else shared.joined(batch, count)

    def as_numpy_iterator(self) -> Iterator[Batch]:
        """Returns the same as `iter`."""
        return iter(self)

    def on_epoch_begin(self) -> None:
        """Overrides the Keras hook, which runs before an epoch of a fit or an evaluation."""
        self._begins = True

    @property
    def num_batches(self) -> int:
        """The number of batches of an epoch.

        Keras also reads it where an iteration begins, after `on_epoch_begin`. That is where the
        next epoch begins, which `cursor.batch` may shorten. With `steps_per_epoch`, an epoch of a
        fit may continue an iteration instead.
        """
        if not self._begins:
            return len(self)
        self._epoch = self._batches(shares())
        return len(self) - self.cursor.batch

    def __getitem__(self, number: int) -> Batch:
        """Returns the next batch of the epoch, whatever its number; see the class."""
        self._begins = False
        while True:
            for batch in self._epoch:
                return batch
            self._epoch = self._batches(shares())
