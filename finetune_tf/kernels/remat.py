"""Gradient checkpointing: activations are rematerialized in the backward pass, not stored.

Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost".
"""

import functools
from collections.abc import Callable
from typing import Any

import keras

from finetune_tf.base.adapter_records import adapters_recorded
from finetune_tf.base.keras_internals import all_layers

Tensor = Any
# A pure function of two flat lists of tensors, of which only the first is differentiated. It
# returns the output and a list of states, which is not differentiated.
Pure = Callable[[list[Tensor], list[Tensor]], tuple[Tensor, list[Tensor]]]


def remat(layer: keras.layers.Layer, name: str, *inputs: Tensor | None, **options: Any) -> Tensor:
    """Calls a method of a layer and stores only its inputs and output for the gradient.

    Both passes use the same dropout mask: the states of the seed generators are inputs of the
    computation and advance once.

    Args:
        layer: The layer, which owns every variable that the method reads. Layers with equal
            configs, including those of their sublayers, share one traced function.
        name: The name of the method, which maps tensors to one tensor.
        *inputs: Tensors or None. Gradients are computed with respect to the float tensors among
            them and to the trainable variables of the layer.
        **options: Keyword arguments of the method.

    Returns:
        The result of the method.
    """
    function = functools.partial(getattr(layer, name), **options)
    tensors = [keras.ops.convert_to_tensor(x) for x in inputs if x is not None]
    trainable = [*layer.trainable_variables]
    fixed = [v for v in layer.variables if not any(v is other for other in trainable)]
    seeds = [v for v in fixed if not keras.backend.is_float_dtype(v.dtype)]
    are_floats = [keras.backend.is_float_dtype(x.dtype) for x in tensors]

    def pure(differentiable: list[Tensor], constant: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        differentiable, constant = [*differentiable], [*constant]
        values = [differentiable.pop(0) for _ in trainable] + [constant.pop(0) for _ in fixed]
        mapping = list(zip([*trainable, *fixed], values, strict=True))
        remaining = iter(
            [(differentiable if is_float else constant).pop(0) for is_float in are_floats]
        )
        arguments = [x if x is None else next(remaining) for x in inputs]
        with keras.StatelessScope(state_mapping=mapping) as scope:
            output = function(*arguments)
        return output, [scope.get_current_value(v) for v in seeds]

    structure = repr((_structure(layer), name, options, [x is None for x in inputs]))
    differentiable = [x for x, is_float in zip(tensors, are_floats, strict=True) if is_float]
    constant = [x for x, is_float in zip(tensors, are_floats, strict=True) if not is_float]
    output, states = _checkpoint(pure, structure)(
        [*(v.value for v in trainable), *differentiable], [*(v.value for v in fixed), *constant]
    )
    for variable, value in zip(seeds, states, strict=True):
        variable.assign(value)
    return output


def _structure(layer: keras.layers.Layer) -> list:
    """Describes all that determines what a layer computes, apart from the values of its variables.

    Two blocks with the same structure can share one traced function.
    """
    parts = []
    for part in all_layers(layer):
        with adapters_recorded():  # they are parts themselves
            config = {key: value for key, value in part.get_config().items() if key != "name"}
        own = sorted(vars(part).keys() & {"call", "__call__"})  # methods replaced in one instance
        active = tuple(getattr(part, "active_adapters", ()))
        parts.append((type(part), config, own and id(part), active))
    flags = [(v.shape, v.dtype, v.trainable) for v in layer.variables]
    return [parts, flags]


def _checkpoint(pure: Pure, structure: str) -> Pure:
    """Wraps a function with the gradient checkpointing of the backend."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.checkpoint(pure)
    if backend == "tensorflow":
        from finetune_tf.kernels.tensorflow import checkpoint

        return checkpoint(pure, structure)
    return pure
