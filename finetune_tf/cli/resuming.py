"""`train --resume`: the folder of the saves, which lies beside the folder of the run."""

import shutil
from pathlib import Path

from finetune_tf.base.json_files import read_json
from finetune_tf.base.paths import has_file


def folder_of_saves(output: Path) -> Path:
    """Returns the folder for the saves of a run."""
    return output.with_name(f"{output.name}.resume")


def is_finished(output: Path, overwrite: bool) -> bool:
    """Whether the run is complete, so that a command with --resume has nothing to do.

    With --overwrite, a complete run is replaced. Saves that are left over from the end of a run,
    which was killed between its two last steps, are removed.
    """
    settings = output / "settings.json"
    if overwrite or not has_file(settings) or "interrupted" in read_json(settings):
        return False
    remove_saves(output)
    return True


def remove_saves(output: Path) -> None:
    """Removes the saves of a run that is complete."""
    shutil.rmtree(folder_of_saves(output), ignore_errors=True)
