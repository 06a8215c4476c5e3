"""Calls of adapted layers of other libraries, whose `call` is replaced in the one object."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from finetune_tf.architectures.layers import adapted_product, adapters_in_use
from finetune_tf.base.keras_internals import full_precision


def adapted_call(
    layer: keras.layers.Layer, original: Callable[..., Any], inputs: Any, *args: Any, **kwargs: Any
) -> Any:
    """Calls a layer with its active adapters.

    Args:
        layer: A Dense, EinsumDense or convolutional layer of Keras.
        original: Its own `call`.
        inputs: The inputs of the call.
        *args: Further arguments of the call.
        **kwargs: Further arguments of the call.
    """
    adapters = adapters_in_use(layer)
    if not adapters:
        return original(inputs, *args, **kwargs)
    if type(layer) is keras.layers.Dense:
        output = adapted_product(layer, inputs, kwargs.get("training"))
        if layer.bias is not None:
            output = output + ops.cast(layer.bias, output.dtype)
        for adapter in adapters:
            if adapter.is_mergeable:
                output = adapter.change_output(output, kwargs.get("training"))
        if layer.activation is not None:
            output = layer.activation(output)
    else:
        with _effective_kernel(layer, adapters):
            output = original(inputs, *args, **kwargs)
    for adapter in adapters:
        if not adapter.is_mergeable:
            output = adapter.change_output(output, kwargs.get("training"))
    return output


def _effective_kernel(layer: keras.layers.Layer, adapters: list[Any]) -> keras.StatelessScope:
    """Returns a scope in which a layer reads the kernel that contains its adapters.

    The gradient of the whole kernel is computed for it, which costs as much as training the kernel.
    """
    with full_precision():
        shape = layer.kernel.shape
        kernel = ops.convert_to_tensor(layer.kernel)
        for adapter in adapters:
            if adapter.is_mergeable:
                matrix = ops.reshape(kernel, (adapter.rows, adapter.columns))
                kernel = ops.reshape(adapter.effective(matrix, None)[0], shape)
        # An outer scope, as in a training step of JAX, is not visible in an inner one.
        values = [(variable, variable.value) for variable in layer.variables]
    return keras.StatelessScope([*values, (layer.kernel, kernel)])
