"""Tasks: how examples are encoded, the head of the model, and how outputs are decoded.

A new task is a file here and a row in `TASKS`. Names are those of Hugging Face pipelines.
"""

from collections.abc import Mapping
from typing import Any

from finetune_tf.base.labels import Labels
from finetune_tf.errors import ModelError
from finetune_tf.tasks.answers import Answer
from finetune_tf.tasks.feature_extraction import FeatureExtraction
from finetune_tf.tasks.fill_mask import Candidate, FillMask
from finetune_tf.tasks.image_classification import ImageClassification
from finetune_tf.tasks.image_feature_extraction import ImageFeatureExtraction
from finetune_tf.tasks.image_text_classification import ImageTextClassification
from finetune_tf.tasks.image_text_retrieval import ImageTextRetrieval
from finetune_tf.tasks.question_answering import QuestionAnswering
from finetune_tf.tasks.task import IGNORED, Encoded, Kind, Task
from finetune_tf.tasks.text_classification import TextClassification
from finetune_tf.tasks.text_generation import TextGeneration
from finetune_tf.tasks.text_to_text import Summarization, TextToText, Translation
from finetune_tf.tasks.token_classification import Entity, TokenClassification
from finetune_tf.tasks.video_classification import VideoClassification
from finetune_tf.tasks.zero_shot_images import ZeroShotImageClassification

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
        ImageTextClassification,
        ZeroShotImageClassification,
        ImageTextRetrieval,
        VideoClassification,
    )
}


def get_task(
    name: str, labels: Labels | None = None, config: Mapping[str, Any] | None = None
) -> Task:
    """Returns the task with a name, its labels and the config of its model.

    Args:
        name: A key of `TASKS`.
        labels: As for `Task`.
        config: As for `Task`.

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
    return TASKS[name](labels, config)


def joint_task(has_labels: bool) -> str:
    """Returns the name of the task of two encoders that were joined, of images and of texts.

    Args:
        has_labels: Whether there are classes; otherwise the model is for retrieval.
    """
    return (ImageTextClassification if has_labels else ImageTextRetrieval).name


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
    "ImageTextClassification",
    "ImageTextRetrieval",
    "Kind",
    "QuestionAnswering",
    "Summarization",
    "Task",
    "TextClassification",
    "TextGeneration",
    "TextToText",
    "TokenClassification",
    "Translation",
    "ZeroShotImageClassification",
    "VideoClassification",
    "get_task",
    "joint_task",
    "task_options",
]
