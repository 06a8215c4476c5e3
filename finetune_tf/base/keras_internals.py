"""What Keras has no public name for, in one place.

Everything here is read from attributes that Keras may rename. No other file of the library uses
them, so a new version of Keras is supported by changing this one;
`tests/package/test_keras_internals.py` checks every function against the installed version.
"""

from collections.abc import Iterator
from typing import Any

import keras

# Keras defers the values of variables for JAX, where a StatelessScope holds them back until its
# end. When that is depends on a global list alone.
from keras.src.backend.common import global_state

_WAITING_VARIABLES = "uninitialized_variables"

# Optimizers


def inner_optimizer(optimizer: Any) -> Any:
    """The optimizer inside a LossScaleOptimizer, or the optimizer itself."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def wrapped_optimizers(optimizer: Any) -> list[Any]:
    """The optimizers directly inside a LossScaleOptimizer or a MultiOptimizer; [] of any other."""
    inner = getattr(optimizer, "inner_optimizer", None)
    return [inner] if inner is not None else list(getattr(optimizer, "_inner_optimizers", ()))


def optimized_variables(optimizer: Any) -> list[keras.Variable]:
    """The variables that an optimizer was built for, in its order."""
    return inner_optimizer(optimizer)._trainable_variables


def rate_of(optimizer: Any) -> Any:
    """The learning rate as it is stored: a schedule, a callable or a variable; None without one."""
    return getattr(inner_optimizer(optimizer), "_learning_rate", None)


def set_rate(optimizer: Any, rate: Any) -> None:
    """Stores a schedule or a callable as the learning rate, as the very same object."""
    inner_optimizer(optimizer)._learning_rate = rate


def step_counter(optimizer: Any) -> keras.Variable:
    """The counter of calls, which counts each batch where gradients are accumulated.

    The public `iterations` counts updates of the weights.
    """
    return inner_optimizer(optimizer)._iterations


def accumulated_gradients(optimizer: Any) -> list[keras.Variable]:
    """The sums of gradients that wait for the step that is due."""
    return inner_optimizer(optimizer)._accumulated_gradients


def moving_averages(optimizer: Any) -> list[keras.Variable]:
    """The running averages of weights of an optimizer with `use_ema`."""
    return inner_optimizer(optimizer)._model_variables_moving_average


def take_summed_gradients(optimizer: Any) -> None:
    """Tells an optimizer that its gradients are sums over all devices already."""
    optimizer._all_reduce_sum_gradients = list


# Layers


def sublayers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The layers directly inside a layer."""
    return layer._layers


def all_layers(layer: keras.layers.Layer) -> Iterator[keras.layers.Layer]:
    """The layer and all layers inside it, outer ones first."""
    yield layer
    for child in sublayers(layer):
        yield from all_layers(child)


def own_variables(layer: keras.layers.Layer) -> list[keras.Variable]:
    """The variables of a layer itself that were made to learn, whether or not they are frozen now.

    A list that may be changed. The public `trainable_variables` is what freezing changes.
    """
    return layer._trainable_variables


def trainable_flag(layer: keras.layers.Layer) -> bool:
    """What was set as `layer.trainable`, whatever the layers around it say."""
    return layer._trainable


def set_trainable_flag(layer: keras.layers.Layer, value: bool) -> None:
    """Sets `layer.trainable` of this layer alone."""
    layer._trainable = bool(value)


# Models


def graph_of(model: keras.Model) -> Any:
    """The Functional graph of a model, or None where it has none."""
    if isinstance(model, keras.Sequential):
        return model._functional
    return model if hasattr(model, "_nodes_by_depth") else None


def run_graph(graph: keras.Model, inputs: list, operation_of: Any) -> Any:
    """Computes the outputs of a Functional model with other operations in the place of its own.

    Args:
        graph: The model.
        inputs: A tensor for each of its inputs, in their order, of any shape.
        operation_of: Operation of the graph to what is called in its place.
    """
    return graph._run_through_graph(inputs, operation_fn=operation_of)


def nodes_by_depth(graph: keras.Model) -> dict[int, list[Any]]:
    """The calls that a Functional graph consists of, by their distance to the outputs."""
    return graph._nodes_by_depth


def inputs_struct(model: keras.Model) -> Any:
    """The symbolic inputs of a Functional model in the structure that it was made with."""
    return model._inputs_struct


def first_epoch(model: keras.Model) -> int:
    """The epoch that a running fit began with, where a callback such as BackupAndRestore set it."""
    return model._initial_epoch or 0


def set_compiled_optimizer(model: keras.Model, optimizer: Any) -> None:
    """Puts another optimizer in the place of the compiled one, also in what a save writes."""
    model.optimizer = optimizer
    model._compile_config.config["optimizer"] = optimizer


def sync_state(model: keras.Model) -> None:
    """Writes the numbers of a running fit to the model's variables; JAX keeps them elsewhere."""
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()


# Metrics


def function_of(metric: keras.metrics.MeanMetricWrapper) -> Any:
    """The function whose mean a metric is."""
    return getattr(metric, "_fn", None)


def copy_direction(metric: keras.metrics.Metric, of: keras.metrics.Metric) -> None:
    """Has EarlyStopping take a metric as better in the same direction as another one."""
    if hasattr(of, "_direction"):
        metric._direction = of._direction


def set_direction(metric: keras.metrics.Metric, direction: str) -> None:
    """Tells EarlyStopping that a metric is better where it is higher ("up") or lower ("down")."""
    metric._direction = direction


# Variables


def deferred_variables() -> Any:
    """The list of variables that wait for their values; see `checkpoints.deferred`."""
    return global_state.get_global_attribute(_WAITING_VARIABLES) or []


def set_deferred_variables(waiting: list[keras.Variable]) -> None:
    """Has variables without a value wait in another list."""
    global_state.set_global_attribute(_WAITING_VARIABLES, waiting)


def give_value(variable: keras.Variable, value: Any = None) -> None:
    """Gives a deferred variable its value: an array, or what its own initializer draws."""
    if value is not None:
        variable._initializer = lambda shape, dtype: keras.ops.convert_to_tensor(value, dtype)
    variable._deferred_initialize()
