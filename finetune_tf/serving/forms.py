"""Which columns a request may have, for each task."""

from typing import Any

from finetune_tf.data.columns import COLUMNS
from finetune_tf.tasks import Task

#: What the values of a column are in JSON.
KINDS = {
    "tokens": "a list of words",
    "messages": 'a conversation, [{"role": "user", "content": "…"}]',
    "image": "the bytes of an image file in base64",
    "video": "the bytes of a video file in base64",
}
_TEXT = "a text"


def forms_of(task: Task | type[Task]) -> tuple[tuple[str, ...], ...]:
    """Returns the sets of columns that a request may have, the most usual one first.

    Args:
        task: The task of the model.

    Example:
        >>> from finetune_tf.serving.forms import forms_of
        >>> forms_of(model.task)
        (('text',), ('text', 'text_pair'))
    """
    if task.input_forms:
        return task.input_forms
    inputs = [name for name in task.columns if name in COLUMNS and COLUMNS[name].target is None]
    needed = tuple(task.needs or inputs[:1])
    return tuple(dict.fromkeys((needed, tuple(inputs))))


def kind_of(column: str) -> str:
    """Returns what a value of a column is in JSON, for messages."""
    return KINDS.get(column, _TEXT)


def described_forms(task: Any) -> str:
    """Returns the sets of columns for a message.

    Example:
        >>> from finetune_tf.serving.forms import described_forms
        >>> described_forms(model.task)
        '"text", or "text" and "text_pair"'
    """
    return ", or ".join(" and ".join(f'"{name}"' for name in form) for form in forms_of(task))
