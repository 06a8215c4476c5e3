"""Variables in the memory of the host, on JAX, for what is not needed in most of a step."""

from typing import Any

import keras

from finetune_tf.base.keras_internals import give_placement, is_stateless, placement_of

_HOST = "pinned_host"


def why_no_host_memory() -> str | None:
    """Says why variables cannot be in the memory of the host; None if they can."""
    if keras.backend.backend() != "jax":
        return f"Keras runs on {keras.backend.backend()}, and only JAX computes from that memory"
    import jax

    if not hasattr(jax, "memory"):
        return f"JAX {jax.__version__} does not have jax.memory: pip install --upgrade jax"
    device = jax.devices()[0]
    kinds = [memory.kind for memory in device.addressable_memories()]
    if _HOST not in kinds:
        return f"{device.device_kind} can read the memories {', '.join(kinds)} only"
    return None


def is_host_memory_separate() -> bool:
    """Whether the devices of JAX have a memory of their own beside that of the host."""
    import jax

    return jax.default_backend() != "cpu"


def keep_on_host(variable: keras.Variable) -> None:
    """Moves a variable to the memory of the host, where all of its later values will be, too."""
    give_placement(variable, variable.value.sharding.with_memory_kind(_HOST))


def on_device(variable: keras.Variable) -> Any:
    """Returns the value of a variable, from the memory of the host if it is there."""
    if not _is_on_host(variable):
        return variable
    import jax

    return jax.device_put(variable.value, jax.memory.Space.Device)


def in_device_memory(tensor: Any) -> Any:
    """Returns a tensor of JAX in the memory of its devices; arrays as they are."""
    placement = getattr(tensor, "sharding", None)
    if getattr(placement, "memory_kind", None) != _HOST:
        return tensor
    import jax

    return jax.device_put(tensor, placement.with_memory_kind("device"))


def assign_in_place(variable: keras.Variable, value: Any) -> None:
    """Assigns a value in the memory of the device to a variable, which stays where it is."""
    if _is_on_host(variable) and is_stateless():  # in a compiled step, which returns the value
        import jax

        value = jax.device_put(value, jax.memory.Space.Host)
    variable.assign(value)


def _is_on_host(variable: keras.Variable) -> bool:
    return getattr(placement_of(variable), "memory_kind", None) == _HOST
