"""The callback that reports the results of a trial to Optuna."""

import time
from typing import Any

import keras


class Reports(keras.callbacks.Callback):
    """Reports the validation results of the last phase to Optuna, which may stop the trial.

    Args:
        phases: The number of phases of the trial.
        trial: The trial of Optuna; None for the default settings, which are never stopped.
        deadline: The time of `time.monotonic` after which the trial stops.
    """

    needs_whole_model = False  # it only reads the logs, so features may be cached

    def __init__(self, phases: int, trial: Any = None, deadline: float = float("inf")) -> None:
        super().__init__()
        self._phases_left, self._trial, self._deadline = phases, trial, deadline
        self.values: list[float] = []
        self.metric = ""

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Counts the phases."""
        self._phases_left -= 1

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Reports the result of an epoch.

        Raises:
            TrialPruned: If the trial is to be stopped.
        """
        self.metric = self.model.task.monitor[0]
        is_last_epoch = epoch + 1 == self.params["epochs"]
        is_last_phase = not self._phases_left
        if is_last_phase:
            self.values.append(float(logs[self.metric]))
            if self._trial is not None:
                self._trial.report(self.values[-1], len(self.values) - 1)
        if self._trial is None or (is_last_epoch and is_last_phase):
            return
        from optuna import TrialPruned

        if time.monotonic() >= self._deadline:
            raise TrialPruned("because the time was over")
        if is_last_phase and self._trial.should_prune():
            raise TrialPruned(f"with {self.metric} {self.values[-1]:.4f}")
