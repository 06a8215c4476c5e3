"""Several devices on JAX, through Keras's distribution API.

Batches are given to all devices whole, and the model divides them inside of its compiled step,
where XLA knows all of it. So the numbers are those of one device whatever the loss, the metric or
the weights are, and a batch whose rows the devices do not divide is simply not divided. The
compiler adds the communication: sums of gradients, and gathers for what needs all rows.

Several processes share the reading of a batch, see `jax_shares`; the step sees all of its rows.
"""

import contextlib
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import keras
import numpy as np
from keras.distribution import DataParallel, DeviceMesh, LayoutMap, ModelParallel, TensorLayout

from finetune_tf.base.keras_internals import keep_global_arrays, sync_state
from finetune_tf.distribution.jax_shares import Shares

_ROWS, _PARTS = "rows", "parts"  # the axes of a mesh: rows of batches, and parts of weights

# Whether batches are given whole to all devices. A model of another kind does not divide its
# inputs, so Keras does, by the rows of the first batch.
_WHOLE: ContextVar[bool] = ContextVar("whole_batches", default=False)


class JaxDevices:
    """Places variables and batches on a mesh of devices.

    Args:
        devices: The names of the devices.
        parts: Into how many parts the weight matrices are divided; 1 for copies on each device.
    """

    def __init__(self, devices: Sequence[str], parts: int = 1) -> None:
        self._rows = len(devices) // parts
        devices = _by_process(devices)
        if parts == 1:
            mesh = DeviceMesh((self._rows,), (_ROWS,), list(devices))
            distribution: keras.distribution.Distribution = _Copies(mesh, auto_shard_dataset=False)
        else:
            mesh = DeviceMesh((self._rows, parts), (_ROWS, _PARTS), list(devices))
            distribution = _Parts(layout_map=LayoutMap(mesh), auto_shard_dataset=False)
        import jax
        from jax.sharding import NamedSharding, PartitionSpec

        self._mesh = mesh.backend_mesh
        self._by_rows = NamedSharding(self._mesh, PartitionSpec(_ROWS))
        self._everywhere = NamedSharding(self._mesh, PartitionSpec())
        self._has_ended = False
        self.shares: Shares | None = None  # see `current.shares`
        placed = list(self._mesh.devices.flat)
        if parts == 1 and jax.process_count() > 1 and _are_divided_evenly(placed):
            self.shares = Shares(placed, self._by_rows, jax.process_index())
            keep_global_arrays()
        keras.distribution.set_distribution(distribution)

    def end(self) -> None:
        """Ends the distribution of Keras."""
        self._has_ended = True
        keras.distribution.set_distribution(None)

    def divided(self, inputs: Any) -> Any:
        """See `current.divided`."""
        return keras.tree.map_structure(self._divided, inputs)

    def _divided(self, tensor: Any) -> Any:
        import jax

        is_traced = isinstance(tensor, jax.core.Tracer)
        if not is_traced or not tensor.ndim or tensor.shape[0] % self._rows:
            return tensor
        return jax.lax.with_sharding_constraint(tensor, self._by_rows)

    def gathered(self, outputs: Any) -> Any:
        """See `current.gathered`."""
        import jax

        return keras.tree.map_structure(
            lambda tensor: jax.lax.with_sharding_constraint(tensor, self._everywhere), outputs
        )

    def wait_for_all(self, place: str) -> None:
        """Waits until all processes have come to a place of this name."""
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(place)

    def is_same_for_all(self, text: str) -> bool:
        """See `current.is_same_for_all`."""
        from jax.experimental import multihost_utils

        own = np.uint32(zlib.crc32(text.encode()))
        return bool((multihost_utils.process_allgather(own) == own).all())

    def holds(self, model: keras.Model) -> bool:
        """Whether the weights of a model are on the mesh of these devices.

        On a single device, a model is as well off without the distribution as with it.
        """
        sync_state(model)  # in a fit, the values are not in the variables
        places = [variable.value.sharding for variable in model.variables]
        if self._mesh.size == 1:
            # JAX puts a value on no mesh if it is on the device of the mesh already.
            devices = set(self._mesh.devices.flat)
            return not self._has_ended and all(place.device_set == devices for place in places)
        return all(getattr(place, "mesh", None) == self._mesh for place in places)

    @contextlib.contextmanager
    def whole_batches(self) -> Iterator[None]:
        """Gives batches to all devices whole."""
        token = _WHOLE.set(True)
        try:
            yield
        finally:
            _WHOLE.reset(token)


def _by_process(devices: Sequence[str]) -> list[str]:
    """Returns names of devices in an order in which those of a process follow each other."""
    import jax

    known = {f"{device.platform}:{device.id}": device.process_index for device in jax.devices()}
    return sorted(devices, key=lambda name: known.get(name, 0))


def _are_divided_evenly(devices: Sequence[Any]) -> bool:
    """Whether all processes have equally many of the devices."""
    return len(set(Counter(device.process_index for device in devices).values())) == 1


class _Batches:
    """How both kinds of distributions place batches."""

    def get_data_layout(self, data_shape: Sequence[int]) -> TensorLayout:
        """Returns the layout of a batch of a shape."""
        by_rows = [None if _WHOLE.get() else _ROWS, *[None] * (len(data_shape) - 1)]
        return TensorLayout(by_rows[: len(data_shape)], self.device_mesh)


class _Copies(_Batches, DataParallel):
    """Copies of all variables on each device."""


class _Parts(_Batches, ModelParallel):
    """Parts of the weight matrices on each device, along the axes that Megatron-LM divides.

    The matrices that begin a sublayer are divided by outputs and those that end it by inputs, so
    that what lies between them is computed in parts (Shoeybi et al. 2019). Embedding tables are
    divided by rows. Where the devices do not divide that axis, they divide another one. All else is
    copied.
    """

    def get_variable_layout(self, variable: keras.Variable) -> TensorLayout:
        """Returns the layout of a variable that has none yet."""
        axes: list[str | None] = [None] * len(variable.shape)
        if len(axes) > 1:
            first, *_, last = range(len(axes))
            preferred = (first, last) if _begins_with_parts(variable.path) else (last, first)
            parts = self.device_mesh.shape[1]
            for axis in [a for a in preferred if variable.shape[a] % parts == 0][:1]:
                axes[axis] = _PARTS
        return TensorLayout(axes, self.device_mesh)


def _begins_with_parts(path: str) -> bool:
    layer, _, name = path.rpartition("/")
    return name == "embeddings" or layer.endswith("/output")
