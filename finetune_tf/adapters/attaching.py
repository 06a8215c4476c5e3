"""Attaching adapters to built layers, and finding those that a model has."""

import functools
import math
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import keras

from finetune_tf.adapters.foreign import adapted_call
from finetune_tf.adapters.layers import KINDS, PREFIX, Adapter
from finetune_tf.architectures.layers import Dense
from finetune_tf.base.keras_internals import add_sublayer, all_layers, remove_sublayer, sublayers
from finetune_tf.errors import ModelError

_FOREIGN = (
    keras.layers.Dense,
    keras.layers.EinsumDense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
)


def adaptable_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Returns the layers of a model that can get an adapter.

    They are our Dense layers, and in models of other libraries Keras's Dense, EinsumDense and
    convolutional layers. Layers inside of our own layers other than Dense are left out, since those
    may read the kernel without calling the layer.
    """
    found: dict[int, keras.layers.Layer] = {}

    def collect(layer: keras.layers.Layer, is_inside_own: bool) -> None:
        if isinstance(layer, Dense) or (isinstance(layer, _FOREIGN) and not is_inside_own):
            if layer.built and getattr(layer, "quantization_mode", None) is None:
                found.setdefault(id(layer), layer)
            return
        is_own = type(layer).__module__.startswith("finetune_tf.architectures")
        for child in sublayers(layer):
            collect(child, is_inside_own or is_own)

    collect(model, False)
    return list(found.values())


def adapters_of(layer: keras.layers.Layer) -> list[Adapter]:
    """Returns the adapters of a layer, active or not."""
    return [child for child in sublayers(layer) if isinstance(child, Adapter)]


def adapted_layers(
    model: keras.Model, name: str | None = None
) -> list[tuple[keras.layers.Layer, Adapter]]:
    """Returns the layers of a model that have an adapter, each with its adapter.

    Args:
        model: Any Keras model.
        name: The name of the adapters; by default those of all names.
    """
    return [
        (layer, adapter)
        for layer in _distinct_layers(model)
        for adapter in adapters_of(layer)
        if name in (None, adapter.adapter_name)
    ]


def _distinct_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    seen: set[int] = set()
    for layer in all_layers(model):
        if id(layer) not in seen:
            seen.add(id(layer))
            yield layer


def names_of(model: keras.Model) -> list[str]:
    """Returns the names of the adapters of a model, in the order in which they were added."""
    return list(dict.fromkeys(adapter.adapter_name for _, adapter in adapted_layers(model)))


def active_names(model: keras.Model) -> list[str]:
    """Returns the names of the adapters that take part in calls of the model."""
    return list(
        dict.fromkeys(
            name
            for layer in _distinct_layers(model)
            for name in getattr(layer, "active_adapters", ())
        )
    )


def merged_names(model: keras.Model) -> list[str]:
    """Returns the names of the adapters that are merged into the kernels of the model."""
    found = (a.adapter_name for _, a in adapted_layers(model) if a.is_merged)
    return list(dict.fromkeys(found))


def path_of(layer: keras.layers.Layer) -> str:
    """Returns the path of a layer, with which the paths of its variables begin."""
    return layer.kernel.path.rpartition("/")[0]


def sizes_of(layer: keras.layers.Layer) -> tuple[int, int]:
    """Returns the shape of the kernel as a matrix: (inputs, outputs).

    Raises:
        ModelError: If the kernel of an EinsumDense layer is not a matrix of inputs and outputs.
    """
    shape = tuple(layer.kernel.shape)
    count = len(shape) - 1
    if isinstance(layer, keras.layers.EinsumDense):
        inputs, _, rest = layer.equation.partition(",")
        kernel, _, outputs = rest.partition("->")
        summed = [axis in inputs and axis not in outputs for axis in kernel]
        count = sum(summed)
        if not count or summed != sorted(summed, reverse=True):
            raise ModelError(
                f"The kernel of {path_of(layer)} ({layer.equation!r}) is no matrix whose first "
                "axes are summed, so it cannot get an adapter. Choose other layers with targets=."
            )
    return math.prod(shape[:count]), math.prod(shape[count:])


def require_adaptable(layer: keras.layers.Layer, kind: str, settings: dict[str, Any]) -> None:
    """Raises a ModelError if a layer cannot have such an adapter; the arguments are `attach`'s."""
    is_dense = isinstance(layer, Dense) or type(layer) is keras.layers.Dense
    if not is_dense and (kind == "IA3" or settings.get("dropout")):
        what = "IA3 adapters" if kind == "IA3" else "adapters with dropout"
        raise ModelError(
            f"{path_of(layer)} is a layer {type(layer).__name__}, which cannot have {what}; only "
            "Dense layers can. Choose other layers with targets=, or LoRA without dropout."
        )
    sizes_of(layer)


def attach(layer: keras.layers.Layer, name: str, kind: str, settings: dict[str, Any]) -> Adapter:
    """Adds an adapter to a built layer; it is not active yet.

    Args:
        layer: One of `adaptable_layers`, for which `require_adaptable` raises no error.
        name: The name of the adapter.
        kind: A key of `KINDS`.
        settings: Further arguments of the adapter's layer.
    """
    path = path_of(layer)
    adapter = KINDS[kind](name, *sizes_of(layer), dtype=layer.dtype_policy, **settings)
    with ExitStack() as scopes:
        for part in path.split("/"):
            scopes.enter_context(keras.name_scope(part))
        adapter.build(None)
    if not isinstance(layer, Dense) and not adapters_of(layer):
        layer.call = functools.partial(adapted_call, layer, layer.call)
    add_sublayer(layer, PREFIX + name, adapter)
    return adapter


def detach(layer: keras.layers.Layer, adapter: Adapter) -> None:
    """Removes an adapter from a layer, which then computes as before if it had no other one."""
    set_active(layer, [n for n in active_adapters(layer) if n != adapter.adapter_name])
    remove_sublayer(layer, adapter.name)
    if not isinstance(layer, Dense) and not adapters_of(layer):
        original = layer.call.args[1]
        del layer.call
        if getattr(original, "__func__", None) is not type(layer).call:  # replaced by the user
            layer.call = original


def active_adapters(layer: keras.layers.Layer) -> tuple[str, ...]:
    """Returns the names of the active adapters of a layer."""
    return tuple(getattr(layer, "active_adapters", ()))


def set_active(layer: keras.layers.Layer, names: list[str]) -> None:
    """Activates exactly these adapters of a layer."""
    layer.active_adapters = tuple(names)
