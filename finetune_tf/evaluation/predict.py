"""From texts to what a model says about them, ready to read."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_tf.base.arguments import check
from finetune_tf.base.spelling import names_checked
from finetune_tf.data import Examples
from finetune_tf.data.columns import TEXT_COLUMNS, synonyms_of_other_columns
from finetune_tf.errors import DataError
from finetune_tf.graph.stages import require_task
from finetune_tf.model.inference import run
from finetune_tf.tasks import TASKS, Encoded
from finetune_tf.training.untrained import say_if_untrained

if TYPE_CHECKING:
    import keras


def _task_arguments() -> dict[str, str]:
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


@names_checked(also=_task_arguments)
def predict(
    model: "keras.Model",
    texts: str | Iterable[str] | Examples | None = None,
    text_pair: str | Iterable[str] | None = None,
    batch_size: int = 64,
    **columns: Any,
) -> Any:
    """What a model says about texts.

    Args:
        model: A model from `load`.
        texts: One text or several; for token classification lists of words as well. Or examples,
            whose labels are not looked at.
        text_pair: The second text of each, for models that compare or combine two.
        batch_size: Rows per batch.
        **columns: What else the task reads: `question=` and `context=` for question answering,
            and the options of its `describe`.

    Returns:
        For a single text what the task's `describe` gives (for text classification a `Prediction`:
        label, score, probabilities; for token classification a list of `Entity`: label, text,
        start, end, score; for fill-mask the most probable words as `Candidate`s; for feature
        extraction a vector, or for a pair the cosine), else a list of such in the order of the
        texts (for feature extraction one array).

    Raises:
        DataTypeError: If something else than text is given, such as token ids.
        DataError: If a text is empty, or there are not as many partners as texts.
    """
    check(batch_size=batch_size)
    task = require_task(model).task
    options = {name: columns.pop(name) for name in task.options if name in columns}
    if isinstance(texts, Examples):
        return _of_examples(model, texts, {"text_pair": text_pair, **columns}, batch_size, options)
    asked = task.asked(texts, text_pair, **columns)
    single = [isinstance(value, str) for value in asked.values()]
    if any(single) and not all(single):
        kinds = " and ".join(type(value).__name__ for value in asked.values())
        raise DataError(
            f"{' and '.join(asked)} belong together: give two single texts or two lists of equal "
            f"length, found {kinds}."
        )
    listed = {name: _column(value) for name, value in asked.items()}
    if not any(listed.values()):
        return []
    examples = Examples(columns=listed, labels=None, name="texts")
    rows, encoded = outputs(model, examples, batch_size)
    described = task.describe(rows, encoded, examples, **options)
    return described[0] if all(single) else described


def outputs(
    model: "keras.Model", examples: Examples, batch_size: int = 64
) -> tuple[list[np.ndarray], Encoded]:
    """What the model puts out for examples, and the rows that they were turned into.

    Says so if nobody has trained the model's head.

    Raises:
        ModelError: If an output is not a finite number.
    """
    say_if_untrained(model)
    encoded = examples.encoded(model, targets=model.task.reduces_with_targets)
    return run(model, encoded, batch_size, examples.name), encoded


def _of_examples(
    model: "keras.Model", given: Examples, others: Mapping, batch_size: int, options: Mapping
) -> Any:
    if extra := [name for name, value in others.items() if value is not None]:
        raise DataError(
            f"predict got examples together with {' and '.join(extra)}. Examples bring their own "
            f"columns, here {', '.join(given.columns)}: leave {' and '.join(extra)} out, or give "
            "texts instead of examples."
        )
    task = model.task
    columns = {name: rows for name, rows in given.columns.items() if name != task.target_column}
    examples = Examples(columns, labels=None, name=given.name, places=given.places)
    rows, encoded = outputs(model, examples, batch_size)
    return task.describe(rows, encoded, examples, **options)


def _column(texts: Any) -> list:
    # Anything that is no collection of texts becomes a row, about which Examples then complains.
    if isinstance(texts, str | bytes | Mapping) or not isinstance(texts, Iterable):
        return [texts]
    return list(texts)
