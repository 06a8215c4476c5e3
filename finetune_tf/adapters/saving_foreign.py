"""Models of other libraries cannot keep adapters in `.keras` files, so saving them is an error."""

from typing import Any, NoReturn

import keras

from finetune_tf.adapters.attaching import adapters_of
from finetune_tf.base.keras_internals import all_layers, sublayers
from finetune_tf.errors import ModelError


def guard_saving(model: keras.Model) -> None:
    """Makes a model refuse to be saved while it has adapters that would be lost.

    The config of a model from `load` contains its adapters. Keras would create any other model
    without them, and leave out their weights without a message.

    Args:
        model: A model whose adapters have changed.
    """
    for part in _plain_models(model):
        has_adapters = any(adapters_of(layer) for layer in _plain_layers(part))
        is_guarded = getattr(vars(part).get("get_config"), "refuses_adapters", False)
        if has_adapters and not is_guarded:
            part.get_config = _refuse
        elif is_guarded and not has_adapters:
            del part.get_config


def _refuse(*_: Any) -> NoReturn:
    raise ModelError(
        "A .keras file of this model would lose its adapters, because the model does not come from "
        "ft.load. Write the adapters into the kernels with ft.adapters.merge(model), remove them "
        "with ft.adapters.remove(model, name), and save then. model.save_weights keeps them for a "
        "model with the same adapters."
    )


_refuse.refuses_adapters = True


def _keeps_adapters(layer: keras.layers.Layer) -> bool:
    return hasattr(layer, "info") and hasattr(type(layer), "task")


def _plain_layers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Returns a layer and all layers in it, without those of models from `load`."""
    if _keeps_adapters(layer):
        return []
    return [layer, *(inner for child in sublayers(layer) for inner in _plain_layers(child))]


def _plain_models(model: keras.Model) -> list[keras.Model]:
    return [
        part
        for part in all_layers(model)
        if isinstance(part, keras.Model) and not _keeps_adapters(part)
    ]
