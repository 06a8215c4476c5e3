"""How a command ends that is interrupted: with what there is, one line, and the usual exit code."""

import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

from typer.core import TyperGroup

from finetune_tf.base.interruption import finishing_steps, interrupt
from finetune_tf.errors import TrainingInterrupted
from finetune_tf.recipe.run_folder import FinetuneResult


class Commands(TyperGroup):
    """All commands; Ctrl-C and SIGTERM end them alike, with exit code 130 or 143."""

    def invoke(self, ctx: Any) -> Any:
        """Runs a command."""
        before = {}
        for signum, usual in (
            (signal.SIGINT, signal.default_int_handler),
            (signal.SIGTERM, signal.SIG_DFL),
        ):
            if signal.getsignal(signum) == usual:  # not where it is ignored, as behind nohup
                before[signum] = signal.signal(signum, interrupt)
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            end(stop, "Interrupted; nothing was written.")
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)


def end(stop: KeyboardInterrupt, message: str) -> NoReturn:
    """Ends the process as the shell expects of one that a signal ended.

    Args:
        stop: What the signal raised.
        message: What to say on standard error.
    """
    if isinstance(stop, TrainingInterrupted):
        signum = stop.signum
    else:
        signum = next((number for number in stop.args if isinstance(number, int)), signal.SIGINT)
    print(f"finetune-tf: {message}", file=sys.stderr)
    raise SystemExit(128 + signum)


def save(result: FinetuneResult, output: Path, overwrite: bool) -> Path:
    """Saves a run; a signal meanwhile waits until it is saved, a second one ends the process."""
    with finishing_steps() as request:
        folder = result.save(output, overwrite)
    if request.signum is not None:
        end(KeyboardInterrupt(request.signum), f"Interrupted; the whole run is in {folder}.")
    return folder


def save_interrupted(stop: TrainingInterrupted, output: Path, overwrite: bool) -> NoReturn:
    """Saves what an interrupted training has learnt, says what is there, and ends."""
    try:
        folder = stop.result.save(output, overwrite)
    except KeyboardInterrupt as again:
        end(again, "Interrupted again; nothing was saved.")
    there = ", ".join(sorted(item.name for item in folder.iterdir()))
    end(stop, f"{stop} {folder} holds {there}; there is no report.")
