"""Access to private attributes of Keras, in one place.

Keras may rename these attributes in any release. No other module of the library uses them, so only
this module has to change for a new version of Keras. `tests/package/test_keras_internals.py` tests
every function with the installed version.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial, wraps
from typing import Any

import keras

# Under JAX, Keras delays the initialization of variables that are created in a StatelessScope until
# the scope ends. It stores them in a global list, which these functions use as well.
from keras.src.backend.common import global_state
from keras.src.backend.common.masking import get_keras_mask, set_keras_mask
from keras.src.backend.common.stateless_scope import get_stateless_scope, in_stateless_scope
from keras.src.backend.common.variables import AutocastScope, get_autocast_scope
from keras.src.losses import loss as keras_losses
from keras.src.utils import rng_utils
from keras.src.utils.tracking import DotNotTrackScope

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


def keep_exclusions(renewed: Any, optimizer: Any) -> None:
    """Excludes from weight decay what `exclude_from_weight_decay` excluded from another optimizer.

    The config of an optimizer does not have it.

    Args:
        renewed: A new optimizer from the config of the other one, which is not built yet.
        optimizer: The other one.
    """
    for name in ("_exclude_from_weight_decay", "_exclude_from_weight_decay_pattern"):
        if hasattr(optimizer, name):
            setattr(renewed, name, getattr(optimizer, name))
    inner, others = wrapped_optimizers(renewed), wrapped_optimizers(optimizer)
    if len(inner) == len(others):  # an optimizer that a map names twice has become two
        for each, other in zip(inner, others, strict=True):
            keep_exclusions(each, other)


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


def carry(optimizer: Any, variables: Iterable[keras.Variable]) -> None:
    """Makes JAX pass variables to each training step, together with those of an optimizer.

    All other variables that a step reads are compiled into it as constants. Files are written and
    read without the carried variables, as on TensorFlow, which needs none of this.
    """
    if keras.backend.backend() != "jax":
        return
    inner = inner_optimizer(optimizer)
    known = {id(variable) for variable in inner.variables}
    carried = list(variables)
    for variable in carried:
        if id(variable) not in known:
            inner._track_variable(variable)
    for each in {id(inner): inner, id(optimizer): optimizer}.values():
        for name in ("save_own_variables", "load_own_variables"):
            method = partial(_without_carried, each, name, {id(v) for v in carried})
            setattr(each, name, method)  # of this object alone


def _without_carried(optimizer: Any, method: str, carried: set[int], store: Any) -> None:
    _, variables = inner_optimizer(optimizer)._tracker.config["variables"]  # the list itself
    with_carried = list(variables)
    variables[:] = [variable for variable in variables if id(variable) not in carried]
    try:
        getattr(type(optimizer), method)(optimizer, store)
    finally:
        variables[:] = with_carried


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


def set_loss_tracker(model: keras.Model, tracker: keras.metrics.Metric) -> None:
    """Replaces the metric to which steps of a compiled model give the loss of each batch."""
    with DotNotTrackScope():  # else it would be among the metrics of the model twice
        model._loss_tracker = tracker


def sync_state(model: keras.Model) -> None:
    """Copies the state of a running JAX fit to the model's variables.

    Does nothing on other backends, and inside a step that is traced.
    """
    if hasattr(model, "jax_state_sync") and not in_stateless_scope():
        model.jax_state_sync()


def keep_global_arrays() -> None:
    """Makes Keras on JAX leave batches as they are that are arrays of several processes already.

    Keras takes a batch for the part of one process, and would put the parts together once more.
    """
    from keras.src.backend.jax import distribution_lib

    usual = distribution_lib.distribute_data_input
    if hasattr(usual, "__wrapped__"):
        return

    @wraps(usual)
    def distribute(batch: Any, *args: Any, **kwargs: Any) -> Any:
        is_global = not getattr(batch, "is_fully_addressable", True)
        return batch if is_global else usual(batch, *args, **kwargs)

    distribution_lib.distribute_data_input = distribute


def layers_with_added_losses(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Returns the layers inside a layer that called `add_loss` when it was last called."""
    return [inner for inner in all_layers(layer) if inner._losses]


@contextmanager
def undivided_losses() -> Iterator[None]:
    """Inside the block, Keras does not divide losses by the number of devices of a strategy.

    Keras divides means, but neither sums nor functions that return a single number. Each device
    runs its step in a thread of its own, so the block is one of its thread.
    """
    if keras_losses.scale_loss_for_distribution is not _scaled_loss:
        _SCALE.append(keras_losses.scale_loss_for_distribution)
        keras_losses.scale_loss_for_distribution = _scaled_loss
    token = _UNDIVIDED.set(True)
    try:
        yield
    finally:
        _UNDIVIDED.reset(token)


_UNDIVIDED: ContextVar[bool] = ContextVar("finetune_tf_undivided_losses", default=False)
_SCALE: list[Callable[[Any], Any]] = []  # the function of Keras, once it is replaced


def _scaled_loss(loss: Any) -> Any:
    return loss if _UNDIVIDED.get() else _SCALE[-1](loss)


@contextmanager
def state_kept(model: keras.Model) -> Iterator[None]:
    """Gives a model its values back if Keras fails inside the block; does nothing elsewhere.

    While Keras runs steps on JAX, the variables are empty, and steps hand their values on. Keras
    itself gives them back when it has finished, and after an error in a fit, except in its first
    step. Otherwise, an error in `evaluate` or `predict` would leave a model without weights, and
    one in a method on one batch would let older weights replace newer ones.

    Args:
        model: The model whose `fit`, `evaluate`, `predict` or method on one batch the block calls.
    """
    if not hasattr(model, "jax_state_sync"):
        yield
        return
    model.jax_state_sync()
    model._jax_state = None  # that of an earlier call
    variables = [*model.trainable_variables, *model.non_trainable_variables]
    variables += [
        *model.metrics_variables,
        *getattr(getattr(model, "optimizer", None), "variables", ()),
    ]
    before = [(variable, variable._value) for variable in variables]
    try:
        yield
    except BaseException:
        model.jax_state_sync()
        model._jax_state, model._jax_state_synced = None, True
        for variable, value in before:
            # A step that was begun has freed the values that it got.
            if variable._value is None and value is not None and not value.is_deleted():
                variable._value = value
        raise


def is_stateless() -> bool:
    """Returns whether a step of JAX is traced, in which variables stand for its arguments."""
    return in_stateless_scope()


def random_seed() -> int | None:
    """Returns the last seed of `keras.utils.set_random_seed`, or None if there was none."""
    return rng_utils.get_random_seed()


# Losses and metrics


def mask_of(outputs: Any) -> Any:
    """Returns the mask of a tensor that `set_mask` or a layer of Keras has set, or None."""
    return get_keras_mask(outputs)


def set_mask(outputs: Any, mask: Any) -> None:
    """Sets which losses of a tensor of outputs count.

    Losses of Keras leave out the others, whatever their reduction. Metrics of Keras do not read the
    mask; `training.metrics.OnLogits` does.

    Args:
        outputs: A tensor (rows, …, outputs), which is changed.
        mask: Booleans in the shape of the losses of the rows, (rows, …).
    """
    set_keras_mask(outputs, mask)


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


def placement_of(variable: keras.Variable) -> Any:
    """Returns where the values of a variable of JAX are placed; None without a placement."""
    return getattr(variable, "_layout", None)


def give_placement(variable: keras.Variable, placement: Any) -> None:
    """Moves a variable of JAX to a placement, a `jax.sharding.Sharding`, where it will stay."""
    variable._layout = placement
    variable.assign(variable.value)


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
