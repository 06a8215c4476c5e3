"""What a run gives, and its folder: written whole or not at all, never over another unasked."""

import contextlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_tf.base.files import unfinished_folder, write_text
from finetune_tf.base.json_files import read_json
from finetune_tf.base.paths import absolute, has_file
from finetune_tf.errors import CheckpointError, MissingExtraError
from finetune_tf.evaluation import Report
from finetune_tf.evaluation.curves import plot_history
from finetune_tf.messages import say
from finetune_tf.model.finetune_model import FineTuneModel
from finetune_tf.model.saving import say_saved, write_checkpoint

# Earlier versions called the settings so, which is what a checkpoint calls something else.
_OLD_SETTINGS = "config.json"
#: The files of a run; a name that ends in a dot stands for all files that begin with it.
RUN = ("settings.json", "history.", "report.", "checkpoint", _OLD_SETTINGS)
#: The files of a report.
REPORT = ("report.",)


@dataclass
class FinetuneResult:
    """What `finetune` gives back.

    Attributes:
        model: With the weights of the epoch that `keep` means.
        history: Metric name to one value an epoch, over all phases.
        report: On the test examples, or None without any.
        settings: What it was called with.
    """

    model: FineTuneModel
    history: dict[str, list[float]]
    report: Report | None
    settings: dict[str, Any]

    def save(self, folder: str | Path, overwrite: bool = False) -> Path:
        """Writes the run: settings.json, history.json, checkpoint/, report.* and pictures.

        Args:
            folder: Made if it does not exist; written whole or not at all. Other files that
                stand in it are kept.
            overwrite: Whether to replace an earlier run in the folder, all of it.

        Returns:
            The folder, absolute.

        Raises:
            CheckpointError: If the folder holds a run and must not be replaced, is a checkpoint
                or the current folder, or cannot be written.
        """
        folder = check_run(folder, overwrite)
        with unfinished_folder(folder, ("history.", "report.", _OLD_SETTINGS)) as beside:
            write_checkpoint(self.model, beside / "checkpoint")
            write_text(beside / "settings.json", json.dumps(self.settings, indent=2) + "\n")
            write_text(beside / "history.json", json.dumps(self.history, indent=2) + "\n")
            if self.report is not None:
                self.report.save(beside)
            try:
                if self.history:
                    plot_history(self.history).savefig(beside / "history.png", dpi=150)
            except MissingExtraError as error:
                say(f"No pictures: {error}")
        self.model.info.tokenizer = str(folder / "checkpoint")
        say_saved(self.model, folder / "checkpoint")
        return folder


def check_output(
    folder: str | Path,
    names: tuple[str, ...],
    overwrite: bool = False,
    how: str = "overwrite=True",
) -> Path:
    """Checks that results can be written to a folder, before the work that gives them.

    Args:
        folder: The folder. It is not made, so that nothing is left if the work fails.
        names: The files that will be written; see `RUN`.
        overwrite: Whether such files may be there already.
        how: What a user writes to allow that.

    Returns:
        The folder, absolute.

    Raises:
        CheckpointError: If it holds such files and they must not be replaced, or it cannot be
            written.
    """
    folder = absolute(folder)
    _check_writable(folder)
    found = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    beginnings = tuple(name for name in names if name.endswith("."))
    there = [name for name in found if name in names or name.startswith(beginnings)]
    if there and not overwrite:
        raise CheckpointError(
            f"{folder} already holds {', '.join(there)}. Choose another folder, or replace what "
            f"is there with {how}."
        )
    return folder


def check_run(folder: str | Path, overwrite: bool = False, how: str = "overwrite=True") -> Path:
    """Checks that a run can be written to a folder; arguments and errors as for `check_output`."""
    folder = check_output(folder, RUN, overwrite, how)
    if Path.cwd().is_relative_to(folder):
        raise CheckpointError(
            f"{folder} is the current folder or above it, so it cannot be replaced. Choose a "
            "folder of its own for the run."
        )
    config = folder / "config.json"
    if has_file(config) and "model_type" in read_json(config):
        raise CheckpointError(
            f"{folder} is a checkpoint and not the folder of a run, so it is not replaced. Choose "
            "another folder."
        )
    return folder


def _check_writable(folder: Path) -> None:
    """Tries to make a file in the folder, or in the lowest one above it that exists."""
    existing = next(path for path in (folder, *folder.parents) if os.path.exists(path))
    try:
        with contextlib.suppress(FileNotFoundError):
            os.lstat(folder)  # fails of a name that is too long
        tempfile.TemporaryFile(dir=existing).close()
    except OSError as error:
        raise CheckpointError(
            f"{folder} cannot be written ({error.strerror}). Choose a folder you may write to."
        ) from None
