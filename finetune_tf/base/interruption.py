"""Ctrl-C during a fit: the step is finished, and what was learnt so far is kept."""

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
    """How far training came.

    Attributes:
        phase: The phase that runs, from 1 on.
        epoch: The epoch that runs, from 1 on.
        step: How many steps of it are done.
        steps: How many steps are done in all.
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
    """Whether a signal asked for the end.

    Attributes:
        signum: The signal, or None as long as there was none.
        is_obeyed: Whether training stopped for it.
    """

    signum: int | None = None
    is_obeyed: bool = False


class StopWhenAsked(keras.callbacks.Callback):
    """Counts the steps of a fit, and ends it behind the step in which it was asked to.

    Args:
        request: Of `finishing_steps`.
        progress: Where to count.
    """

    def __init__(self, request: StopRequest, progress: Progress) -> None:
        super().__init__()
        self._request, self._progress = request, progress

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Notes the epoch."""
        self._progress.epoch, self._progress.step = epoch + 1, 0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Notes the step, and ends the fit if that was asked for."""
        done = batch + 1
        self._progress.steps += done - self._progress.step
        self._progress.step = done
        self._stop_if_asked()

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Ends the validation if that was asked for."""
        self._stop_if_asked()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Ends the fit if that was asked for; callbacks before this one have seen the epoch."""
        self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        if self._request.signum is None:
            return
        self._request.is_obeyed = True
        sync_state(self.model)
        raise KeyboardInterrupt(self._request.signum)


def interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    """The signal handler of the command line: ends what runs, so that it can be told and saved."""
    raise KeyboardInterrupt(signum)


@contextlib.contextmanager
def finishing_steps() -> Iterator[StopRequest]:
    """Lets a signal ask for the end, and a second one end the process or the call at once.

    Takes over the signals that would raise KeyboardInterrupt: SIGINT, and SIGTERM where the
    command line asked for that. Handlers of the user's own stay; so does everything in other
    threads than the main one, where Python delivers no signals.
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
            # Python's handlers wait for the end of a step; the system's ends the process at once.
            signal.signal(each, signal.SIG_DFL if handler is interrupt else handler)
        if handlers[signum] is interrupt:
            # Not print: what is interrupted may be another print.
            os.write(2, b"\nStopping as soon as results are safe; a second Ctrl-C ends at once.\n")

    for signum in handlers:
        signal.signal(signum, ask)
    try:
        yield request
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
