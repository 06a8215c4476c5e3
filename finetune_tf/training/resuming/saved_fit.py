"""A running fit that is saved, and that continues from its newest save."""

from pathlib import Path
from typing import Any

import numpy as np

from finetune_tf.base.interruption import StopRequest
from finetune_tf.base.keras_fits import (
    RunningFit,
    batches_of_epoch,
    begin_at_epoch,
    finish_callbacks,
    give_results_of_metrics,
    history_of,
)
from finetune_tf.messages import say
from finetune_tf.training.callbacks import StopAtNonFiniteLoss
from finetune_tf.training.resuming.callback_states import CallbackStates
from finetune_tf.training.resuming.data_place import DataPlace
from finetune_tf.training.resuming.files import Stored
from finetune_tf.training.resuming.saves import Saves
from finetune_tf.training.resuming.settings import require_same, settings_of
from finetune_tf.training.resuming.state import ModelState
from finetune_tf.training.resuming.writer import Writer


class SavedFit:
    """Saves a running fit, which continues from the newest save if there is one.

    Its methods are called by two callbacks, before and after all others.

    Args:
        fit: The fit, after `on_train_begin` of all callbacks.
        callbacks: The callbacks whose state is saved.
        saves: The saves of the fit.
        every_steps: As for `Resume`.
        request: Whether Ctrl-C asks the fit to stop; None if it is not listened to.
        how: How to load weights of a save, for messages.
    """

    def __init__(
        self,
        fit: RunningFit,
        callbacks: list[Any],
        saves: Saves,
        every_steps: int | None,
        request: StopRequest | None,
        how: str,
    ) -> None:
        self._fit, self._every_steps, self._request = fit, every_steps, request
        self._saves = saves
        self._model_state = ModelState(fit.model)
        self._states = CallbackStates(callbacks, history_of(fit))
        self._place = DataPlace(fit)
        self._settings = settings_of(fit, callbacks, self._place.fingerprint())
        self._writer = Writer(saves, self._model_state, how)
        self._epoch, self._step, self._saved_step = fit.initial_epoch, 0, 0
        self._best: dict[str, Any] | None = None
        self._before_validation: tuple | None = None
        self._pending: tuple | None = None
        for callback in callbacks:
            if isinstance(callback, StopAtNonFiniteLoss):
                callback.saved = self._writer.describe_last
        found = saves.newest()
        if found is not None:
            self._restore(*found)

    def _restore(self, path: Path, state: dict[str, Any], arrays: dict[str, Any]) -> None:
        require_same(state["settings"], self._settings, self._saves.folder)
        arrays = self._model_state.with_frozen(arrays, state, self._saves.folder)
        self._writer.last, self._best = path, state["best"]
        epoch, step, epochs = state["epoch"], state["step"], self._fit.epochs
        used = step or None
        self._place.load_state_dict(state["place"], used)
        self._set(state, arrays, None)
        if state["finished"]:
            begin_at_epoch(self._fit.model, epochs)
            say(
                f"The run in {self._saves.folder} is finished after epoch {epoch}; nothing is "
                "trained."
            )
            return
        begin_at_epoch(self._fit.model, epoch)
        if used is not None:
            # Once more after `on_epoch_begin` of the others, which have seen this epoch begin.
            self._pending = state, arrays
        where = f"epoch {epoch + 1}" + (f", after step {step}" if step else "")
        say(f"The run in {self._saves.folder} continues in {where} of {epochs} epochs.")

    def _set(self, state: dict[str, Any], arrays: dict[str, Any], data: Any) -> None:
        self._model_state.load_state_dict(state["model"], arrays, data)
        values = {n.removeprefix("values/"): a for n, a in arrays.items() if n.startswith("values")}
        self._states.load_state_dict(state["states"], values)

    def begin_epoch(self, epoch: int) -> None:
        """Sets the state in the middle of the epoch, if the fit continues there."""
        begin_at_epoch(self._fit.model, None)  # a later fit begins at its own epoch
        self._epoch, self._step, self._saved_step = epoch, 0, 0
        self._place.begin_epoch(0 if self._pending is None else self._pending[0]["step"])
        if self._pending is not None:
            state, arrays = self._pending
            self._pending = None
            self._set(state, arrays, self._fit.data)
            self._step = self._saved_step = state["step"]
            if state["step"] == batches_of_epoch(self._fit.data):
                give_results_of_metrics(self._fit)

    def before_step(self, step: int) -> None:
        """Saves the state between two steps, if it is time or Ctrl-C was pressed."""
        self._step = step
        is_due = self._every_steps and step - self._saved_step >= self._every_steps
        if step and (is_due or self._is_asked_to_stop()):
            self._writer.write(self._collect(self._epoch, step))
            self._saved_step = step
        if step:
            self._stop_if_asked()

    def begin_validation(self) -> None:
        """Collects the state after the last step of an epoch, in case Ctrl-C comes."""
        self._place.watch_validation(self._fit.model)
        batches = batches_of_epoch(self._fit.data)
        self._before_validation = None
        if batches is not None and self._request is not None:
            self._before_validation = self._collect(self._epoch, batches)
        self.check_validation()

    def check_validation(self) -> None:
        """Stops an evaluation if Ctrl-C was pressed."""
        if self._is_asked_to_stop():
            if self._before_validation is not None:
                self._writer.write(self._before_validation)
            self._stop_if_asked()

    def end_epoch(self, epoch: int, logs: dict[str, Any]) -> None:
        """Saves the state between two epochs."""
        self._epoch, self._before_validation = epoch, None
        is_last = epoch + 1 >= self._fit.epochs or self._fit.model.stop_training
        self._note_best(epoch + 1, logs)
        self._writer.write(self._collect(epoch + 1, None, is_last))
        self._epoch, self._step = epoch + 1, 0
        if not is_last:
            self._stop_if_asked()

    def finish(self) -> None:
        """Waits for the last save, at the end of the fit or after an error."""
        begin_at_epoch(self._fit.model, None)
        self._writer.wait()

    def _collect(
        self, epoch: int, used: int | None, is_finished: bool = False
    ) -> tuple[tuple[int, int], dict[str, Any], dict[str, Stored]]:
        """Collects the state; what it refers to does not change any more."""
        finish_callbacks(self._fit)
        values: dict[str, Any] = {}
        model, arrays = self._model_state.state_dict(with_metrics=used is not None)
        state = {
            "epoch": epoch,
            "step": used or 0,
            "finished": is_finished,
            "settings": self._settings,
            "model": model,
            "states": self._states.state_dict(values),
            "place": self._place.state_dict(epoch, used),
            "best": self._best,
            "frozen": self._model_state.digests(),
        }
        for name, array in values.items():
            arrays[f"values/{name}"] = _copied(array)
        return (epoch, used or 0), state, arrays

    def _note_best(self, epoch: int, logs: dict[str, Any]) -> None:
        task = getattr(self._fit.model, "task", None)
        monitor, mode = getattr(task, "monitor", ("val_loss", "min"))
        if monitor not in logs:
            monitor, mode = "val_loss", "min"
        value = logs.get(monitor)
        if value is None or not np.isfinite(value):
            return
        sign = 1 if mode == "max" else -1
        if self._best is None or sign * value > sign * self._best["value"]:
            file = self._saves.path((epoch, 0)).name
            self._best = {"file": file, "monitor": monitor, "value": float(value)}

    def _is_asked_to_stop(self) -> bool:
        return self._request is not None and self._request.signum is not None

    def _stop_if_asked(self) -> None:
        if not self._is_asked_to_stop():
            return
        self._writer.wait()
        self._request.is_obeyed = True
        where = f"epoch {self._epoch + 1}" + (f", after step {self._step}" if self._step else "")
        say(
            f"Training was interrupted in {where}. {self._writer.last or 'Nothing'} is saved: "
            "start the same script again to continue."
        )
        raise KeyboardInterrupt(self._request.signum)


def _copied(array: Any) -> Stored:
    return Stored(array.shape, array.dtype.name, array.copy().view)
