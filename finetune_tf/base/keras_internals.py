"""Access to private attributes of Keras, in one place.

Keras may rename these attributes in any release. No other module of the library uses them, so only
this module has to change for a new version of Keras. `tests/package/test_keras_internals.py` tests
every function with the installed version.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import keras

# Under JAX, Keras delays the initialization of variables that are created in a StatelessScope until
# the scope ends. It stores them in a global list, which these functions use as well.
from keras.src.backend.common import global_state
from keras.src.backend.common.stateless_scope import get_stateless_scope, in_stateless_scope
from keras.src.backend.common.variables import AutocastScope, get_autocast_scope

_WAITING_VARIABLES = "uninitialized_variables"

# Optimizers


def inner_optimizer(optimizer: Any) -> Any:
    """Returns the optimizer inside a LossScaleOptimizer, or the optimizer itself."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def wrapped_optimizers(optimizer: Any) -> list[Any]:
    """Returns the optimizers directly inside a LossScaleOptimizer or MultiOptimizer, else []."""
    inner = getattr(optimizer, "inner_optimizer", None)
    return [inner] if inner is not None else list(getattr(optimizer, "_inner_optimizers", ()))


def optimized_variables(optimizer: Any) -> list[keras.Variable]:
    """Returns the variables that an optimizer was built for, in its order."""
    return inner_optimizer(optimizer)._trainable_variables


def rate_of(optimizer: Any) -> Any:
    """Returns the stored learning rate: a schedule, a callable, a variable, or None."""
    return getattr(inner_optimizer(optimizer), "_learning_rate", None)


def set_rate(optimizer: Any, rate: Any) -> None:
    """Stores a schedule or a callable as the learning rate, without a copy."""
    inner_optimizer(optimizer)._learning_rate = rate


def step_counter(optimizer: Any) -> keras.Variable:
    """Returns the counter of `apply` calls, which counts every batch of accumulated gradients.

    The public `iterations` counts the weight updates.
    """
    return inner_optimizer(optimizer)._iterations


def accumulated_gradients(optimizer: Any) -> list[keras.Variable]:
    """Returns the accumulated gradients, which the next weight update applies."""
    return inner_optimizer(optimizer)._accumulated_gradients


def moving_averages(optimizer: Any) -> list[keras.Variable]:
    """Returns the moving averages of the weights of an optimizer with `use_ema`."""
    return inner_optimizer(optimizer)._model_variables_moving_average


def take_summed_gradients(optimizer: Any) -> None:
    """Makes an optimizer expect gradients that are already summed over all devices."""
    optimizer._all_reduce_sum_gradients = list


# Layers


def sublayers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Returns the direct sublayers of a layer."""
    return layer._layers


def all_layers(layer: keras.layers.Layer) -> Iterator[keras.layers.Layer]:
    """Yields the layer and all its nested layers, outer ones first."""
    yield layer
    for child in sublayers(layer):
        yield from all_layers(child)


def own_variables(layer: keras.layers.Layer) -> list[keras.Variable]:
    """Returns a layer's own variables that were created as trainable, including frozen ones.

    The list is the layer's own and can be modified. The public `trainable_variables` omits frozen
    variables.
    """
    return layer._trainable_variables


def own_constants(layer: keras.layers.Layer) -> list[keras.Variable]:
    """Returns a layer's own variables that were created as not trainable; see `own_variables`."""
    return layer._non_trainable_variables


def trainable_flag(layer: keras.layers.Layer) -> bool:
    """Returns `layer.trainable` as it was set, independent of the enclosing layers."""
    return layer._trainable


def set_trainable_flag(layer: keras.layers.Layer, value: bool) -> None:
    """Sets `layer.trainable` of this layer only, and not of its sublayers."""
    layer._trainable = bool(value)


