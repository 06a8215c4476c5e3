"""Predictions of a model for texts, images or videos, in a form that people read."""

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_tf.base.arguments import check
from finetune_tf.base.spelling import names_checked
from finetune_tf.data import Examples
from finetune_tf.data.columns import COLUMNS, TEXT_COLUMNS, synonyms_of_other_columns
from finetune_tf.errors import DataError
from finetune_tf.graph.stages import require_task
from finetune_tf.model.inference import run
from finetune_tf.tasks import TASKS, Encoded, Task
from finetune_tf.tasks.chat import is_conversation
from finetune_tf.training.untrained import say_if_untrained

if TYPE_CHECKING:
    import keras

# The numbers of axes that an array of one value has.
_AXES = {"image": (2, 3), "video": (4,)}


def columns_of_predict() -> dict[str, str]:
    """The columns of inputs that some task reads besides texts, and the options of all tasks.

    Returns:
        Each name with what it is called elsewhere.
    """
    synonyms = synonyms_of_other_columns()
    names = [
        name
        for task in TASKS.values()
        for name in (*task.columns, *task.options)
        if name not in (*TEXT_COLUMNS, task.target_column)
    ]
    return {name: synonyms.get(name, "") for name in names}


@names_checked(also=columns_of_predict)
def predict(
    model: "keras.Model",
    texts: str | Iterable[str] | Examples | None = None,
    text_pair: str | Iterable[str] | None = None,
    batch_size: int = 64,
    **columns: Any,
) -> Any:
    """Returns the predictions of a model for texts, images or videos.

    Args:
        model: A model from `load`.
        texts: One text or several; for token classification also lists of words; for text
            generation also conversations. For a model of images one image or several: paths, the
            bytes of files, arrays (height, width, 3) uint8, images of Pillow, or one array of
            several images. For a model of videos one video or several: paths, the bytes of files,
            arrays (frames, height, width, 3) uint8, or lists of images, one list for each video.
            Or `Examples`, whose labels are ignored.
        text_pair: The second text of each, for models of pairs.
        batch_size: Rows in a batch.
        **columns: The other columns that the task reads, such as `question=` and `context=` for
            question answering, `image=` for images or `video=` for videos, and the options of its
            `describe`.

    Returns:
        For a single text, image or video one prediction, otherwise a list of predictions in the
        order of the texts. A prediction is, for classification, a `Prediction` (label, score,
        probabilities); for token classification a list of `Entity` (label, text, start, end,
        score); for question answering an `Answer`; for fill-mask a list of `Candidate`. Feature
        extraction returns a vector or, for a pair, the cosine; for several texts an array.

    Raises:
        DataTypeError: If something other than text is given, such as token ids.
        DataError: If a text is empty, an image cannot be decoded, or the numbers of texts and
            second texts differ.

    Example:
        >>> ft.predict(model, "a good film").label in model.labels
        True
    """
    check(batch_size=batch_size)
    task = require_task(model).task
    options = {name: columns.pop(name) for name in task.options if name in columns}
    examples, is_single = examples_of(task, texts, text_pair, columns)
    if examples is None:
        return []
    rows, encoded = outputs(model, examples, batch_size)
    described = task.describe(rows, encoded, examples, **options)
    return described[0] if is_single else described


def examples_of(
    task: Task, texts: Any, text_pair: Any, columns: Mapping[str, Any]
) -> tuple[Examples | None, bool]:
    """Makes examples of the arguments of `predict`, or drops the targets of given ones.

    Args:
        task: The task of the model.
        texts: As for `predict`.
        text_pair: As for `predict`.
        columns: The other columns that were given.

    Returns:
        The examples without targets, None for an empty list; and whether a single input was given.

    Raises:
        DataTypeError: As for `predict`.
        DataError: As for `predict`.
    """
    if isinstance(texts, Examples):
        return _without_targets(task, texts, {"text_pair": text_pair, **columns}), False
    asked = task.asked(texts, text_pair, **columns)
    single = [_is_single(value, name) for name, value in asked.items()]
    if any(single) and not all(single):
        kinds = " and ".join(type(value).__name__ for value in asked.values())
        raise DataError(
            f"{' and '.join(asked)} belong together: give two single texts or two lists of equal "
            f"length, found {kinds}."
        )
    listed = {name: _column(value, name) for name, value in asked.items()}
    if not any(listed.values()):
        return None, False
    kind = next((name for name in _AXES if name in listed), "text")
    examples = Examples(listed, labels=None, name=f"{kind}s")
    columns = task.questions(examples.columns)
    if columns is not examples.columns:
        examples = Examples(columns, labels=None, name=f"{kind}s")
    return examples, all(single)


def outputs(
    model: "keras.Model",
    examples: Examples,
    batch_size: int = 64,
    encoded: Encoded | None = None,
) -> tuple[list[np.ndarray], Encoded]:
    """Computes what the model predicts for examples, with `Task.predict_rows`.

    Says so if the model's head has not been trained.

    Args:
        model: A model from `load`.
        examples: The examples.
        batch_size: Rows in a batch.
        encoded: What an earlier call for these examples returned, which saves encoding them again.

    Returns:
        The prediction for each encoded row, and the encoded rows.

    Raises:
        ModelError: If an output is not a finite number.
    """
    say_if_untrained(model)
    if encoded is None:
        encoded = examples.encoded(model, targets=model.task.reduces_with_targets)

    def forward(rows: Encoded, part: "keras.Model | None" = None) -> list[np.ndarray]:
        return run(model, rows, batch_size, examples.name, part)

    return model.task.predict_rows(model, encoded, batch_size, forward), encoded


def _without_targets(task: Task, given: Examples, others: Mapping[str, Any]) -> Examples:
    if extra := [name for name, value in others.items() if value is not None]:
        raise DataError(
            f"predict got examples together with {' and '.join(extra)}. Examples bring their own "
            f"columns, here {', '.join(given.columns)}: leave {' and '.join(extra)} out, or give "
            "texts instead of examples."
        )
    targets = {name for name, column in COLUMNS.items() if column.target} | {task.target_column}
    columns = {name: rows for name, rows in given.columns.items() if name not in targets}
    columns = task.questions(columns)
    return Examples(columns, labels=None, name=given.name, places=given.places)


def _is_single(value: Any, column: str) -> bool:
    """Whether a value is one text, one conversation, one image or one video."""
    if isinstance(value, str | os.PathLike | bytes | Mapping) or is_conversation(value):
        return True
    if getattr(value, "ndim", 0) > 1:
        return value.ndim in _AXES.get(column, _AXES["image"])
    return hasattr(value, "convert")


def _column(texts: Any, column: str) -> list:
    # A value that is not a collection becomes a single row, which `Examples` then checks.
    is_collection = isinstance(texts, Iterable) and not isinstance(texts, Mapping)
    if not is_collection or _is_single(texts, column):
        return [texts]
    return list(texts)
