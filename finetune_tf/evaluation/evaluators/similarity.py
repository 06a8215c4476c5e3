"""How well the similarity of two texts' vectors agrees with what people say."""

import numpy as np

from finetune_tf.base.labels import Labels
from finetune_tf.data import Examples
from finetune_tf.evaluation.baselines.tfidf import TfidfFeatures
from finetune_tf.evaluation.evaluators.text import Regression
from finetune_tf.evaluation.metrics import correlations


def _tfidf(
    train: Examples, targets: np.ndarray, test: Examples, labels: Labels | None, seed: int
) -> np.ndarray:
    """The cosine of both texts' TF-IDF features, weighted by the training texts."""
    features = TfidfFeatures().fit([train.columns["text"] + train.columns["text_pair"]])
    left, right = (features.transform([test.columns[side]]) for side in ("text", "text_pair"))
    # Words and characters have the length 1 each, so that the product is the sum of two cosines.
    return np.asarray(left.multiply(right).sum(axis=1)).ravel() / 2


class Similarity(Regression):
    """Cosines and scores (pairs,); the main metric is Spearman's correlation.

    As in sentence-transformers: only the order counts, so that the scores may have any scale. The
    bootstrap takes the ranks from the whole test instead of ranking each draw anew.
    """

    unit = "pairs"
    drawing = "scatter"

    def __init__(self) -> None:
        self.main_metric = "spearman"
        self.baselines = {"tfidf": _tfidf}

    def measure(
        self, targets: np.ndarray, predictions: np.ndarray, labels: Labels | None
    ) -> dict[str, float]:
        """Spearman's and Pearson's correlation; 0 where undefined."""
        found = correlations(targets, predictions)
        return {"spearman": found["spearman"], "pearson": found["pearson"]}

    def statistics(self, targets: np.ndarray, predictions: np.ndarray) -> np.ndarray:
        """First and second moments of the ranks."""
        from scipy.stats import rankdata

        return super().statistics(rankdata(targets), rankdata(predictions))

    def per_class(
        self, targets: np.ndarray, predictions: np.ndarray, labels: Labels | None
    ) -> dict[str, dict[str, float]]:
        """There are no classes."""
        return {}

    def confusion(
        self, targets: np.ndarray, predictions: np.ndarray, labels: Labels | None
    ) -> None:
        """Likewise."""
        return None
