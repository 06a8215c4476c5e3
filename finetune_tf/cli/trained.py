"""The models that commands use, and the rows of input that they can use them for."""

from pathlib import Path
from typing import Any

import finetune_tf as ft
from finetune_tf.errors import ModelError
from finetune_tf.messages import say
from finetune_tf.training.untrained import untrained_message


def load_trained(checkpoint: str, task: str | None) -> Any:
    """Loads a checkpoint whose head is trained.

    Args:
        checkpoint: A folder or a Hub id.
        task: The name of the task, or None for that of the checkpoint.

    Raises:
        ModelError: If the head has random weights.
    """
    model = ft.load(checkpoint, task)
    if message := untrained_message(model):
        raise ModelError(
            f"{message} Pass a checkpoint that was fine-tuned for {model.task.name}, or train this "
            "one first with finetune-tf train."
        )
    return model


def complete_rows(columns: dict[str, list[str]]) -> list[int]:
    """Returns the indices of the rows in which no text is empty, and reports the others.

    Args:
        columns: Lists of texts, all of one length.
    """
    rows = list(zip(*columns.values(), strict=True))
    complete = [i for i, row in enumerate(rows) if all(value.strip() for value in row)]
    if len(complete) < len(rows):
        say(
            f"{len(rows) - len(complete):,} of {len(rows):,} texts are empty and are printed "
            "without a prediction."
        )
    return complete


def say_if_files(texts: list[str], command: str) -> None:
    """Says which texts are names of files, whose content other commands read.

    Args:
        texts: The texts that were given as arguments.
        command: The command that reads them.
    """
    files = [text for text in texts if len(text) < 256 and Path(text).suffix and _is_file(text)]
    if files:
        say(
            f"{files[0]!r} is a file, but {command} takes it as a text, not for what is in it. For "
            f"its lines: finetune-tf {command} CHECKPOINT < {files[0]}"
        )


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # no name of a file
        return False
