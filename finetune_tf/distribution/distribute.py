"""`ft.distribute`: which devices and processes train the models that are loaded afterwards."""

from collections.abc import Sequence
from typing import Any, Literal

import keras

from finetune_tf.base.arguments import check
from finetune_tf.base.spelling import names_checked
from finetune_tf.distribution.current import Distribution, _put, current
from finetune_tf.errors import ArgumentError, ModelError
from finetune_tf.messages import say

_KINDS = ("auto", "data", "model")


@names_checked(also={"devices": "device gpus"})
def distribute(
    kind: Literal["auto", "data", "model"] = "auto",
    devices: Sequence[str] | None = None,
    *,
    parts: int | None = None,
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> Distribution:
    """Distributes the models that are loaded afterwards over several devices.

    Everything else in a script stays as it is: `batch_size` is the size of the batch of all
    devices together, and losses, metrics and weights are those of one device up to rounding, also
    in batches that the devices do not divide. With JAX (KERAS_BACKEND=jax), devices may belong to
    several processes. Each of them runs the same script on the same data, reads its own rows of
    each batch, and leaves files to process 0. With TensorFlow, it is a
    `tf.distribute.MirroredStrategy` in one process.

    Args:
        kind: "data" copies the model to each device and divides the rows of each batch; "model"
            (JAX only) divides the weight matrices too, for models that do not fit one device;
            "auto" is "data" if there are several devices, or if the one that is named is not the
            usual one, and changes nothing otherwise.
        devices: The names of the devices, such as ["gpu:0", "gpu:1"]; by default all GPUs or TPUs,
            else all CPU devices. `keras.distribution.list_devices()` lists them.
        parts: For "model", into how many parts weights are divided, by default as many as there are
            devices; with fewer parts, rows are divided among groups of so many devices.
        coordinator_address: "host:port" of process 0, for several processes (JAX only). "auto" if
            the cluster tells JAX, as TPU pods and SLURM do.
        num_processes: The number of processes.
        process_id: The number of this process, from 0.

    Returns:
        The distribution in force, a context manager that ends at the end of its block.

    Raises:
        ArgumentError: If the kind, the devices or the processes do not exist or do not fit.
        ModelError: If the backend cannot distribute models in this way, or a distribution is in
            force.

    Example:
        >>> distribution = ft.distribute("auto")
        >>> distribution.kind, distribution.num_processes
        ('none', 1)
        >>> distribution.end()
    """
    numbers = {"parts": parts, "num_processes": num_processes, "process_id": process_id}
    check(**{f"distribute.{name}": value for name, value in numbers.items()})
    if kind not in _KINDS:
        names = ", ".join(map(repr, _KINDS))
        raise ArgumentError(f"distribute() takes one of {names}; found {kind!r}.")
    if current() is not None:
        raise ModelError(
            f"A distribution is in force: {current()}. End it first: distribution.end()."
        )
    processes = coordinator_address, num_processes, process_id
    backend = keras.backend.backend()
    if backend == "jax":
        distribution = _on_jax(kind, devices, parts, processes)
    elif backend == "tensorflow":
        distribution = _on_tensorflow(kind, devices, parts, processes)
    else:
        raise ModelError(f"distribute() needs JAX or TensorFlow, found {backend}.")
    _put(distribution)
    if len(distribution.devices) > 1:
        say(f"Models are distributed over {', '.join(distribution.devices)} ({distribution.kind}).")
    return distribution


def _on_jax(
    kind: str, devices: Sequence[str] | None, parts: int | None, processes: tuple
) -> Distribution:
    address, *numbers = processes
    count, number = 1, 0
    if any(value is not None for value in processes):
        if address is None:
            raise ArgumentError("For several processes, pass coordinator_address= too.")
        if devices is not None:
            raise ArgumentError("Several processes use all of their devices: omit devices=.")
        if kind == "model":
            raise ModelError(
                "Weights that are divided among several processes cannot be saved by one of them: "
                "use 'data', or all devices of one process."
            )
        from finetune_tf.distribution.jax_processes import join

        count, number = join(None if address == "auto" else address, *numbers)
    found, usual = _existing(devices, keras.distribution.list_devices())
    if kind == "auto":
        kind = "none" if usual else "data"
    parts = _parts(kind, parts, found)
    if kind == "none":
        return Distribution("none", found)
    from finetune_tf.distribution.jax_devices import JaxDevices

    return Distribution(kind, found, count, number, JaxDevices(found, parts))


def _on_tensorflow(
    kind: str, devices: Sequence[str] | None, parts: int | None, processes: tuple
) -> Distribution:
    if kind == "model" or parts is not None:
        raise ModelError(
            "TensorFlow cannot divide the weights of Keras models: set KERAS_BACKEND=jax before "
            "Python starts."
        )
    if any(value is not None for value in processes):
        raise ModelError(
            "Keras 3 does not train in several processes with TensorFlow "
            "(https://github.com/keras-team/keras/issues/20585): set KERAS_BACKEND=jax before "
            "Python starts."
        )
    from finetune_tf.distribution.tensorflow_devices import TensorFlowDevices, list_devices

    found, usual = _existing(devices, list_devices())
    if kind == "auto" and usual:
        return Distribution("none", found)
    return Distribution("data", found, engine=TensorFlowDevices(found))


def _existing(devices: Sequence[str] | None, known: Sequence[str]) -> tuple[tuple[str, ...], bool]:
    """Finds devices, all of them by default.

    Returns:
        Their names as the backend spells them, and whether they are the one that models are on
        without a distribution.
    """
    if devices is None:
        return tuple(known), len(known) == 1
    if isinstance(devices, str):
        raise ArgumentError(f"devices= is a list of names, such as [{devices!r}].")
    by_name = {name.lower(): name for name in known}
    chosen = [str(name).lower() for name in devices]
    if not chosen or len(set(chosen)) < len(chosen) or not by_name.keys() >= set(chosen):
        raise ArgumentError(
            f"devices= names different ones of {', '.join(known)}; found {list(devices)}."
        )
    found = tuple(by_name[name] for name in chosen)
    return found, found == tuple(known[:1])


def _parts(kind: str, parts: Any, devices: Sequence[str]) -> int:
    if kind != "model":
        if parts is not None:
            raise ArgumentError('parts= is for distribute("model") alone.')
        return 1
    parts = len(devices) if parts is None else parts
    if len(devices) % parts:
        raise ArgumentError(
            f"parts= is a number that divides the number of devices, {len(devices)}; "
            f"found {parts!r}."
        )
    return parts
