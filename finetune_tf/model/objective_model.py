"""A model class whose training steps have objectives besides their loss."""

import contextlib
from typing import Any

import keras

from finetune_tf import kernels
from finetune_tf.data.encodings import targets_of
from finetune_tf.errors import ModelError
from finetune_tf.graph.taps import Taps, tapping
from finetune_tf.model.device_model import DeviceModel
from finetune_tf.tasks.feature import STARTS
from finetune_tf.training.objectives.objective import (
    Objective,
    Step,
    as_objectives,
    running,
    running_step,
)


class ObjectiveModel(DeviceModel):
    """Adds the terms of objectives to the loss of a training step; see `ft.objectives`.

    Only training steps have objectives: losses of evaluations are plain losses.
    """

    _objective_record: "_Record | None" = None
    _objective_seed: keras.random.SeedGenerator | None = None

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """The objectives that the model was compiled with."""
        return () if self._objective_record is None else self._objective_record.objectives

    def set_objectives(self, objectives: Any) -> None:
        """Replaces the objectives and checks that they fit the compiled model.

        Args:
            objectives: Objectives, or None for none.

        Raises:
            ModelError: If one of them is no objective, occurs twice, or does not fit the model.
        """
        self._objective_record = _Record(as_objectives(objectives))
        try:
            _refuse_doubles(self.objectives)
            _refuse_devices(self.objectives, self.number_of_devices)
            for objective in self.objectives:
                objective.check(self)
        except ModelError:
            self._objective_record = None
            raise
        if self._objective_seed is None and any(each.draws for each in self.objectives):
            strategy = getattr(self, "distribute_strategy", None)
            with strategy.scope() if strategy is not None else contextlib.nullcontext():
                self._objective_seed = _SeedOfDevice()

    def get_compile_config(self) -> dict:
        """Overrides the Keras hook, so that `.keras` files contain the objectives."""
        config = super().get_compile_config()
        if config and self.objectives:
            saved = [keras.saving.serialize_keras_object(each) for each in self.objectives]
            config["objectives"] = saved
        return config

    def make_train_function(self, force: bool = False) -> Any:
        """Overrides the Keras hook; objectives read what a step needs before it is traced."""
        for objective in self.objectives:
            objective.prepare(self)
        return super().make_train_function(force)

    def train_step(self, *args: Any) -> Any:
        """Overrides the Keras hook; with JAX, the state precedes the data."""
        *state, data = args
        if not self.objectives:
            return super().train_step(*state, data)
        x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
        _refuse_packed(self.objectives, x)
        step = Step(
            self,
            x,
            Taps(self),
            copies=max(objective.copies for objective in self.objectives),
            reads_outputs=any(objective.reads_outputs for objective in self.objectives),
            seed=self._objective_seed,
        )
        for objective in self.objectives:
            objective.before(step)
        data = keras.tree.map_structure(step.repeated, (x, y, weights))
        with running(step), tapping(step.taps):
            return super().train_step(*state, data)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Overrides the Keras hook: the plain loss and the terms of the objectives.

        Raises:
            ModelError: If a subclass runs something else than the graph of the model, where
                objectives have no effect.
        """
        step, targets = running_step(self), targets_of(x, y)
        if step is None or targets is None:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        if not step.taps.has_run:
            raise ModelError(
                f"The objectives {', '.join(map(repr, self.objectives))} change or read what "
                f"happens inside of the model, but {type(self).__name__} does not run its graph. "
                "Use a model from ft.load."
            )
        step.targets, step.outputs, step.weights = step.gathered(targets), y_pred, None
        if sample_weight is not None:
            weights = self._weights_per_term(sample_weight, targets, y_pred)
            step.weights = step.gathered(weights)
        rows = (targets, y_pred, sample_weight)
        share = 1.0
        for objective in self.objectives:
            rows = objective.rows(step, *rows)
            share *= objective.share
        loss = 0.0
        if share:
            targets, outputs, weights = rows
            loss = share * super().compute_loss(x, targets, outputs, weights, training)
        for objective in self.objectives:
            if (term := objective.term(step)) is not None:
                loss = loss + kernels.divided_among_devices(term)
        return loss


class _Record:
    """Holds objectives, so that Keras does not track a teacher as a part of the model."""

    def __init__(self, objectives: tuple[Objective, ...]) -> None:
        self.objectives = objectives


class _SeedOfDevice(keras.random.SeedGenerator):
    """Random numbers that differ on each device."""

    def next(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the next seed."""
        return kernels.seed_of_device(super().next(*args, **kwargs))


def _refuse_devices(objectives: tuple[Objective, ...], devices: int) -> None:
    names = [type(each).__name__ for each in objectives if not each.joins_devices]
    if names and devices > 1:
        raise ModelError(
            f"{names[0]} computes with the rows of a batch, of which each of the {devices} devices "
            "has a part only. Train on one device. An own "
            "objective that averages with step.mean, and joins rows that it compares with "
            "step.gathered, has the class attribute joins_devices = True."
        )


def _refuse_packed(objectives: tuple[Objective, ...], inputs: Any) -> None:
    if not hasattr(inputs, "keys") or STARTS not in inputs:
        return
    if names := [type(each).__name__ for each in objectives if not each.allows_packing]:
        raise ModelError(
            f"{names[0]} compares or changes rows, each of which it takes for one text, but the "
            "batches have packed rows. Make them without packing."
        )


def _refuse_doubles(objectives: tuple[Objective, ...]) -> None:
    names = [type(each).__name__ for each in objectives if not each.may_repeat]
    for name in names:
        if names.count(name) > 1:
            raise ModelError(f"{name} is among the objectives {names.count(name)} times.")
