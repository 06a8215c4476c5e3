"""The page of a report that commands write: report.html."""

import shlex
import sys
from pathlib import Path

from finetune_tf.cli.ending import end
from finetune_tf.pages import Words
from finetune_tf.recipe.run_folder import FinetuneResult


def check_language(lang: str) -> None:
    """Checks the language of the page before anything takes time.

    Raises:
        ArgumentError: If there is no such language.
    """
    Words(lang)


def typed_command() -> str:
    """Returns the command as it can be typed in a shell."""
    return shlex.join(["finetune-tf", *sys.argv[1:]])


def save_page(result: FinetuneResult, folder: Path, lang: str) -> Path:
    """Replaces the page in the folder of a run by one with what the model tells.

    Args:
        result: The run, which is saved already.
        folder: Its folder.
        lang: The language of the page.
    """
    try:
        return result.save_html(folder / "report.html", lang)
    except KeyboardInterrupt as stop:
        end(stop, f"Interrupted; the complete run is in {folder}, with the short report.html.")
