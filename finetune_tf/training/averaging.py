"""Callbacks that average the weights of a fit, with which the model is validated and left.

While steps run, the model has the weights that are trained. At the end of each epoch, before the
validation, the averages take their place, so everything that reads weights there (the validation,
early stopping, checkpoints) sees the averages. The next epoch begins with the trained weights, to
the bit.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from finetune_tf.base.keras_internals import (
    all_layers,
    inner_optimizer,
    own_constants,
    sync_state,
)
from finetune_tf.errors import ModelError
from finetune_tf.graph.pieces import learnable_variables
from finetune_tf.messages import say


class AveragedWeights(keras.callbacks.Callback, ABC):
    """A callback with which a model has averaged weights from the end of an epoch to the next.

    Averaged are the variables that are trained at any time of the fit, and the statistics of batch
    normalization. A variable that becomes trainable during the fit enters with its value at that
    time; one that is frozen stays, since its value is still that of the model.

    A model of finetune_tf calls these callbacks before all others and adds their `Companion`. In a
    fit of another Keras model they have to come first in `callbacks`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._candidates: list[keras.Variable] = []
        self._trained: dict[int, Any] = {}  # while the model has the averages
        self._is_fitting = self._has_companion = False
        self._loaded: Mapping[str, Any] | None = None  # a state that waits for the fit

    # What subclasses define. Variables are named by their position among the candidates.

    @abstractmethod
    def _enter(self, places: list[int]) -> None:
        """Starts to average more variables, whose values are those of before the next step."""

    @abstractmethod
    def _members(self) -> list[int]:
        """Returns the variables that are averaged."""

    @abstractmethod
    def _follow_steps(self) -> None:
        """Takes the steps into account that were made since the last call."""

    @abstractmethod
    def _averages(self) -> dict[int, Any]:
        """Returns the averages at the end of an epoch; called once for each epoch."""

    @abstractmethod
    def _reset(self) -> None:
        """Forgets an earlier fit."""

    @abstractmethod
    def _state(self) -> dict[str, Any]:
        """Returns the state, besides the weights that are trained."""

    @abstractmethod
    def _restore(self, state: Mapping[str, Any]) -> None:
        """Restores the state."""

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Starts to average the variables that are trainable."""
        self._check_fit()
        constants = [v for layer in all_layers(self.model) for v in own_constants(layer)]
        learnable = learnable_variables(self.model)
        unique = {id(v): v for v in [*learnable, *constants]}
        self._candidates = [v for v in unique.values() if keras.backend.is_float_dtype(v.dtype)]
        self._learnable = {id(v) for v in learnable}
        self._trained = {}
        self._reset()
        self._is_fitting, self._has_companion = True, False
        self._say_statistics()
        self._admit()
        if self._loaded is not None:
            self.load_state_dict(self._loaded)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Returns to the weights that are trained."""
        self._assign(self._trained)
        self._trained = {}

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Takes the step before into account, unless the companion does so later."""
        if not self._has_companion:
            self.before_step()

    def before_step(self) -> None:
        """Takes the step before into account, and variables that are trained from now on."""
        self._follow_steps()
        self._admit()

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Puts the averages into the model before the validation."""
        self._use_averages()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Puts the averages into the model if there was no validation."""
        self._use_averages()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Leaves the averages in the model, and frees the memory."""
        self._is_fitting = False
        self._candidates, self._trained = [], {}
        self._reset()

    def state_dict(self) -> dict[str, Any]:
        """Returns what a resumed fit needs, besides the weights that the model has now."""
        trained = {f"trained/{i}": array_of(value) for i, value in self._trained.items()}
        return {**self._state(), **trained}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues with a state from `state_dict`.

        The model has to have the weights that it had when the state was taken.

        Args:
            state: The state, which is restored at the beginning of the fit or inside of it.
        """
        if not self._is_fitting:
            self._loaded = state
            return
        self._loaded = None
        self._reset()
        self._trained = of_prefix(state, "trained")
        self._restore(state)

    def _admit(self) -> None:
        members = set(self._members())
        entering = [
            i
            for i, variable in enumerate(self._candidates)
            if i not in members and (variable.trainable or id(variable) not in self._learnable)
        ]
        if entering:
            sync_state(self.model)
            self._enter(entering)

    def _use_averages(self) -> None:
        if self._trained or not self._is_fitting:
            return
        sync_state(self.model)
        self._follow_steps()
        self._trained = {i: ops.copy(self._candidates[i].value) for i in self._members()}
        self._assign(self._averages())

    def _assign(self, values: Mapping[int, Any]) -> None:
        for i, value in values.items():
            variable = self._candidates[i]
            # A copy, because JAX frees the arrays that a step has read.
            variable.assign(ops.copy(ops.cast(value, variable.dtype)))

    def _say_statistics(self) -> None:
        moving = [
            layer
            for layer in all_layers(self.model)
            if getattr(layer, "learns_statistics", False)
            or (isinstance(layer, keras.layers.BatchNormalization) and layer.trainable)
        ]
        if moving:
            say(
                f"{type(self).__name__} averages the moving statistics of {len(moving)} batch "
                "normalizations as well."
            )

    def _check_fit(self) -> None:
        if getattr(inner_optimizer(self.model.optimizer), "use_ema", False):
            raise ModelError(
                f"{type(self).__name__} averages the weights, and so does the optimizer, which was "
                "made with use_ema=True. Remove one of the two."
            )


class Companion(keras.callbacks.Callback):
    """Calls an `AveragedWeights` before each step, after all callbacks that set `trainable`."""

    def __init__(self, averaged: AveragedWeights) -> None:
        super().__init__()
        self._averaged = averaged

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Takes over the calls before steps."""
        self._averaged._has_companion = True

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Lets the callback take the step before into account."""
        self._averaged.before_step()


def in_order(callbacks: Sequence[Any], first: type) -> list[Any]:
    """Sorts the callbacks of a fit, such that all of them see the weights of the end of an epoch.

    Args:
        callbacks: All callbacks of the fit.
        first: The class of the callbacks that complete the last step of an epoch, which come before
            those that average weights and all that read them.

    Returns:
        The callbacks, in their order but for that.

    Raises:
        ModelError: If several of them average weights, or one would store averages as the weights
            that are trained.
    """
    averaging = [c for c in callbacks if isinstance(c, AveragedWeights)]
    if not averaging:
        return sorted(callbacks, key=lambda c: not isinstance(c, first))
    swapping = [c for c in callbacks if isinstance(c, keras.callbacks.SwapEMAWeights)]
    if len([*averaging, *swapping]) > 1:
        names = " and ".join(type(c).__name__ for c in [*averaging, *swapping])
        raise ModelError(f"One callback at most can average the weights of a fit, found {names}.")
    if any(isinstance(c, keras.callbacks.BackupAndRestore) for c in callbacks):
        raise ModelError(
            f"BackupAndRestore would store the averages of {type(averaging[0]).__name__} as the "
            "weights that are trained. Use ft.callbacks.Resume in its place."
        )
    ordered = sorted(
        callbacks, key=lambda c: 0 if isinstance(c, first) else 2 - isinstance(c, AveragedWeights)
    )
    return [*ordered, Companion(averaging[0])]


def of_prefix(state: Mapping[str, Any], prefix: str) -> dict[int, np.ndarray]:
    """Returns the arrays of a state whose keys are "prefix/number", by number."""
    found = {key.partition("/"): value for key, value in state.items() if "/" in key}
    return {int(number): value for (name, _, number), value in found.items() if name == prefix}


def array_of(value: Any) -> np.ndarray:
    """Returns a value as a NumPy array of its own."""
    return np.array(ops.convert_to_numpy(value))
