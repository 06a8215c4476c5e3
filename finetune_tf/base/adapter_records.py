"""Keeps adapters from being lost when the config of a layer is read.

The config of a layer does not contain its adapters. A model from `load` records them in its own
config. Any other Keras model that uses such layers, and any clone, would lose them in silence.
"""

import contextlib
import contextvars
from collections.abc import Iterator

import keras

from finetune_tf.base.keras_internals import all_layers
from finetune_tf.errors import ModelError

_are_recorded: contextvars.ContextVar = contextvars.ContextVar("adapters_recorded", default=False)


@contextlib.contextmanager
def adapters_recorded() -> Iterator[None]:
    """Inside the block, configs of layers with adapters may be read, because nothing is lost."""
    token = _are_recorded.set(True)
    try:
        yield
    finally:
        _are_recorded.reset(token)


def require_recorded(layer: keras.layers.Layer) -> None:
    """Checks that the config of a layer may be read.

    Raises:
        ModelError: If the layer has adapters and nothing records them.
    """
    if not _are_recorded.get() and any(hasattr(each, "adapter_name") for each in all_layers(layer)):
        raise ModelError(
            f"The layer {layer.name!r} has adapters, which a copy of the model or its .keras file "
            "would lose. Save or copy the model from ft.load, which records them, or write them "
            "into its kernels first: ft.adapters.merge(model) and then "
            "ft.adapters.remove(model, name)."
        )
