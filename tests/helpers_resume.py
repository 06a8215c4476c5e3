"""Runs that are broken off at a chosen step and started again from scratch."""

import collections
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from helpers_models import small_model, token_batch

import finetune_tf as ft
from finetune_tf import select
from finetune_tf.callbacks import Resume
from finetune_tf.training import AdamW
from finetune_tf.training.resuming import callback as resuming

TOKENS, ANSWERS = token_batch(20)
VALIDATION = TOKENS[:8], ANSWERS[:8]


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
        [np.array(v.value) for v in (*model.variables, *model.optimizer.variables)],
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


def preset(**options):
    return ft.presets.cross_entropy(**{"learning_rate": 1e-2, **options})


def on_arrays(compiled=None, prepare=None, **fit):
    """Makes a small model that is fitted on arrays."""
    model = small_model()
    with ft.messages.quiet():
        if prepare is not None:
            prepare(model)
        model.compile(**(compiled or preset()))
    arrays = {"x": TOKENS, "y": ANSWERS, "batch_size": 4, "epochs": 3, "shuffle": False}
    return model, arrays | {"validation_data": VALIDATION} | fit


class UnfreezeLater(keras.callbacks.Callback):
    """Unfreezes the upper block in the second epoch, and counts the epochs that it has seen."""

    seen = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.seen += 1
        if epoch == 1:
            self.model.get_layer("block_1").trainable = True


class Noise(keras.callbacks.Callback):
    """Moves a weight at random after each step, by all kinds of generators."""

    def __init__(self):
        super().__init__()
        self.own, self.last = np.random.default_rng(5), collections.deque([0.0], maxlen=3)

    def on_train_batch_end(self, batch, logs=None):
        kernel = self.model.get_layer("block_0").kernel
        self.last.append(float(self.own.normal()) + float(np.random.normal()))
        drawn = keras.random.uniform(kernel.shape)
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            drawn += tf.random.uniform(kernel.shape)
        else:
            self.model.jax_state_sync()
        kernel.assign_add(1e-3 * drawn * sum(self.last))


def early_stopping(**options):
    return keras.callbacks.EarlyStopping("val_loss", restore_best_weights=True, **options)


def plateau():
    return keras.callbacks.ReduceLROnPlateau("loss", patience=1, min_delta=10.0, verbose=0)


#: Fits of a small model, made from scratch by each call.
CASES: dict[str, Make] = {
    "plain": lambda: on_arrays(),
    "shuffled arrays": lambda: on_arrays(shuffle=True),
    "validation split": lambda: on_arrays(validation_data=None, validation_split=0.2),
    "without validation": lambda: on_arrays(validation_data=None),
    "accumulation": lambda: on_arrays(preset(accumulate=3)),
    "averages": lambda: on_arrays({"optimizer": AdamW(1e-2, use_ema=True, ema_momentum=0.9)}),
    "loss scale": lambda: on_arrays(
        {
            "optimizer": keras.optimizers.LossScaleOptimizer(
                keras.optimizers.Adam(1e-2), initial_scale=8.0, dynamic_growth_steps=3
            )
        }
    ),
    "early stopping": lambda: on_arrays(
        callbacks=[early_stopping(patience=1, min_delta=0.5)], epochs=6
    ),
    "best weights": lambda: on_arrays(callbacks=[early_stopping(patience=2, min_delta=1e-4)]),
    "plateau": lambda: on_arrays(callbacks=[plateau()], epochs=4),
    "rates of epochs": lambda: on_arrays(
        callbacks=[keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5)]
    ),
    "unfreezing": lambda: on_arrays(
        prepare=lambda model: ft.train_only(model, select.head()), callbacks=[UnfreezeLater()]
    ),
    "head": lambda: on_arrays(prepare=lambda model: ft.train_only(model, select.head())),
    "random callback": lambda: on_arrays(callbacks=[Noise()]),
    "class weights": lambda: on_arrays(class_weight={"no": 2.0}),
    "three steps at once": lambda: on_arrays(preset() | {"steps_per_execution": 3}),
    "sgd": lambda: on_arrays(preset(optimizer="sgd")),
}
