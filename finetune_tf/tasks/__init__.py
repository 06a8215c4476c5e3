"""What a model is for: how an example becomes inputs, the head, how logits are read.

A task is an object with the methods of `TextClassification`; a new one is a file here and a
row in `TASKS`. Names are those of Hugging Face pipelines.
"""

from finetune_tf.errors import ModelError
from finetune_tf.tasks.text_classification import Encoded, TextClassification

TASKS: dict[str, TextClassification] = {task.name: task for task in (TextClassification(),)}


def get_task(name: str) -> TextClassification:
    """The task of that name.

    Raises:
        ModelError: If there is none.
    """
    if name not in TASKS:
        raise ModelError(f"There is no task {name!r}; known are: {', '.join(TASKS)}.")
    return TASKS[name]


__all__ = ["TASKS", "Encoded", "TextClassification", "get_task"]
