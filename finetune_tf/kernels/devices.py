"""What devices tell each other during a step, for backends whose steps see whole batches.

Only TensorFlow runs a step on each device with the rows of that device: `tensorflow_devices` has
functions of the same names for it. Everywhere else, a step has the rows of all devices.
"""

from collections.abc import Callable
from typing import Any

Tensor = Any


def device_count() -> int:
    """Returns the number of devices that run the current step, each with its part of the rows."""
    return 1


def is_first_device() -> bool:
    """Whether the step that is being traced is that of the first device, or of the only one."""
    return True


def gathered(values: list[Tensor | None]) -> list[Tensor | None]:
    """Joins the rows (rows, …) of all devices in their order; gradients flow to the own rows.

    Each device must compute the same from the result, and divide it by the number of devices: see
    `divided_among_devices`. The sum of the gradients of all devices is then that of one device.

    Args:
        values: Tensors, or None for what does not exist. A tensor of one number for each device,
            (1,), becomes one of all numbers, (devices,).
    """
    return values


def with_common_shapes(data: Tensor) -> Tensor:
    """Gives parts of a batch without rows the row shapes of the other devices.

    Args:
        data: Nested tensors (rows, …), or None in some places. TensorFlow makes tensors without
            rows where a batch has fewer rows than there are devices, with sizes of 0 where it
            does not know them.
    """
    return data


def of_all_devices(function: Callable[[], Any]) -> Any:
    """Returns what a function computes from variables, each of them summed over the devices."""
    return function()


def seed_of_device(seed: Tensor) -> Tensor:
    """Returns another seed (2,) on each device, whose generators have the same state.

    Otherwise, the first rows of all devices would get the same random numbers, and so on.
    """
    return seed


def summed_over_devices(gradients: list[Tensor | None]) -> list[Tensor | None]:
    """Returns gradients summed over all devices. Only TensorFlow has one gradient per device."""
    return gradients


def divided_among_devices(loss: Tensor) -> Tensor:
    """Divides the loss of one device by the number of devices, whose gradients are summed."""
    return loss
