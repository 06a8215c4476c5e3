"""Freezing and unfreezing that takes effect at any time.

The `trainable` flags of the variables define what is trained. Keras reads them when the optimizer
is built and the training step is traced, and silently ignores later changes. Here, a change
rebuilds both and keeps the slot variables of the optimizer.
"""

import contextlib

import keras

from finetune_tf.base.keras_internals import (
    all_layers,
    inner_optimizer,
    keep_exclusions,
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
from finetune_tf.training.gradients import give_whole_gradients, leaves, observe, observer_of
from finetune_tf.training.optimizers import AdamW
from finetune_tf.training.rates import resolve_groups
from finetune_tf.training.schedules import schedule_of
from finetune_tf.training.select import Selector


@names_checked
def freeze(model: keras.Model, selector: Selector) -> None:
    """Freezes the selected variables; all other variables keep their state.

    Prints how many parameters are still trainable. Works with any built Keras model, before and
    after `compile` and between fits. If all variables of a layer are frozen, the layer itself is
    frozen too, so that a BatchNormalization no longer updates its statistics.

    Args:
        model: A built model.
        selector: The variables to freeze.

    Raises:
        ModelError: If the selector matches nothing, or is not a selector.

    Example:
        >>> ft.freeze(model, ft.select.embeddings() | ft.select.bottom(1))
        >>> [s.name for s in ft.stages(model) if all(v.trainable for v in s.variables)]
        ['block_1', 'pooler', 'classifier']
    """
    selected = selected_ids(model, selector)
    apply_frozen(model, {id(v) for v in learnable_variables(model) if not v.trainable} | selected)
    report_trainable(model)


@names_checked
def train_only(model: keras.Model, selector: Selector) -> None:
    """Makes the selected variables trainable and freezes all others.

    Args:
        model: A built model.
        selector: The variables to train; `ft.select.everything()` unfreezes the whole model.

    Raises:
        ModelError: If the selector matches nothing, or is not a selector.

    Example:
        >>> ft.train_only(model, ft.select.head())
        >>> [variable.path for variable in model.trainable_variables]
        ['classifier/dense/kernel', 'classifier/dense/bias']
    """
    selected = selected_ids(model, selector)
    apply_frozen(model, {id(v) for v in learnable_variables(model)} - selected)
    report_trainable(model)


def selected_ids(model: keras.Model, selector: Selector) -> set[int]:
    """Returns the ids of the variables that a selector selects.

    Raises:
        ModelError: If the selector matches nothing, or is not a selector.
    """
    require_model(model)
    if not isinstance(selector, Selector):
        name = getattr(selector, "__name__", None)
        found = f"{name} without its ()" if name else repr(selector)
        raise ModelError(f"Expected a selector such as ft.select.head(), found {found}.")
    return {id(variable) for variable in selector(model)}


@names_checked
def count_parameters(model: keras.Model) -> tuple[int, int]:
    """Counts the trainable parameters and all parameters of a model.

    Args:
        model: A built model.

    Returns:
        The number of trainable parameters and the number of all parameters.

    Example:
        >>> ft.train_only(model, ft.select.head())
        >>> trainable, total = ft.count_parameters(model)
        >>> trainable < total
        True
    """
    require_model(model)
    return _count_values(model.trainable_variables), _count_values(model.weights)


def apply_frozen(model: keras.Model, frozen: set[int]) -> None:
    """Freezes exactly the variables with these ids; rebuilds the optimizer and training step."""
    sync_state(model)  # while the flags are still those that a running fit started with
    set_flags(model, frozen)
    renew_training(model)


def follow_flags(model: keras.Model) -> None:
    """Applies changed `trainable` flags to a running fit and reports the trainable parameters."""
    if renew_training(model):
        report_trainable(model)
    if hasattr(model, "info"):  # for other models, it is unknown which variables are pretrained
        # A rate that suits a new head may be too high for layers that are unfrozen now.
        check_rate(model, model.optimizer)


def renew_training(model: keras.Model) -> bool:
    """Rebuilds the optimizer and the training step if the trainable variables have changed.

    Returns:
        Whether they were rebuilt. Nothing is done if the model is not compiled or its optimizer
        has the same variables already.

    Raises:
        ModelError: If the optimizer has trained another model.
    """
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None or not optimizer.built:
        if model.train_function is not None:  # if it was traced, then for other variables
            model.make_train_function(force=True)  # immediately, because a fit may be running
        return False
    known = optimized_variables(optimizer)
    if [id(v) for v in known] == [id(v) for v in model.trainable_variables]:
        return False
    _refuse_of_other_model(model, known)
    with strategy_scope(model):
        renewed = type(optimizer).from_config(optimizer.get_config())
        keep_exclusions(renewed, optimizer)
        resolve_groups(renewed, model)
        renewed.build(model.trainable_variables)
    if "apply" in optimizer.__dict__:
        give_whole_gradients(renewed)
    observe(renewed, observer_of(optimizer))
    slots = {variable.path: variable for variable in optimizer.variables}
    for variable in renewed.variables:
        if variable.path in slots and variable.shape == slots[variable.path].shape:
            variable.assign(slots[variable.path])
    _continue_steps(renewed, optimizer)
    _initialize_averages(renewed, slots)
    schedule = schedule_of(optimizer)
    if schedule is not None:
        schedule.resolve(model)
        schedule.follow(renewed)
        set_rate(renewed, schedule)  # the same object, because it is bound to the running fit
    set_compiled_optimizer(model, renewed)
    if model.train_function is not None:
        model.make_train_function(force=True)  # immediately, because a fit may be running
    return True


def _refuse_of_other_model(model: keras.Model, optimized: list[keras.Variable]) -> None:
    """Refuses an optimizer whose moments and steps are those of another model of the same paths."""
    own = {id(v) for v in learnable_variables(getattr(model, "whole", model))}
    if optimized and not any(id(variable) in own for variable in optimized):
        raise ModelError(
            "The optimizer has trained another model, whose moments and steps it would continue "
            "here. Make a new one for each model: call the preset again, "
            "model.compile(**ft.presets.cross_entropy()), or create the optimizer anew."
        )


def _continue_steps(optimizer: keras.optimizers.Optimizer, old: keras.optimizers.Optimizer) -> None:
    """Tells each AdamW at which step the training of its newly trainable variables starts."""
    earlier = [leaf for leaf in leaves(old) if isinstance(leaf, AdamW)]
    for leaf in leaves(optimizer):
        if isinstance(leaf, AdamW):
            leaf.continue_from(earlier)


def _initialize_averages(optimizer: keras.optimizers.Optimizer, slots: dict) -> None:
    """Initializes moving averages (EMA) of newly trainable weights with the weights, not with 0."""
    optimizer = inner_optimizer(optimizer)
    if optimizer.use_ema:
        averages = moving_averages(optimizer)
        for variable, average in zip(optimized_variables(optimizer), averages, strict=True):
            if average.path not in slots:
                average.assign(variable)


def build_optimizer(model: keras.Model) -> None:
    """Creates the variables of the optimizer unless they exist.

    Keras creates them in the first step, which makes TensorFlow trace the step twice.
    """
    if not model.optimizer.built:
        resolve_groups(model.optimizer, model)
        with strategy_scope(model):
            model.optimizer.build(model.trainable_variables)


def strategy_scope(model: keras.Model) -> contextlib.AbstractContextManager:
    """Returns the scope that places new variables on the devices of the model."""
    strategy = getattr(model, "distribute_strategy", None)  # TensorFlow has it, JAX does not
    return strategy.scope() if strategy is not None else contextlib.nullcontext()


def set_flags(layer: keras.layers.Layer, frozen: set[int], inside_frozen: bool = False) -> None:
    """Sets the `trainable` flags of a layer such that exactly the variables with these ids are
    frozen; a fit follows with `renew_training`.
    """
    learnable = learnable_variables(layer)
    all_frozen = bool(learnable) and all(id(variable) in frozen for variable in learnable)
    # Set on every layer and variable: with TensorFlow, Keras does not pass a flag on to sublayers
    # if the layer already has that value.
    layer.trainable = not (inside_frozen or all_frozen)
    for child in sublayers(layer):
        set_flags(child, frozen, not layer.trainable)
    for variable in own_variables(layer):
        variable.trainable = id(variable) not in frozen


def set_trainable(layer: keras.layers.Layer, value: bool) -> None:
    """Sets `trainable` of a layer and of all its sublayers and variables.

    With TensorFlow, Keras's own setter stops at a layer that already has the value, even if its
    sublayers have another one.
    """
    for part in all_layers(layer):
        set_trainable_flag(part, value)
        for variable in own_variables(part):
            variable.trainable = bool(value)


def report_trainable(model: keras.Model) -> None:
    """Prints how many parameters are trainable, and warns if none is."""
    trainable, total = count_parameters(model)
    say(f"{trainable:,} of {total:,} parameters are trainable.")
    if not trainable:
        warn(
            f"{model.name!r} has no trainable variables left; a fit would not change it.",
        )


def _count_values(variables: list[keras.Variable]) -> int:
    return sum(int(keras.ops.size(variable)) for variable in variables)