def add_sublayer(layer: keras.layers.Layer, name: str, sublayer: Any) -> None:
    """Sets an attribute of a built layer to a new sublayer or seed generator.

    Keras itself refuses it.
    """
    tracker = layer._tracker
    was_locked = tracker.locked
    tracker.unlock()
    try:
        setattr(layer, name, sublayer)
    finally:
        if was_locked:
            tracker.lock()


def remove_sublayer(layer: keras.layers.Layer, name: str) -> None:
    """Removes an attribute of a layer and the sublayer that it holds."""
    layer._tracker.untrack(getattr(layer, name))
    delattr(layer, name)


def full_precision() -> Any:
    """Returns a scope in which variables are read in their own dtype, whatever the dtype policy."""
    return AutocastScope(None)


def give_seed_generator(layer: keras.layers.Dropout) -> None:
    """Gives a built Dropout layer the seed generator that Keras does not make for the rate 0."""
    add_sublayer(layer, "seed_generator", keras.random.SeedGenerator(layer.seed))


# Models


def graph_of(model: keras.Model) -> Any:
    """Returns the Functional graph of a model, or None if it has none."""
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


def run_nodes(graph: keras.Model, inputs: list, call_of: Any) -> Any:
    """Computes the outputs of a Functional model, where each call of an operation is replaced.

    Args:
        graph: The model.
        inputs: As for `run_graph`.
        call_of: From a node (a call of an operation) to what is called in the place of its
            operation.
    """
    depths = sorted(graph._nodes_by_depth, reverse=True)
    nodes = iter([node for depth in depths for node in graph._nodes_by_depth[depth]])

    def operation_of(operation: Any) -> Any:
        return call_of(next(node for node in nodes if node.operation is operation))

    return graph._run_through_graph(inputs, operation_fn=operation_of)


def standardized_inputs(graph: keras.Model, inputs: Any) -> list:
    """Returns the inputs of a Functional model as a list in its order, in its dtypes."""
    return graph._standardize_inputs(inputs)


def nodes_by_depth(graph: keras.Model) -> dict[int, list[Any]]:
    """Returns the nodes (layer calls) of a Functional graph by their distance to the outputs."""
    return graph._nodes_by_depth


def inputs_struct(model: keras.Model) -> Any:
    """Returns the symbolic inputs of a Functional model in the structure it was created with."""
    return model._inputs_struct


def set_last_axis(tensor: keras.KerasTensor, size: int) -> None:
    """Changes the last axis of a symbolic tensor, whose layer has got another number of outputs."""
    tensor._shape = (*tensor.shape[:-1], size)


def first_epoch(model: keras.Model) -> int:
    """Returns the epoch at which a running fit resumed, as BackupAndRestore sets it, or 0."""
    return model._initial_epoch or 0


def compiled_with(model: keras.Model, argument: str) -> Any:
    """Returns an argument that Keras's `compile` was called with, or None."""
    return model._compile_config.config.get(argument)


def set_compiled_optimizer(model: keras.Model, optimizer: Any) -> None:
    """Replaces the compiled optimizer, also in the config that is saved with the model."""
    model.optimizer = optimizer
    model._compile_config.config["optimizer"] = optimizer


def sync_state(model: keras.Model) -> None:
    """Copies the state of a running JAX fit to the model's variables; does nothing elsewhere."""
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()


# Metrics


def function_of(metric: keras.metrics.MeanMetricWrapper) -> Any:
    """Returns the function whose mean a metric computes."""
    return getattr(metric, "_fn", None)


def copy_direction(metric: keras.metrics.Metric, of: keras.metrics.Metric) -> None:
    """Copies the direction of improvement, which EarlyStopping reads, from another metric."""
    if hasattr(of, "_direction"):
        metric._direction = of._direction


def set_direction(metric: keras.metrics.Metric, direction: str) -> None:
    """Sets whether a higher ("up") or lower ("down") metric is better, for EarlyStopping."""
    metric._direction = direction


# Variables


def deferred_variables() -> Any:
    """Returns the variables that are not initialized yet; see `weights.deferred`."""
    return global_state.get_global_attribute(_WAITING_VARIABLES) or []


