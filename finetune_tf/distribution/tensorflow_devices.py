"""Several devices on TensorFlow: a strategy that mirrors the variables."""

import contextlib
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


def list_devices() -> list[str]:
    """Returns the names of all GPUs, else those of the logical devices of the CPU."""
    names = [
        device.name.split("device:")[-1]  # "/device:GPU:0"
        for kind in ("GPU", "CPU")
        for device in tf.config.list_logical_devices(kind)
    ]
    gpus = [name for name in names if name.startswith("GPU")]
    return gpus or names


_STRATEGIES: dict[tuple[str, ...], tf.distribute.MirroredStrategy] = {}


class TensorFlowDevices:
    """Copies all variables to each device, which computes a part of the rows of each batch.

    The strategy is that of the whole program, as if everything were in its scope. Models on it
    compute losses and metrics from the rows of all devices, see `model.device_model`.

    Args:
        devices: The names of the devices.
    """

    def __init__(self, devices: Sequence[str]) -> None:
        # A second strategy on the same devices would number its messages from the beginning, and
        # TensorFlow would take them for those of the first one.
        if tuple(devices) not in _STRATEGIES:
            _STRATEGIES[tuple(devices)] = tf.distribute.MirroredStrategy(list(devices))
        self.strategy = _STRATEGIES[tuple(devices)]
        self.shares = None  # one process reads whole batches, which the strategy divides
        tf.distribute.experimental_set_strategy(self.strategy)

    def end(self) -> None:
        """Ends the strategy of the program."""
        tf.distribute.experimental_set_strategy(None)

    def holds(self, model: keras.Model) -> bool:
        """Whether a model was loaded on these devices."""
        created_here = self.strategy.extended.variable_created_in_scope
        return all(created_here(variable.value) for variable in model.variables)

    def divided(self, inputs: Any) -> Any:
        """Returns the inputs as they are: the strategy has divided them."""
        return inputs

    def gathered(self, outputs: Any) -> Any:
        """Returns the outputs as they are: Keras joins them."""
        return outputs

    def whole_batches(self) -> contextlib.AbstractContextManager:
        """Changes nothing: the strategy divides batches."""
        return contextlib.nullcontext()
