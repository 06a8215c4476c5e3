"""From texts to labels: what a model says, ready to read."""

import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_tf.data import Examples
from finetune_tf.errors import DataError, ModelError
from finetune_tf.evaluation.metrics import THRESHOLD

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


@dataclass(frozen=True, repr=False)
class Prediction:
    """What a model says about one text.

    Attributes:
        label: The most probable label; of a multi-label model the list of labels with a
            probability of 0.5 or more; None for a regression.
        score: The probability of the label; of a multi-label model the highest one; the number
            itself for a regression.
        probabilities: The probability of each label; empty for a regression.
    """

    label: str | list[str] | None
    score: float
    probabilities: dict[str, float]

    def __repr__(self) -> str:
        label = "" if self.label is None else f"{self.label!r}, "
        return f"Prediction({label}{self.score:.3f})"


def predict(
    model: "keras.Model",
    texts: str | Iterable[str],
    text_pair: str | Iterable[str] | None = None,
    batch_size: int = 64,
) -> "Prediction | list[Prediction]":
    """Labels texts, with probabilities.

    Args:
        model: A model from `load`.
        texts: One text or several.
        text_pair: The second text of each, for models that compare or combine two.
        batch_size: Texts per batch.

    Returns:
        One `Prediction` for a single text, else a list of them in the order of the texts.

    Raises:
        DataTypeError: If something else than text is given, such as token ids.
        DataError: If a text is empty, or there are not as many partners as texts.
    """
    columns = {"text": _column(texts)}
    if text_pair is not None:
        if isinstance(texts, str) != isinstance(text_pair, str):
            raise DataError(
                "texts and text_pair belong together: give two single texts or two lists of "
                f"equal length, found {type(texts).__name__} and {type(text_pair).__name__}."
            )
        columns["text_pair"] = _column(text_pair)
    if not any(columns.values()):
        return []
    examples = Examples(columns=columns, labels=None, name="texts")
    labels = require_task(model).labels
    scores = model.task.probabilities(logits(model, examples, batch_size), labels)
    predictions = [_prediction(row, labels) for row in scores]
    return predictions[0] if isinstance(texts, str) else predictions


def logits(model: "keras.Model", examples: Examples, batch_size: int = 64) -> np.ndarray:
    """What the model puts out for examples, in their order: (n, num_labels) float32.

    Raises:
        ModelError: If an output is not a finite number.
    """
    # Texts of like length side by side need less padding; the order is restored below.
    order = np.argsort([len(text) for text in examples.columns["text"]], kind="stable")
    batches = examples[order].batches(model, batch_size=batch_size)
    outputs = _outputs(model, batches)[np.argsort(order)]
    broken = np.count_nonzero(~np.isfinite(outputs).all(axis=1))
    if broken:
        raise ModelError(
            f"The model's output is not a finite number for {broken:,} of {len(outputs):,} texts "
            f"of {examples.name}: its weights are most likely broken. Train again, with a lower "
            "learning rate or without float16."
        )
    return outputs


# One traced function a model: Keras's predict traces anew for batches of other shapes.
_TRACED: "weakref.WeakKeyDictionary[keras.Model, Any]" = weakref.WeakKeyDictionary()


def _outputs(model: "keras.Model", batches: "tf.data.Dataset") -> np.ndarray:
    import keras

    if keras.backend.backend() != "tensorflow":
        return np.asarray(model.predict(batches, verbose=0), dtype="float32")
    import tensorflow as tf

    spec = batches.element_spec
    has_targets = isinstance(spec, tuple)
    if model not in _TRACED:
        reference = weakref.ref(model)  # the function must not keep its own key alive
        _TRACED[model] = tf.function(
            lambda inputs: reference()(inputs, training=False),
            input_signature=[spec[0] if has_targets else spec],
        )
    forward = _TRACED[model]
    outputs = [forward(batch[0] if has_targets else batch).numpy() for batch in batches]
    return np.concatenate(outputs).astype("float32")


def require_task(model: "keras.Model") -> "keras.Model":
    """Returns the model if it knows its task and labels.

    Raises:
        ModelError: If not.
    """
    if not (hasattr(model, "task") and hasattr(model, "labels")):
        raise ModelError(
            f"Expected a model that knows its task and labels, as finetune_tf.load gives it; "
            f"found {type(model).__name__}."
        )
    return model


def _column(texts) -> list:
    # Anything that is no collection of texts becomes a row, about which Examples then complains.
    if isinstance(texts, str | bytes | Mapping) or not isinstance(texts, Iterable):
        return [texts]
    return list(texts)


def _prediction(row, labels):
    if labels.problem_type == "regression":
        return Prediction(None, float(row), {})
    probabilities = {name: float(value) for name, value in zip(labels, row, strict=True)}
    best = max(probabilities, key=probabilities.get)
    if labels.problem_type == "single_label_classification":
        return Prediction(best, probabilities[best], probabilities)
    chosen = [name for name, value in probabilities.items() if value >= THRESHOLD]
    return Prediction(chosen, probabilities[best], probabilities)
