"""The saves of a run of `finetune` that is killed or interrupted and called again."""

import json
from pathlib import Path
from typing import Any

from finetune_tf.base.files import write_text
from finetune_tf.base.interruption import StopRequest
from finetune_tf.base.json_files import read_json
from finetune_tf.base.paths import absolute
from finetune_tf.callbacks import Resume
from finetune_tf.training.resuming.settings import require_same

EVERY_STEPS = 100  # often enough to lose little, and far longer than a save takes
_FOLDER = "finetune_tf_resume"
_SETTINGS = "settings.json"
_WITHOUT_EFFECT = ("store_features",)  # on the results


class ResumableRun:
    """The folder with the saves of a run, one folder in it for each phase.

    Args:
        folder: The folder, which is created.
        settings: The settings of the run.

    Raises:
        ModelError: If the folder belongs to a run with other settings.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder = folder
        settings = {n: value for n, value in settings.items() if n not in _WITHOUT_EFFECT}
        text = json.dumps(settings, indent=2)
        path = folder / _SETTINGS
        if path.exists():
            require_same(read_json(path), json.loads(text), folder)
        else:
            write_text(path, text + "\n")

    def callback(self, phase: int, request: StopRequest) -> Resume:
        """Returns the callback that saves and continues a phase.

        Args:
            phase: The number of the phase, counted from 1.
            request: Asks the phase to stop after a save.
        """
        resume = Resume(self.folder / f"phase-{phase}", every_steps=EVERY_STEPS)
        resume.stop_on(request, number=1)
        return resume


def resumable(resume: bool | str | Path, settings: dict[str, Any]) -> ResumableRun | None:
    """Returns the run for the argument `resume` of `finetune`, or None without it."""
    if resume is False or resume is None:
        return None
    folder = absolute(Path(_FOLDER if resume is True else resume))
    return ResumableRun(folder, settings)
