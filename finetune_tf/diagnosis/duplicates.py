"""Near duplicates within a data set, or between a training and a test set."""

from pathlib import Path

import numpy as np

from finetune_tf.base.arguments import check
from finetune_tf.base.spelling import names_checked
from finetune_tf.data import Examples
from finetune_tf.diagnosis.features import features_of, label_of, require_examples, text_of
from finetune_tf.diagnosis.results import DuplicatePair, NearDuplicates
from finetune_tf.model.finetune_model import FineTuneModel

_BLOCK = 512  # rows that are compared with all others at a time


@names_checked
def near_duplicates(
    model_or_checkpoint: FineTuneModel | str | Path,
    train: Examples,
    test: Examples | None = None,
    *,
    similarity: float = 0.95,
) -> NearDuplicates:
    """Finds rows of `test` that are almost rows of `train`; without `test`, within `train`.

    Two rows are near duplicates if the cosine similarity of their features is high enough. Features
    are hidden states averaged over all layers, minus their mean over all rows, without which all
    texts are similar. `ft.data.overlap` finds rows that are equal.

    Args:
        model_or_checkpoint: What computes the features: the folder or Hub id of a checkpoint, or a
            model from `load`.
        train: Examples.
        test: Examples that should have nothing in common with them.
        similarity: The lowest cosine similarity that counts.

    Returns:
        The pairs, most similar first; print it.

    Raises:
        DataTypeError: If `train` or `test` are not `Examples`.
        ModelError: If the model cannot read the examples.

    Example:
        >>> found = ft.diagnosis.near_duplicates(checkpoint, train, train)
        >>> found.affected == len(train)
        True
    """
    check(similarity=similarity)
    is_within = test is None
    require_examples(train=train, test=train if is_within else test)
    first = features_of(model_or_checkpoint, *([train] if is_within else [train, test]))
    units = [_normalized(features) for features in _centered(first)]
    best, value = _nearest(units[-1], units[0], is_within)
    searched = train if is_within else test
    found = np.flatnonzero(value >= min(similarity, 1 - 1e-6))
    pairs = {(min(i, best[i]), max(i, best[i])) if is_within else (i, best[i]) for i in found}
    order = sorted(pairs, key=lambda pair: (-value[pair[0]], pair))
    rows = [
        DuplicatePair(
            row=int(row),
            other_row=int(other),
            text=text_of(searched, int(row)),
            other_text=text_of(train, int(other)),
            similarity=float(min(np.dot(units[-1][row], units[0][other]), 1.0)),
            label=label_of(searched, int(row)),
            other_label=label_of(train, int(other)),
        )
        for row, other in order
    ]
    return NearDuplicates(
        rows=rows,
        data=searched.name,
        size=len(searched),
        affected=len(found),
        other_data=None if is_within else train.name,
        similarity=similarity,
        contradictory=sum(pair.labels_differ for pair in rows),
    )


def _centered(features: list[np.ndarray]) -> list[np.ndarray]:
    """Subtracts the mean of all rows, unless nothing but rounding would remain."""
    joint = np.concatenate(features)
    mean = joint.mean(axis=0)
    if np.abs(joint - mean).max() <= 1e-5 * np.abs(joint).max():  # all rows are the same
        return features
    return [each - mean for each in features]


def _normalized(features: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(norms, 1e-9)


def _nearest(rows: np.ndarray, others: np.ndarray, is_within: bool) -> tuple:
    """Returns for each row the most similar other one, and the cosine similarity: (n,), (n,)."""
    best, value = np.zeros(len(rows), int), np.full(len(rows), -1.0)
    for start in range(0, len(rows), _BLOCK):
        cosines = rows[start : start + _BLOCK] @ others.T
        block = np.arange(len(cosines))
        if is_within:
            cosines[block, start + block] = -1.0
        best[start + block] = cosines.argmax(axis=1)
        value[start + block] = cosines.max(axis=1)
    return best, value
