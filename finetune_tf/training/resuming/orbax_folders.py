"""The folders of saves through Orbax: how they are read, and what verifies them.

Orbax writes the arrays of the devices to a folder in that of the save. A file beside it has all the
rest, and makes the save complete. Orbax does not notice every changed byte, so the file also has a
checksum of each array.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from finetune_tf.base.extras import require_package
from finetune_tf.errors import CheckpointError
from finetune_tf.kernels.host_memory import in_device_memory
from finetune_tf.training.resuming.files import read_file, state_file

#: The folder that Orbax writes, in that of a save.
ARRAYS = "arrays"
#: What Orbax and TensorStore raise for files that cannot be written, that are missing or damaged.
OF_WRITING = (OSError, ValueError, RuntimeError)
_OF_READING = (*OF_WRITING, KeyError, TypeError)
_PURPOSE = 'ft.callbacks.Resume(writer="orbax") needs'


def require_orbax() -> Any:
    """Returns the module `orbax.checkpoint`.

    Raises:
        MissingExtraError: If it is not installed.
    """
    return require_package("orbax.checkpoint", _PURPOSE)


def read_folder(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Reads a save and compares the checksums of its arrays.

    Args:
        path: The folder.

    Returns:
        The state and the arrays of the save.

    Raises:
        CheckpointError: If the save is damaged or cannot be read.
        MissingExtraError: If Orbax is not installed.
    """
    state, arrays = read_file(state_file(path))
    wanted = {key_of(n): np.empty(shape, dtype) for n, (shape, dtype, _) in state["arrays"].items()}
    checkpointer = new_checkpointer(together=False)
    try:
        found = checkpointer.restore(path / ARRAYS, wanted)
    except _OF_READING as error:
        raise CheckpointError(f"{path} cannot be read: {reason_of(error)}.") from error
    finally:
        checkpointer.close()
    for name, (shape, dtype, checksum) in state["arrays"].items():
        array = np.asarray(found[key_of(name)])
        is_whole = array.shape == tuple(shape) and array.dtype == dtype
        if not is_whole or facts_of({name: array})[name][0] != checksum:
            raise CheckpointError(
                f"{path} is damaged: the checksum of {name} is not that of its values."
            )
        arrays[name] = array
    return state, arrays


def new_checkpointer(together: bool) -> Any:
    """Returns what writes or reads a folder.

    Args:
        together: Whether all processes do it together, each its part; else each for itself.

    Raises:
        MissingExtraError: If Orbax is not installed.
    """
    import jax

    orbax = require_orbax()
    own, count = jax.process_index(), jax.process_count()
    if count == 1:
        return orbax.StandardCheckpointer()
    # Unless Orbax is told which processes there are, they wait for each other in a computation on
    # all devices, among those of the training. Then it uses JAX's coordination service, which the
    # training does not.
    options = orbax.options.MultiprocessingOptions(
        primary_host=0 if together else own,
        active_processes=set(range(count)) if together else {own},
        barrier_sync_key_prefix="together" if together else f"process-{own}",
    )
    return orbax.StandardCheckpointer(multiprocessing_options=options)


def key_of(name: str) -> str:
    """Returns the name of an array in a folder, where a slash would divide it.

    Args:
        name: Its name in a save.
    """
    return name.replace("/", "-")


def reason_of(error: Exception) -> str:
    """Returns the first line of an error of Orbax, without the options of TensorStore.

    Args:
        error: The error.
    """
    first = (str(error) or type(error).__name__).splitlines()[0]
    return first.partition(" [tensorstore_spec")[0].rstrip(".")


def facts_of(tensors: dict[str, Any]) -> dict[str, tuple[list[int], bool]]:
    """Returns the checksum of each tensor, and whether all of its values are finite.

    They are computed where the tensors are, and do not depend on how these are divided.

    Args:
        tensors: Tensors of JAX, or arrays, by name.
    """
    import jax

    facts = jax.device_get({n: _compiled()(in_device_memory(t)) for n, t in tensors.items()})
    return {name: (sums.tolist(), bool(finite)) for name, (sums, finite) in facts.items()}


@functools.cache
def _compiled() -> Callable:
    import jax

    return jax.jit(_facts)


def _facts(tensor: Any) -> tuple[Any, Any]:
    """Two sums of the bits of all values, each times an odd number that depends on its place.

    Sums of whole numbers modulo 2**32 are the same in any order. An odd factor loses no bit, so
    a single value that differs always changes both sums.
    """
    import jax
    import jax.numpy as jnp

    tensor = jnp.asarray(tensor)
    finite = jnp.isfinite(tensor).all()
    kind = jnp.uint8 if tensor.dtype == bool else f"uint{8 * min(tensor.dtype.itemsize, 4)}"
    bits = tensor.astype(kind) if tensor.dtype == bool else tensor
    bits = jax.lax.bitcast_convert_type(bits, kind).astype("uint32")
    place, before = jnp.zeros(bits.shape, "uint32"), 1
    for axis in reversed(range(bits.ndim)):
        step = np.uint32(before % 2**32)
        place += jax.lax.broadcasted_iota("uint32", bits.shape, axis) * step
        before *= bits.shape[axis]
    sums = []
    for factor, shift in ((0x9E3779B1, 16), (0x85EBCA77, 13)):
        mixed = place * np.uint32(factor)
        mixed = (mixed ^ (mixed >> shift)) * np.uint32(factor)
        sums.append((bits * (mixed | 1)).sum(dtype="uint32"))
    return jnp.stack(sums), finite
