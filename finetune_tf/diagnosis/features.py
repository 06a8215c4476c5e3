"""Features of examples, folds of examples, and how rows are named in results."""

import os
import warnings
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from finetune_tf.base.arguments import shown
from finetune_tf.base.labels import label_text
from finetune_tf.data import Examples
from finetune_tf.data.copies import text_keys
from finetune_tf.errors import DataError, DataTypeError, ModelError
from finetune_tf.messages import quiet
from finetune_tf.model.feature_models import FeatureModel
from finetune_tf.model.finetune_model import FineTuneModel
from finetune_tf.model.loading import load
from finetune_tf.search.layer_means import layer_means

# The strength of a probe on standardized features. On features of MiniLM, 0.01 ranks label errors
# best for 150 classes, and as well as weaker and stronger ones for two.
_STRENGTH = 0.01


def features_of(model_or_checkpoint: Any, *data_sets: Examples) -> list[np.ndarray]:
    """Returns a vector for each row of each data set: hidden states averaged over all layers.

    The vectors of two texts that the model reads one by one are concatenated, and those of the
    parts of a long context averaged.

    Args:
        model_or_checkpoint: A model from `load`, or the folder or Hub id of a checkpoint.
        *data_sets: Examples; their labels are not read.

    Raises:
        ModelError: If it is neither, or the model cannot read the examples.
    """
    if isinstance(model_or_checkpoint, str | Path):
        with quiet():
            model = load(model_or_checkpoint, labels=2, new_head=True)
    elif isinstance(model_or_checkpoint, FeatureModel):
        model = model_or_checkpoint.whole
    else:
        model = model_or_checkpoint
    if not isinstance(model, FineTuneModel):
        raise ModelError(
            "Features are computed by a model from ft.load, or by a checkpoint, given as a folder "
            f"or a Hub id; found {shown(model)}."
        )
    return [_of_examples(model, examples) for examples in data_sets]


def _of_examples(model: FineTuneModel, examples: Examples) -> np.ndarray:
    """Returns a vector for each example, of which each may be several rows for the model."""
    encoded = examples.encoded(model, targets=False)
    vectors = layer_means(model, encoded, examples.name)
    if encoded.example is not None:
        sums = np.zeros((len(examples), vectors.shape[1]))
        np.add.at(sums, encoded.example, vectors)
        counts = np.bincount(encoded.example, minlength=len(examples))
        return (sums / counts[:, None]).astype("float32")
    return vectors.reshape(len(examples), -1)


def require_examples(**given: Any) -> None:
    """Checks that arguments are `Examples`.

    Raises:
        DataTypeError: If one is not.
    """
    for name, examples in given.items():
        if not isinstance(examples, Examples):
            raise DataTypeError(
                f"{name} must be Examples, found {type(examples).__name__}. Give what from_csv and "
                "its kin return."
            )


def probe(features: np.ndarray, targets: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Fits a logistic regression and applies it to other features.

    Args:
        features: (n, d).
        targets: Class numbers (n,), at least two different ones.
        others: (m, d).

    Returns:
        The probability of each class that occurs, in ascending order: (m, classes).
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    mean, deviation = features.mean(axis=0), features.std(axis=0)
    deviation = np.where(deviation > 1e-6, deviation, 1.0)
    model = LogisticRegression(C=_STRENGTH, max_iter=200, tol=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit((features - mean) / deviation, targets)
    return model.predict_proba((others - mean) / deviation)


def folds_by_text(
    keys: Sequence[Hashable], classes: np.ndarray, folds: int, seed: int
) -> np.ndarray:
    """Assigns each row (n,) to a fold, so that classes are spread and equal texts are together.

    Args:
        keys: What makes two rows the same.
        classes: The class numbers (n,).
        folds: The number of folds.
        seed: The seed of the random choice.
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(keys))
    order = order[np.argsort(classes[order], kind="stable")]
    fold_of: dict[Hashable, int] = {}
    for row in order.tolist():
        fold_of.setdefault(keys[row], len(fold_of) % folds)
    return np.array([fold_of[key] for key in keys])


def keys_of(*data_sets: Examples) -> list[Hashable]:
    """Returns a key for each row of all data sets; rows with the same inputs have equal ones."""
    return [key for examples in data_sets for key in text_keys(examples.columns)]


def text_of(examples: Examples, row: int) -> str:
    """Returns the text of a row, the name of its file, or its place."""
    for name, values in examples.columns.items():
        value = values[row]
        if name == "tokens":
            return " ".join(value)
        if name == "text" or (name != "label" and isinstance(value, str | os.PathLike)):
            second = examples.columns.get("text_pair")
            return os.fspath(value) + (f" | {second[row]}" if second and name == "text" else "")
    return examples.places.name(row)


def label_of(examples: Examples, row: int) -> str:
    """Returns the label of a row as text; "(none)" for none of several, "" without labels."""
    if "label" not in examples.columns:
        return ""
    value = examples.columns["label"][row]
    labels = examples.labels
    if isinstance(value, list | tuple | np.ndarray):
        return ", ".join(sorted(labels[labels.index_of(each)] for each in value)) or "(none)"
    if isinstance(value, float) or labels is None:
        return label_text(value)
    return labels[labels.index_of(value)]


def class_numbers(examples: Examples, purpose: str) -> np.ndarray:
    """Returns the number of the label of each row (n,).

    Raises:
        DataError: If the examples have no labels.
        ModelError: If they do not have one label each.
    """
    if "label" not in examples.columns:
        raise DataError(
            f"{examples.name} has no labels, so {purpose}. Name the column with them when reading "
            "it."
        )
    labels = examples.labels
    if labels.problem_type != "single_label_classification":
        raise ModelError(
            f"This needs examples with one label each; those of {examples.name} are for "
            f"{labels.problem_type.replace('_', ' ')}."
        )
    return np.array([labels.index_of(value) for value in examples.columns["label"]])
