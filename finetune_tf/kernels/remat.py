"""Gradient checkpointing: a part of a model whose inside is computed again for its gradient.

Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost".
"""

import functools
from collections.abc import Callable
from typing import Any

import keras

from finetune_tf.base.keras_internals import all_layers

Tensor = Any
# Takes and gives flat lists of tensors; its second result is not differentiated.
Pure = Callable[[list[Tensor], list[Tensor]], tuple[Tensor, list[Tensor]]]


def remat(layer: keras.layers.Layer, name: str, *inputs: Tensor | None, **options: Any) -> Tensor:
    """What a method of a layer gives, of which only inputs and output are kept for the gradient.

    Dropout is the same both times: the states of its seeds are inputs like any other, and move on
    once.

    Args:
        layer: Owns every variable that the method reads. Layers of equal configs, parts included,
            compute the same.
        name: Of the method, from tensors to one tensor.
        *inputs: Tensors or None. Gradients go to those that are floats, and to the layer's
            weights that learn.
        **options: Other arguments of the method.
    """
    function = functools.partial(getattr(layer, name), **options)
    given = [keras.ops.convert_to_tensor(x) for x in inputs if x is not None]
    learn = [*layer.trainable_variables]
    fixed = [v for v in layer.variables if not any(v is other for other in learn)]
    seeds = [v for v in fixed if not keras.backend.is_float_dtype(v.dtype)]
    are_floats = [keras.backend.is_float_dtype(x.dtype) for x in given]

    def pure(moving: list[Tensor], constant: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        moving, constant = [*moving], [*constant]
        values = [moving.pop(0) for _ in learn] + [constant.pop(0) for _ in fixed]
        mapping = list(zip([*learn, *fixed], values, strict=True))
        rest = iter([(moving if is_float else constant).pop(0) for is_float in are_floats])
        filled = [x if x is None else next(rest) for x in inputs]
        with keras.StatelessScope(state_mapping=mapping) as scope:
            output = function(*filled)
        return output, [scope.get_current_value(v) for v in seeds]

    structure = repr((_structure(layer), name, options, [x is None for x in inputs]))
    moving = [x for x, is_float in zip(given, are_floats, strict=True) if is_float]
    constant = [x for x, is_float in zip(given, are_floats, strict=True) if not is_float]
    output, states = _checkpoint(pure, structure)(
        [*(v.value for v in learn), *moving], [*(v.value for v in fixed), *constant]
    )
    for variable, value in zip(seeds, states, strict=True):
        variable.assign(value)
    return output


def _structure(layer: keras.layers.Layer) -> list:
    """What decides what a layer computes, apart from the values of its variables.

    Two blocks with the same structure can share what was traced for one of them.
    """
    parts = []
    for part in all_layers(layer):
        config = {key: value for key, value in part.get_config().items() if key != "name"}
        own = sorted(vars(part).keys() & {"call", "__call__"})  # methods replaced in one instance
        parts.append((type(part), config, own and id(part)))
    flags = [(v.shape, v.dtype, v.trainable) for v in layer.variables]
    return [parts, flags]


def _checkpoint(pure: Pure, structure: str) -> Pure:
    """The backend's way."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.checkpoint(pure)
    if backend == "tensorflow":
        from finetune_tf.kernels.tensorflow import checkpoint

        return checkpoint(pure, structure)
    return pure
