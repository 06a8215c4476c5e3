"""Handling of Ctrl-C during a fit: the current step finishes and the weights are kept."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn

import keras

from finetune_tf.base.keras_internals import sync_state


@dataclass
class Progress:
    """The progress of training.

    Attributes:
        phase: The current phase, counted from 1.
        epoch: The current epoch, counted from 1.
        step: The number of finished steps in this epoch.
        steps: The number of finished steps in total.

    Example:
        >>> from finetune_tf.base.interruption import Progress
        >>> print(Progress(phase=2, epoch=1, step=30, steps=130))
        phase 2, epoch 1, step 30
    """

    phase: int = 0
    epoch: int = 0
    step: int = 0
    steps: int = 0

    def __str__(self) -> str:
        where = f"epoch {self.epoch}, step {self.step}"
        return where if self.phase == 1 else f"phase {self.phase}, {where}"


@dataclass
class StopRequest:
    """Whether a signal requested that training stops.

    Attributes:
        signum: The number of the signal; None if there was none.
        is_obeyed: Whether training stopped because of it.
    """

    signum: int | None = None
    is_obeyed: bool = False


class StopWhenAsked(keras.callbacks.Callback):
    """Counts the steps of a fit, and stops it after the step in which a signal arrived.

    Args:
        request: The request that `finishing_steps` yields.
        progress: The counters to update.
        stops: False if another callback stops the fit, which is counted only.
    """

    def __init__(self, request: StopRequest, progress: Progress, stops: bool = True) -> None:
        super().__init__()
        self._request, self._progress, self._stops = request, progress, stops

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Records the epoch."""
        self._progress.epoch, self._progress.step = epoch + 1, 0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Records the step, and stops the fit if requested."""
        done = batch + 1
        self._progress.steps += done - self._progress.step
        self._progress.step = done
        self._stop_if_asked()

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Stops the validation if requested."""
        self._stop_if_asked()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Stops the fit if requested, after the callbacks before this one."""
        self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        if self._request.signum is None or not self._stops:
            return
        self._request.is_obeyed = True
        sync_state(self.model)
        raise KeyboardInterrupt(self._request.signum)


def interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    """Raises KeyboardInterrupt with the signal number; the command line's signal handler."""
    raise KeyboardInterrupt(signum)


@contextlib.contextmanager
def finishing_steps() -> Iterator[StopRequest]:
    """Turns the first signal into a request to stop; a second one has its usual effect at once.

    This replaces the handlers that raise KeyboardInterrupt: that of SIGINT, and on the command line
    that of SIGTERM as well. Custom handlers of the user stay. Outside of the main thread nothing
    changes, because Python delivers signals to the main thread only.

    Yields:
        The request, whose `signum` is set when a signal arrives.
    """
    request = StopRequest()
    handlers = {
        signum: handler
        for signum in (signal.SIGINT, signal.SIGTERM)
        if (handler := signal.getsignal(signum)) in (signal.default_int_handler, interrupt)
    }
    if threading.current_thread() is not threading.main_thread():
        handlers = {}

    def ask(signum: int, frame: FrameType | None) -> None:
        request.signum = signum
        for each, handler in handlers.items():
            # A Python handler runs after the current step; the system's ends the process at once.
            signal.signal(each, signal.SIG_DFL if handler is interrupt else handler)
        if handlers[signum] is interrupt:
            # Not print(), which is not reentrant: the signal may have interrupted another print.
            os.write(2, b"\nStopping once results are saved; press Ctrl-C again to stop at once.\n")

    for signum in handlers:
        signal.signal(signum, ask)
    try:
        yield request
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
