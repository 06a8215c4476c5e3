"""`train --resume`: the folder of the saves, which lies beside the folder of the run."""

import shutil
from pathlib import Path

from finetune_tf.base.paths import has_file


def folder_of_saves(output: Path) -> Path:
    """Returns the folder for the saves of a run."""
    return output.with_name(f"{output.name}.resume")


def is_finished(output: Path, overwrite: bool) -> bool:
    """Whether the run is complete, so that a command with --resume has nothing to do.

    With --overwrite, a complete run is replaced, by one that is going on or by a new one.
    """
    is_complete = has_file(output / "settings.json") and (output / "checkpoint").is_dir()
    return is_complete and not overwrite and not folder_of_saves(output).exists()


def remove_saves(output: Path) -> None:
    """Removes the saves of a run that is complete."""
    shutil.rmtree(folder_of_saves(output), ignore_errors=True)
