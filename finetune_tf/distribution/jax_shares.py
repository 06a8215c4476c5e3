"""The shares of a batch that several processes on JAX read, each the rows of its own devices."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

if TYPE_CHECKING:
    import jax


def places_of(count: int, processes: int, devices: int) -> np.ndarray:
    """Returns the rows of a batch that each process reads, so that all devices get equally many.

    The rows are cut into parts whose sizes differ by one at most. A process repeats its last row
    until its devices can share its part; of a batch with fewer rows than processes, those that have
    none read the last one.

    Args:
        count: The number of rows of the batch.
        processes: The number of processes.
        devices: The number of devices of all processes, which have equally many.

    Returns:
        The places of the rows in the batch, (processes, rows of each).

    Example:
        >>> from finetune_tf.distribution.jax_shares import places_of
        >>> places_of(8, processes=2, devices=4).tolist()
        [[0, 1, 2, 3], [4, 5, 6, 7]]
        >>> places_of(5, processes=2, devices=4).tolist()
        [[0, 1, 2, 2], [3, 4, 4, 4]]
    """
    size = -(-count // devices) * (devices // processes)
    parts = np.array_split(np.arange(count), processes)
    parts = [own if len(own) else np.array([count - 1]) for own in parts]
    return np.stack([np.pad(own, (0, size - len(own)), mode="edge") for own in parts])


class Shares:
    """Divides the reading of a batch among processes, and puts what they have read together.

    Rows that `places_of` repeats are left out where the parts are put together, so no model, loss
    or metric sees them.

    Args:
        devices: The devices of a mesh with one axis, those of process 0 first, and equally many of
            each process.
        by_rows: How the first axis of an array is divided among them.
        process_id: The number of this process.
    """

    def __init__(
        self,
        devices: Sequence["jax.Device"],
        by_rows: "jax.sharding.NamedSharding",
        process_id: int,
    ) -> None:
        import jax
        from jax.sharding import NamedSharding, PartitionSpec

        self._devices = len(devices)
        self._processes = len({device.process_index for device in devices})
        self._by_rows, self._process_id = by_rows, process_id
        everywhere = NamedSharding(by_rows.mesh, PartitionSpec())

        def chosen(tensor: Any, places: Any) -> Any:
            # All rows are copied to each device first, so that choosing some needs no arithmetic.
            return jax.lax.with_sharding_constraint(tensor, everywhere)[places]

        self._chosen = jax.jit(chosen, out_shardings=everywhere)
        self._copied = jax.jit(lambda tensor: tensor, out_shardings=everywhere)

    def of_process(self, count: int) -> np.ndarray:
        """Returns the places of the rows that this process reads of a batch of `count` rows."""
        return self._places(count)[self._process_id]

    def joined(self, batch: Any, count: int, whole: bool = False) -> Any:
        """Puts together the parts of a batch that all processes have read.

        All processes have to do this in the same order.

        Args:
            batch: Arrays of the rows that `of_process` named, or of several values for each row.
            count: The number of rows of the whole batch.
            whole: Whether each device gets all rows; otherwise they are divided among the devices
                if these divide their number.

        Returns:
            The same structure of arrays of all devices, with the rows of the whole batch.
        """
        places = self._places(count)
        first = None  # the place of each row among those that were read, unless they are the same
        if places.size > count:
            first = np.unique(places, return_index=True)[1]

        def of_all(part: np.ndarray) -> "jax.Array":
            import jax

            tensor = jax.make_array_from_process_local_data(self._by_rows, part)
            if first is None:
                return self._copied(tensor) if whole else tensor
            each = len(part) // places.shape[1]  # values for each row
            return self._chosen(tensor, (first[:, None] * each + np.arange(each)).ravel())

        return keras.tree.map_structure(of_all, batch)

    def _places(self, count: int) -> np.ndarray:
        return places_of(count, self._processes, self._devices)
