"""Runs that are broken off at a chosen step and started again from scratch."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from finetune_tf.callbacks import Resume
from finetune_tf.training.resuming import callback as resuming


class Broken(Exception):
    """Stands for the end of a process."""


class Watch(keras.callbacks.Callback):
    """Notes what steps see, and breaks off before one of them.

    Args:
        at: The epoch and the step, counted from 0; the step "validation", "epoch end" or "end"
            stands for what follows the last step.
    """

    def __init__(self, at: tuple[int, Any] | None = None) -> None:
        super().__init__()
        self.at, self.epoch, self.steps, self.validates = at, 0, [], False

    def state_dict(self) -> dict:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict) -> None:
        self.steps = state["steps"]

    def break_at(self, place: Any) -> None:
        if self.at == (self.epoch, place):
            raise Broken

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        self.break_at(batch)

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append((batch, logs["loss"]))

    def on_test_batch_end(self, batch, logs=None):
        self.break_at("validation")

    def on_epoch_end(self, epoch, logs=None):
        self.break_at("epoch end")

    def on_train_end(self, logs=None):
        self.break_at("end")


@dataclass
class Outcome:
    """What a fit ends with."""

    history: dict
    epochs: list
    steps: list
    variables: list = field(repr=False)

    def require_same(self, other: "Outcome") -> None:
        """Compares two outcomes bit by bit."""
        assert self.steps == other.steps
        assert self.history == other.history
        assert self.epochs == other.epochs
        assert len(self.variables) == len(other.variables)
        for one, two in zip(self.variables, other.variables, strict=True):
            assert one.tobytes() == two.tobytes()


# Makes a model and the arguments of its fit, from scratch.
Make = Callable[[], tuple[keras.Model, dict[str, Any]]]


def outcome(
    make: Make, folder: Path | None = None, at: tuple | None = None, **options: Any
) -> Outcome:
    """Runs a fit as a new process would.

    Args:
        make: Makes the model, compiled, and the arguments of `fit`; "seed" sets all seeds before.
        folder: For `Resume`; None for a fit without it.
        at: As for `Watch`.
        **options: For `Resume`.
    """
    resuming._finished.clear()  # a new process has finished no fit
    keras.utils.set_random_seed(3)
    model, fit = make()
    watch = Watch(at)
    callbacks = [*fit.pop("callbacks", []), watch]
    if folder is not None:
        callbacks.insert(0, Resume(folder, **{"every_steps": 2, **options}))
    history = model.fit(**fit, callbacks=callbacks, verbose=0)
    return Outcome(
        history.history,
        history.epoch,
        watch.steps,
        [np.array(v.numpy()) for v in (*model.variables, *model.optimizer.variables)],
    )


def broken_and_resumed(make: Make, folder: Path, *places: tuple, **options: Any) -> Outcome:
    """Runs a fit that is broken off at each of the places, one after the other."""
    for at in places:
        try:
            outcome(make, folder, at, **options)
        except Broken:
            continue
        raise AssertionError(f"the fit has no {at}")
    return outcome(make, folder, **options)