def set_deferred_variables(waiting: list[keras.Variable]) -> None:
    """Replaces the list of variables that are not initialized yet."""
    global_state.set_global_attribute(_WAITING_VARIABLES, waiting)


def give_value(variable: keras.Variable, value: Any = None) -> None:
    """Initializes a deferred variable with an array, or with its own initializer if None."""
    if value is not None:
        variable._initializer = lambda shape, dtype: keras.ops.convert_to_tensor(value, dtype)
    variable._deferred_initialize()


class ReadOnce(keras.StatelessScope):
    """A scope in which variables are read and cast once, outside of the loops of a graph.

    Otherwise each iteration of a `tf.while_loop` reads every variable again and, with a policy such
    as "mixed_bfloat16", casts it again. The scope is entered in the graph around the loop. Nothing
    may be assigned to variables in it.

    Example:
        >>> from finetune_tf.base.keras_internals import ReadOnce
        >>> import tensorflow as tf
        >>> step = keras.Variable(2.0)
        >>> @tf.function
        ... def doubled():
        ...     with ReadOnce():
        ...         return tf.while_loop(lambda x: x < 9.0, lambda x: (x + step.value,), (0.0,))
        >>> float(doubled()[0])
        10.0
    """

    def __init__(self) -> None:
        import tensorflow as tf

        super().__init__()
        is_graph = not tf.executing_eagerly()
        self._outside = tf.compat.v1.get_default_graph().as_default if is_graph else nullcontext
        self._read = {}

    def get_current_value(self, variable: keras.Variable) -> Any:
        """Returns a variable in the dtype that the current layer computes in."""
        scope = get_autocast_scope()
        casts = variable._autocast and scope is not None and scope.dtype is not None
        is_float = "float" in variable._dtype
        return self._once(variable, scope.dtype if casts and is_float else variable._dtype)

    def transposed(self, variable: keras.Variable, dtype: str) -> Any:
        """Returns the transpose of a matrix, which is stored as such once."""
        return self._once(variable, dtype, transposes=True)

    def _once(self, variable: keras.Variable, dtype: str, transposes: bool = False) -> Any:
        import tensorflow as tf

        key = id(variable), dtype, transposes
        if key not in self._read:
            with self._outside():
                value = tf.cast(tf.convert_to_tensor(variable._value), dtype)
                self._read[key] = tf.transpose(value) if transposes else value
        return self._read[key]


def scope_of_reading() -> ReadOnce | None:
    """Returns the `ReadOnce` scope that is entered, or None."""
    scope = get_stateless_scope() if in_stateless_scope() else None
    return scope if isinstance(scope, ReadOnce) else None


# Random numbers


@contextmanager
def seeds_from(
    next_seed: Callable[[], Any], layers: Iterable[keras.layers.Layer]
) -> Iterator[None]:
    """Inside the block, layers in a tf.data pipeline get their seeds from a function.

    Args:
        next_seed: Returns another seed at each call, a tensor (2,).
        layers: Layers, whose inner layers are included.
    """
    with ExitStack() as stack:
        for layer in layers:
            for inner in layer._flatten_layers():
                for value in list(vars(inner).values()):
                    if isinstance(value, keras.random.SeedGenerator):
                        stack.enter_context(_replaced(vars(value), "next", lambda *_: next_seed()))
                if keras.backend.backend() != "tensorflow" and hasattr(inner, "generator"):
                    own = {"tensorflow": inner.generator}
                    stack.enter_context(_replaced(vars(inner), "_backend_generators", own))
        yield


@contextmanager
def _replaced(attributes: dict[str, Any], name: str, value: Any) -> Iterator[None]:
    """Inside the block, an attribute of an object has another value."""
    before = dict(attributes)
    attributes[name] = value
    try:
        yield
    finally:
        del attributes[name]
        if name in before:
            attributes[name] = before[name]
