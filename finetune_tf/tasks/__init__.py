"""Tasks: how examples are encoded, the head of the model, and how outputs are decoded.

A new task is a file here and a row in `TASKS`. Names are those of Hugging Face pipelines.
"""

from finetune_tf.base.labels import Labels
from finetune_tf.errors import ModelError
from finetune_tf.tasks.answers import Answer
from finetune_tf.tasks.feature_extraction import FeatureExtraction
from finetune_tf.tasks.fill_mask import Candidate, FillMask
from finetune_tf.tasks.image_classification import ImageClassification
from finetune_tf.tasks.image_feature_extraction import ImageFeatureExtraction
from finetune_tf.tasks.question_answering import QuestionAnswering
from finetune_tf.tasks.task import IGNORED, Encoded, Kind, Task
from finetune_tf.tasks.text_classification import TextClassification
from finetune_tf.tasks.text_generation import TextGeneration
from finetune_tf.tasks.text_to_text import Summarization, TextToText, Translation
from finetune_tf.tasks.token_classification import Entity, TokenClassification

TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (
        TextClassification,
        TokenClassification,
        QuestionAnswering,
        FillMask,
        FeatureExtraction,
        TextGeneration,
        TextToText,
        Translation,
        Summarization,
        ImageClassification,
        ImageFeatureExtraction,
    )
}


def get_task(name: str, labels: Labels | None = None) -> Task:
    """Returns the task with a name and its labels.

    Args:
        name: A key of `TASKS`.
        labels: As for `Task`.

    Raises:
        ModelError: If there is no such task.
    """
    if not isinstance(name, str):
        raise ModelError(
            f"A task is a name such as 'text-classification', found {name!r}. Labels are given by "
            f"name: load(checkpoint, labels={name!r})."
        )
    if name not in TASKS:
        raise ModelError(f"There is no task {name!r}; known are: {', '.join(TASKS)}.")
    return TASKS[name](labels)


def task_options() -> list[str]:
    """The options that the `encode` methods of all tasks accept."""
    return [option for task in TASKS.values() for option in task.encode_options]


__all__ = [
    "IGNORED",
    "TASKS",
    "Answer",
    "Candidate",
    "Encoded",
    "Entity",
    "FeatureExtraction",
    "FillMask",
    "ImageClassification",
    "ImageFeatureExtraction",
    "Kind",
    "QuestionAnswering",
    "Summarization",
    "Task",
    "TextClassification",
    "TextGeneration",
    "TextToText",
    "TokenClassification",
    "Translation",
    "get_task",
    "task_options",
]
