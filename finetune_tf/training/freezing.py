"""Freezing that always takes effect.

The truth is the variables' own `trainable` flags. Keras reads them when a train function is
traced and an optimizer is built, and afterwards ignores changes in silence; here a change
renews both and carries the optimizer's slots over.
"""

import contextlib

import keras

from finetune_tf.base.keras_internals import (
    all_layers,
    inner_optimizer,
    moving_averages,
    optimized_variables,
    own_variables,
    set_compiled_optimizer,
    set_rate,
    set_trainable_flag,
    sublayers,
    sync_state,
)
from finetune_tf.base.spelling import names_checked
from finetune_tf.errors import ModelError
from finetune_tf.graph.pieces import learnable_variables
from finetune_tf.graph.stages import require_model
from finetune_tf.messages import say, warn
from finetune_tf.training.compiling import check_rate
from finetune_tf.training.gradients import give_whole_gradients
from finetune_tf.training.schedules import schedule_of
from finetune_tf.training.select import Selector


@names_checked
def freeze(model: keras.Model, selector: Selector) -> None:
    """Stops the selected variables from learning; the others stay as they are.

    Says how many parameters still train. Works before and after `compile` and between fits,
    and on any built Keras model. A layer that is frozen whole is frozen as a layer, so that a
    BatchNormalization keeps its statistics.

    Args:
        model: A built model.
        selector: What to freeze.

    Raises:
        ModelError: If the selector matches nothing, or is none.
    """
    chosen = _chosen(model, selector)
    apply_frozen(model, {id(v) for v in learnable_variables(model) if not v.trainable} | chosen)
    _say_what_learns(model)


@names_checked
def train_only(model: keras.Model, selector: Selector) -> None:
    """Lets the selected variables learn and freezes all others.

    Args:
        model: A built model.
        selector: What learns; `ft.select.everything()` unfreezes the model.

    Raises:
        ModelError: If the selector matches nothing, or is none.
    """
    chosen = _chosen(model, selector)
    apply_frozen(model, {id(v) for v in learnable_variables(model)} - chosen)
    _say_what_learns(model)


def _chosen(model: keras.Model, selector: Selector) -> set[int]:
    require_model(model)
    if not isinstance(selector, Selector):
        name = getattr(selector, "__name__", None)
        found = f"{name} without its ()" if name else repr(selector)
        raise ModelError(
            f"What to choose is said by a selector such as ft.select.head(), found {found}."
        )
    return {id(variable) for variable in selector(model)}


@names_checked
def count_parameters(model: keras.Model) -> tuple[int, int]:
    """How many parameters learn, and how many there are that could or could not."""
    require_model(model)
    return _size(model.trainable_variables), _size(model.weights)


def apply_frozen(model: keras.Model, frozen: set[int]) -> None:
    """Freezes exactly the variables with these ids and renews what depends on it."""
    sync_state(model)  # of a running fit, while the flags are those that it started with
    _set_flags(model, frozen)
    renew_training(model)


def follow_flags(model: keras.Model) -> None:
    """Has a running fit follow the flags of its variables, and says what learns now."""
    if renew_training(model):
        _say_what_learns(model)
    if hasattr(model, "info"):  # of others, nobody knows what is pretrained
        check_rate(model, model.optimizer)  # what was right for the head may ruin what it wakes


def renew_training(model: keras.Model) -> bool:
    """Fits optimizer and train function to what learns now; returns whether it had to.

    A no-op on models that are not compiled, or whose optimizer knows the same variables.
    """
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None or not optimizer.built:
        model.train_function = None  # traced for other variables, if it was traced at all
        return False
    known = optimized_variables(optimizer)
    if [id(v) for v in known] == [id(v) for v in model.trainable_variables]:
        return False
    with _strategy_scope(model):
        renewed = type(optimizer).from_config(optimizer.get_config())
        renewed.build(model.trainable_variables)
    if "apply" in optimizer.__dict__:
        give_whole_gradients(renewed)
    slots = {variable.path: variable for variable in optimizer.variables}
    for variable in renewed.variables:
        if variable.path in slots:
            variable.assign(slots[variable.path])
    _start_averages(renewed, slots)
    schedule = schedule_of(optimizer)
    if schedule is not None:
        schedule.resolve(model)
        schedule.follow(renewed)
        set_rate(renewed, schedule)  # the same object, because it knows the running fit
    set_compiled_optimizer(model, renewed)
    if model.train_function is not None:
        model.make_train_function(force=True)  # at once: a fit may be running
    return True


def _start_averages(optimizer: keras.optimizers.Optimizer, slots: dict) -> None:
    """Running averages of weights that begin to learn start at the weights, and not at 0."""
    optimizer = inner_optimizer(optimizer)
    if optimizer.use_ema:
        averages = moving_averages(optimizer)
        for variable, average in zip(optimized_variables(optimizer), averages, strict=True):
            if average.path not in slots:
                average.assign(variable)


def build_optimizer(model: keras.Model) -> None:
    """Makes the optimizer's variables, unless there are some.

    Left to the first step, as Keras does, they have TensorFlow trace that a second time.
    """
    if not model.optimizer.built:
        with _strategy_scope(model):
            model.optimizer.build(model.trainable_variables)


def _strategy_scope(model: keras.Model) -> contextlib.AbstractContextManager:
    """Where new variables go to the devices that the model was made for."""
    strategy = getattr(model, "distribute_strategy", None)  # TensorFlow has it, JAX does not
    return strategy.scope() if strategy is not None else contextlib.nullcontext()


def _set_flags(layer: keras.layers.Layer, frozen: set[int], inside_frozen: bool = False) -> None:
    learnable = learnable_variables(layer)
    all_frozen = bool(learnable) and all(id(variable) in frozen for variable in learnable)
    # Said to every layer and variable by itself: under TensorFlow, setting a layer to what it
    # says already does not reach the layers inside.
    layer.trainable = not (inside_frozen or all_frozen)
    for child in sublayers(layer):
        _set_flags(child, frozen, not layer.trainable)
    for variable in own_variables(layer):
        variable.trainable = id(variable) not in frozen


def set_trainable(layer: keras.layers.Layer, value: bool) -> None:
    """`layer.trainable = value` for the layer and everything in it.

    Under TensorFlow, Keras's own way stops at the first layer that says so already, whatever the
    layers inside of it say.
    """
    for part in all_layers(layer):
        set_trainable_flag(part, value)
        for variable in own_variables(part):
            variable.trainable = bool(value)


def _say_what_learns(model: keras.Model) -> None:
    learning, total = count_parameters(model)
    say(f"{learning:,} of {total:,} parameters train.")
    if not learning:
        warn(
            f"Nothing in {model.name!r} is left to train; a fit would change nothing.",
        )


def _size(variables: list[keras.Variable]) -> int:
    return sum(int(keras.ops.size(variable)) for variable in variables)
