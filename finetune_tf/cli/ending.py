"""The end of an interrupted command: save the results, print one line, set the exit code."""

import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

from typer.core import TyperGroup

from finetune_tf.base.interruption import finishing_steps, interrupt
from finetune_tf.errors import TrainingInterrupted
from finetune_tf.recipe.run_folder import FinetuneResult


class Commands(TyperGroup):
    """The group of all commands, which Ctrl-C and SIGTERM end with exit code 130 or 143."""

    def invoke(self, ctx: Any) -> Any:
        """Runs a command."""
        before = {}
        for signum, usual in (
            (signal.SIGINT, signal.default_int_handler),
            (signal.SIGTERM, signal.SIG_DFL),
        ):
            if signal.getsignal(signum) == usual:  # under nohup, for example, it is ignored
                before[signum] = signal.signal(signum, interrupt)
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            end(stop, "Interrupted; nothing was written.")
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)


def end(stop: KeyboardInterrupt, message: str) -> NoReturn:
    """Ends the process with the exit code that shells expect after a signal: 128 + signal.

    Args:
        stop: The exception that the signal raised.
        message: The line to print on standard error.
    """
    if isinstance(stop, TrainingInterrupted):
        signum = stop.signum
    else:
        signum = next((number for number in stop.args if isinstance(number, int)), signal.SIGINT)
    print(f"finetune-tf: {message}", file=sys.stderr)
    raise SystemExit(128 + signum)


def save(result: FinetuneResult, output: Path, overwrite: bool) -> Path:
    """Saves a run. A signal takes effect after the save; a second one ends the process at once."""
    with finishing_steps() as request:
        folder = result.save(output, overwrite)
    if request.signum is not None:
        end(KeyboardInterrupt(request.signum), f"Interrupted; the complete run is in {folder}.")
    return folder


def save_interrupted(stop: TrainingInterrupted, output: Path, overwrite: bool) -> NoReturn:
    """Saves the result of an interrupted training, prints what was saved, and ends the process."""
    try:
        folder = stop.result.save(output, overwrite)
    except KeyboardInterrupt as again:
        end(again, "Interrupted again; nothing was saved.")
    saved = ", ".join(sorted(item.name for item in folder.iterdir()))
    end(stop, f"{stop} {folder} contains {saved}; there is no report.")
