"""Likely label errors: confident learning on features of a model.

References:
    Northcutt, Jiang and Chuang, Confident Learning: Estimating Uncertainty in Dataset Labels,
    JAIR 2021.
"""

from pathlib import Path

import numpy as np

from finetune_tf.base.arguments import check
from finetune_tf.base.spelling import names_checked
from finetune_tf.data import Examples
from finetune_tf.diagnosis.features import (
    class_numbers,
    features_of,
    folds_by_text,
    keys_of,
    probe,
    require_examples,
    text_of,
)
from finetune_tf.diagnosis.results import LabelErrors, SuspectLabel
from finetune_tf.errors import DataError
from finetune_tf.evaluation.intervals import RESAMPLES, Interval, share
from finetune_tf.messages import say
from finetune_tf.model.finetune_model import FineTuneModel


@names_checked
def label_errors(
    model_or_checkpoint: FineTuneModel | str | Path,
    examples: Examples,
    *,
    folds: int = 5,
    seed: int = 0,
) -> LabelErrors:
    """Ranks rows by how likely their label is wrong.

    Features of the rows are computed once. A logistic regression (a probe) is trained on all folds
    but one and gives each row of that fold the probability of its own label, its self-confidence;
    the rows are ranked by it. How many labels are wrong is estimated by confident learning
    (Northcutt, Jiang and Chuang, JAIR 2021): a row counts as another class if the probability of
    that class is at least its mean over the rows with that label.

    The ranking is a list to read, not one to delete: hard, rare and ambiguous examples stand at its
    beginning as well, and the estimate is too high where the probes are weak.

    Args:
        model_or_checkpoint: What computes the features: the folder or Hub id of a checkpoint, or a
            model. A model that was fine-tuned on these rows has learned their labels, also the
            wrong ones, and finds fewer of them than its checkpoint.
        examples: Examples with one label each, such as the training examples.
        folds: The number of folds.
        seed: The seed of the folds and of the interval.

    Returns:
        The ranking with the estimated number of errors; print it.

    Raises:
        DataTypeError: If `examples` are not `Examples`.
        DataError: If there are no labels, fewer than 100 rows, or only one class.
        ModelError: If the examples do not have one label each.

    Example:
        >>> many = ft.data.from_arrays(train.columns["text"] * 30, train.columns["label"] * 30)
        >>> found = ft.diagnosis.label_errors(checkpoint, many)
        >>> len(found.rows) == len(many)
        True
        >>> found.rows[0].self_confidence <= found.rows[-1].self_confidence
        True
    """
    check(folds=folds, seed=seed)
    require_examples(examples=examples)
    classes = class_numbers(examples, "no label can be wrong")
    used = _used_rows(examples, classes, folds)
    if getattr(getattr(model_or_checkpoint, "info", None), "record", {}).get("fits"):
        say(
            "label_errors computes features with a model that was trained. If it was trained on "
            "these rows, it has learned their wrong labels; its checkpoint finds more of them."
        )
    (features,) = features_of(model_or_checkpoint, examples)
    keys = keys_of(examples)
    parts = folds_by_text([keys[row] for row in used], classes[used], folds, seed)
    # A class whose texts are all the same is in one fold, of which the probe does not know it.
    spread = [label for label in np.unique(classes) if len(set(parts[classes[used] == label])) > 1]
    judged = np.isin(classes[used], spread)
    used, parts = used[judged], parts[judged]
    _require_enough(used, examples, classes, folds)
    names, labels = np.unique(classes[used], return_inverse=True)
    probabilities = _out_of_fold(features[used], labels, parts)
    confidence = probabilities[np.arange(len(used)), labels]
    suggested = probabilities.argmax(axis=1)
    confident = _confident_classes(probabilities, labels)
    is_error = (confident >= 0) & (confident != labels)
    rows = [
        SuspectLabel(
            row=int(used[i]),
            place=examples.places.name(int(used[i])),
            text=text_of(examples, int(used[i])),
            label=examples.labels[names[labels[i]]],
            suggested=examples.labels[names[suggested[i]]],
            self_confidence=float(confidence[i]),
            suggested_probability=float(probabilities[i, suggested[i]]),
            is_likely_error=bool(is_error[i]),
        )
        for i in np.argsort(confidence, kind="stable").tolist()
    ]
    return LabelErrors(
        rows=rows,
        data=examples.name,
        estimated=_estimated(labels, confident, seed),
        probe_accuracy=share(int((suggested == labels).sum()), len(used)),
        left_out=len(examples) - len(used),
    )


def _used_rows(examples: Examples, classes: np.ndarray, folds: int) -> np.ndarray:
    """Returns the rows of classes that have a row for each fold."""
    sizes = np.bincount(classes, minlength=len(examples.labels))
    used = np.flatnonzero(sizes[classes] >= folds)
    _require_enough(used, examples, classes, folds)
    return used


def _require_enough(used: np.ndarray, examples: Examples, classes: np.ndarray, folds: int) -> None:
    if len(used) < 100 or len(np.unique(classes[used])) < 2:
        raise DataError(
            "label_errors needs at least 100 rows, of at least two classes with at least "
            f"{folds} rows each (the number of folds) and different texts; {examples.name} has "
            f"{len(used):,} such rows of {len(np.unique(classes[used]))} classes."
        )


def _out_of_fold(features: np.ndarray, labels: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Returns the probability of each class (n, classes), by probes that did not see the row."""
    probabilities = np.zeros((len(labels), labels.max() + 1))
    for part in np.unique(parts):
        held_out = parts == part
        probabilities[held_out] = probe(features[~held_out], labels[~held_out], features[held_out])
    return probabilities


def _confident_classes(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the class that each row counts as (n,), -1 for none.

    It is the most probable one of those whose probability is at least the mean over the rows with
    that label.
    """
    count = probabilities.shape[1]
    own = probabilities[np.arange(len(labels)), labels]
    means = np.bincount(labels, own, minlength=count) / np.bincount(labels, minlength=count)
    allowed = np.where(probabilities >= means, probabilities, -1.0)
    return np.where(allowed.max(axis=1) >= 0, allowed.argmax(axis=1), -1)


def _estimated(labels: np.ndarray, confident: np.ndarray, seed: int) -> Interval:
    """Returns the estimated number of errors, from the calibrated confident joint.

    The rows of a label that count as another class, as a share of those that count as any, hold
    for all rows of the label.
    """
    count = labels.max() + 1
    is_error = (confident >= 0) & (confident != labels)
    states = np.where(confident < 0, 2, np.where(is_error, 1, 0))
    cells = np.bincount(labels * 3 + states, minlength=3 * count)

    def errors(drawn: np.ndarray) -> np.ndarray:  # (draws, 3 classes) -> (draws,)
        right, wrong, none = np.moveaxis(drawn.reshape(-1, count, 3), 2, 0)
        any_class = right + wrong
        shares = np.divide(wrong, any_class, out=np.zeros(wrong.shape), where=any_class > 0)
        return (shares * (any_class + none)).sum(axis=1)

    size = len(labels)
    draws = np.random.default_rng(seed).multinomial(size, cells / size, size=RESAMPLES)
    low, high = np.quantile(errors(draws), (0.025, 0.975))
    return Interval(float(errors(cells[None])[0]), float(low), float(high))
