"""The evaluator of text similarity: correlation of cosines with human scores."""

import numpy as np

from finetune_tf.base.labels import Labels
from finetune_tf.data import Examples
from finetune_tf.evaluation.baselines.tfidf import TfidfFeatures
from finetune_tf.evaluation.evaluators.text import Regression
from finetune_tf.evaluation.metrics import correlations


def _tfidf(
    train: Examples, targets: np.ndarray, test: Examples, labels: Labels | None, seed: int
) -> np.ndarray:
    """Predicts the cosine of the TF-IDF features of both texts, with IDF of the training texts."""
    features = TfidfFeatures().fit([train.columns["text"] + train.columns["text_pair"]])
    left, right = (features.transform([test.columns[side]]) for side in ("text", "text_pair"))
    # The word and character blocks both have length 1, so the product is the sum of two cosines.
    return np.asarray(left.multiply(right).sum(axis=1)).ravel() / 2


class Similarity(Regression):
    """Compares cosines with scores (pairs,); the main metric is Spearman's correlation.

    This is the metric of sentence-transformers. It depends on ranks only, so the scores can have
    any scale. The bootstrap uses the ranks in the complete test set and does not rank each
    resample again.
    """

    unit = "pairs"
    drawing = "scatter"

    def __init__(self) -> None:
        self.main_metric = "spearman"
        self.baselines = {"tfidf": _tfidf}

    def measure(
        self, targets: np.ndarray, predictions: np.ndarray, labels: Labels | None
    ) -> dict[str, float]:
        """Computes Spearman's and Pearson's correlation; 0 if undefined."""
        values = correlations(targets, predictions)
        return {"spearman": values["spearman"], "pearson": values["pearson"]}

    def statistics(self, targets: np.ndarray, predictions: np.ndarray) -> np.ndarray:
        """Returns the first and second moments of the ranks."""
        from scipy.stats import rankdata

        return super().statistics(rankdata(targets), rankdata(predictions))

    def per_class(
        self, targets: np.ndarray, predictions: np.ndarray, labels: Labels | None
    ) -> dict[str, dict[str, float]]:
        """Returns an empty dict, since there are no classes."""
        return {}

    def confusion(
        self, targets: np.ndarray, predictions: np.ndarray, labels: Labels | None
    ) -> None:
        """Returns None, since there are no classes."""
        return None
