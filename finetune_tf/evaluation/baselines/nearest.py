"""Baselines that copy: the source itself, or the target of the most similar training source."""

import numpy as np

from finetune_tf.base.labels import Labels
from finetune_tf.data import Examples
from finetune_tf.evaluation.baselines.tfidf import TfidfFeatures

_CHUNK = 256  # test rows whose similarities to all training rows are in memory at a time


def copy(
    train: Examples, targets: list[list[str]], test: Examples, labels: Labels | None, seed: int
) -> list[str]:
    """Predicts the source itself."""
    return list(test.columns["source"])


def nearest(
    train: Examples, targets: list[list[str]], test: Examples, labels: Labels | None, seed: int
) -> list[str]:
    """Predicts the target of the training example whose source has the most similar TF-IDF."""
    features = TfidfFeatures()
    known = features.fit_transform([train.columns["source"]])
    asked = features.transform([test.columns["source"]])
    best = [
        np.asarray((asked[i : i + _CHUNK] @ known.T).argmax(axis=1)).ravel()
        for i in range(0, len(test), _CHUNK)
    ]
    return [targets[row][0] for row in np.concatenate(best).tolist()]
