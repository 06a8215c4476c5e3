"""Where a dataset is in its epochs, so that a fit can be resumed at the same batch."""

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from finetune_tf.errors import DataError


class Cursor:
    """Where a dataset is: the epoch and the batch at which its next iterator begins.

    The cursor moves on by one epoch when an iterator yields its first batch. Batches are made
    ahead of the training step, so only the consumer knows how many of them it has used; see
    `state_dict`.

    Args:
        batch_count: Batches of an epoch.
        seed: The seed that decides the order of each epoch.

    Example:
        >>> batches = train.batches(model, 2, shuffle=True)  # three batches of five texts
        >>> batches.cursor.epoch, batches.cursor.batch = 3, 1
        >>> len(list(batches)), batches.cursor.epoch, batches.cursor.batch
        (2, 4, 0)
    """

    def __init__(self, batch_count: int, seed: int) -> None:
        self.batch_count, self.seed = batch_count, seed
        self._epoch = self._batch = 0
        self._lock = threading.Lock()  # tf.data asks for epochs in threads of its own

    @property
    def epoch(self) -> int:
        """The epoch of the next iterator, from 0: as many as were begun before."""
        return self._epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._seek(epoch, self._batch)

    @property
    def batch(self) -> int:
        """The batch at which the next iterator begins; 0 for those that come after it.

        That one epoch has fewer batches than the dataset's cardinality says.
        """
        return self._batch

    @batch.setter
    def batch(self, batch: int) -> None:
        self._seek(self._epoch, batch)

    def advance(self) -> tuple[int, int]:
        """Moves on to the next epoch; returns the epoch and the batch that it was at."""
        with self._lock:
            place = self._epoch, self._batch
            self._epoch, self._batch = self._epoch + 1, 0
        return place

    def state_dict(self, used: int | None = None) -> dict[str, int]:
        """Returns the place of the dataset as a dict that JSON can hold.

        Args:
            used: In the middle of an epoch, how many of its batches have been used, counted from
                the first one of the epoch. By default the place is that of the next iterator, as
                it is between epochs.
        """
        epoch, batch = self._epoch, self._batch
        if used is not None:
            epoch, batch = divmod(max(epoch - 1, 0) * self.batch_count + used, self.batch_count)
        return {"epoch": epoch, "batch": batch, "batch_count": self.batch_count, "seed": self.seed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues at a place from `state_dict`.

        Raises:
            DataError: If it belongs to other batches or another seed.
        """
        if missing := {"epoch", "batch", "batch_count", "seed"} - state.keys():
            raise DataError(
                f"The state of a cursor comes from cursor.state_dict(); {sorted(missing)} are "
                "missing."
            )
        for name in ("batch_count", "seed"):
            if state[name] != getattr(self, name):
                raise DataError(
                    f"The saved place belongs to a dataset with {name}={state[name]}, but this one "
                    f"has {name}={getattr(self, name)}. Make the batches with the same rows and "
                    "arguments as before."
                )
        self._seek(state["epoch"], state["batch"])

    def _seek(self, epoch: Any, batch: Any) -> None:
        for name, value, end in (("epoch", epoch, None), ("batch", batch, self.batch_count)):
            is_whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
            if not is_whole or value < 0 or (end is not None and value >= end):
                limit = "on" if end is None else f"to {end - 1}"
                raise DataError(f"cursor.{name} is a whole number from 0 {limit}, found {value!r}.")
        with self._lock:
            self._epoch, self._batch = int(epoch), int(batch)

    def __repr__(self) -> str:
        return f"Cursor(epoch={self._epoch}, batch={self._batch} of {self.batch_count})"
