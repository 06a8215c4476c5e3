"""The progress of a fit: one line that is redrawn in a terminal, one line an epoch elsewhere."""

import os
import shutil
import sys
import time
from typing import Any, TextIO

import keras

_WIDTH = 24  # characters of the bar
_SECONDS = 0.1  # between two drawings


class Progress(keras.callbacks.Callback):
    r"""Shows the progress of a fit, with the time left of all epochs.

    In a terminal or a notebook, one line with a bar is redrawn while an epoch runs. In a file or a
    pipe, there is nothing but one line for each epoch, without control characters. Models of
    finetune_tf use it in `fit`, unless `verbose` is given.

    Args:
        stream: Where to write; by default the standard output at the time of the fit.

    Example:
        >>> import io
        >>> lines = io.StringIO()
        >>> batches = train.batches(model, batch_size=4)
        >>> history = model.fit(batches, callbacks=[ft.callbacks.Progress(lines)])
        >>> lines.getvalue()
        'epoch 1/1: 2 steps in 0:0..., accuracy ..., loss ...\n'
    """

    async_safe = True  # Keras passes the logs in another thread, so that steps do not wait

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__()
        self._given = stream
        self._validation_seconds = 0.0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Determines where to write."""
        self._stream = self._given or sys.stdout
        self._is_live = is_live(self._stream)
        self._drawn, self._drawn_at = 0, 0.0
        self._step_seconds = self._validation_seconds = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Starts the clock of the epoch."""
        self._epoch, self._done, self._first = epoch, 0, None
        self._begun, self._tested_at = time.monotonic(), None

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Redraws the line."""
        now, self._done = time.monotonic(), batch + 1
        if self._first is None:  # the first step of a fit takes longer, since it is traced
            self._first = now, self._done
        elif self._done > self._first[1]:
            self._step_seconds = (now - self._first[0]) / (self._done - self._first[1])
        if self._is_live and now - self._drawn_at >= _SECONDS:
            self._drawn_at = now
            self._draw(self._line(logs or {}))

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Starts the clock of the validation."""
        self._tested_at = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes the line of the epoch."""
        now = time.monotonic()
        if self._tested_at is not None:
            self._validation_seconds = now - self._tested_at
        epochs = self.params["epochs"]
        left = self._seconds_left(steps_left=0) if self._step_seconds else None
        steps = f"{self._done} step{'s' * (self._done != 1)} in {duration(now - self._begun)}"
        values = [f"{name} {number(value)}" for name, value in (logs or {}).items()]
        ending = [f"{duration(left)} left"] if left is not None and epoch + 1 < epochs else []
        self._draw(f"epoch {epoch + 1}/{epochs}: " + ", ".join([steps, *values, *ending]), True)

    def state_dict(self) -> dict[str, Any]:
        """Returns an empty state: nothing of an interrupted fit is shown again."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Does nothing; see `state_dict`."""

    def _seconds_left(self, steps_left: int) -> float:
        epochs_left = self.params["epochs"] - self._epoch - 1
        steps = self.params["steps"] or self._done
        of_epochs = epochs_left * (steps * self._step_seconds + self._validation_seconds)
        of_this = steps_left * self._step_seconds + (self._validation_seconds if steps_left else 0)
        return of_epochs + of_this

    def _line(self, logs: dict[str, Any]) -> str:
        steps, epochs = self.params["steps"], self.params["epochs"]
        parts = [f"epoch {self._epoch + 1}/{epochs}"]
        if steps:
            full = min(_WIDTH, _WIDTH * self._done // steps)
            parts += [f"[{'=' * full}{' ' * (_WIDTH - full)}]", f"{self._done}/{steps}"]
        else:
            parts.append(f"{self._done} steps")
        if steps and self._step_seconds:  # before the metrics, which a narrow terminal cuts off
            parts.append(f"{duration(self._seconds_left(steps - self._done))} left")
        parts += [f"{name} {number(value)}" for name, value in logs.items()]
        return "  ".join(parts)

    def _draw(self, line: str, is_last: bool = False) -> None:
        """Writes a line; a live one in the place of the line before."""
        if self._is_live:
            width = shutil.get_terminal_size().columns - 1
            line = line if is_last else line[:width]
            # Spaces, and not an escape sequence, erase what is left of a longer line.
            length, line = len(line), "\r" + line.ljust(self._drawn)
            self._drawn = 0 if is_last else length
        self._stream.write(line + "\n" * is_last)
        self._stream.flush()


def is_live(stream: TextIO) -> bool:
    """Returns whether a line can be redrawn: in a terminal, or in the output of a notebook."""
    if type(stream).__module__.startswith("ipykernel"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def duration(seconds: float) -> str:
    """Returns a time as minutes and seconds, or hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def number(value: Any) -> str:
    """Returns a loss or a metric in four digits."""
    value = float(value)
    return f"{value:.4f}" if 0.001 <= abs(value) < 1000 or value == 0 else f"{value:.3g}"
