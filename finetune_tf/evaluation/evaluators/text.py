"""The evaluators of text classification (single-label and multi-label) and regression."""

from typing import ClassVar

import numpy as np

from finetune_tf.base.labels import Labels
from finetune_tf.evaluation.baselines.text import baselines_for
from finetune_tf.evaluation.evaluators.evaluator import Evaluator
from finetune_tf.evaluation.metrics import MAIN_METRIC, compute_metrics, confusion, per_class


class _TextEvaluator(Evaluator):
    kind: ClassVar[str]

    def __init__(self) -> None:
        self.main_metric = MAIN_METRIC[self.kind]
        self.baselines = baselines_for(self.kind)

    def measure(
        self, targets: np.ndarray, predictions: np.ndarray, labels: Labels
    ) -> dict[str, float]:
        """See `metrics.compute_metrics`."""
        return compute_metrics(targets, predictions, labels)

    def per_class(
        self, targets: np.ndarray, predictions: np.ndarray, labels: Labels
    ) -> dict[str, dict[str, float]]:
        """See `metrics.per_class`."""
        return per_class(targets, predictions, labels)

    def confusion(
        self, targets: np.ndarray, predictions: np.ndarray, labels: Labels
    ) -> np.ndarray | None:
        """See `metrics.confusion`."""
        return confusion(targets, predictions, labels)


class SingleLabel(_TextEvaluator):
    """Evaluates class indices (n,); the main metric is the accuracy."""

    kind = "single_label_classification"
    drawing = "confusion"

    def statistics(self, targets: np.ndarray, predictions: np.ndarray) -> np.ndarray:
        """Returns 1 for each correct prediction, else 0 (n, 1)."""
        return np.float64(predictions == targets)[:, None]

    def metric(self, means: np.ndarray) -> np.ndarray:
        """Returns the accuracy."""
        return means[:, 0]


class MultiLabel(_TextEvaluator):
    """Evaluates 0 and 1 (n, num_labels); the main metric is the micro-averaged F1."""

    kind = "multi_label_classification"

    def statistics(self, targets: np.ndarray, predictions: np.ndarray) -> np.ndarray:
        """Returns the numbers of true positives and of errors per text (n, 2)."""
        true_positives = ((predictions == 1) & (targets == 1)).sum(axis=1)
        errors = (predictions != targets).sum(axis=1)
        return np.float64(np.stack([true_positives, errors], axis=1))

    def metric(self, means: np.ndarray) -> np.ndarray:
        """Computes the micro-averaged F1; 0 if undefined."""
        true_positives, errors = means.T
        total = 2 * true_positives + errors
        return np.divide(2 * true_positives, total, out=np.zeros_like(total), where=total > 0)

    def tells_of(self, targets: np.ndarray) -> bool:
        """Whether an example has a label."""
        return bool(np.any(targets))


class Regression(_TextEvaluator):
    """Evaluates numbers (n,); the main metric is Pearson's correlation."""

    kind = "regression"
    drawing = "scatter on one scale"

    def statistics(self, targets: np.ndarray, predictions: np.ndarray) -> np.ndarray:
        """Returns the first and second moments of targets and predictions (n, 5)."""
        # Standardize first: with a large mean, the variances in `metric` would lose precision.
        x, y = _standardize(targets), _standardize(predictions)
        return np.stack([x, y, x * x, y * y, x * y], axis=1)

    def metric(self, means: np.ndarray) -> np.ndarray:
        """Computes Pearson's correlation; 0 if undefined."""
        x, y, xx, yy, xy = means.T
        variances = (xx - x * x) * (yy - y * y)
        defined = variances > 1e-12
        root = np.sqrt(variances, where=defined, out=np.ones_like(variances))
        return np.divide(xy - x * y, root, out=np.zeros_like(variances), where=defined)

    def tells_of(self, targets: np.ndarray) -> bool:
        """Whether the numbers differ."""
        return len(np.unique(targets)) > 1


def _standardize(values: np.ndarray) -> np.ndarray:
    values = np.float64(values)
    deviation = values.std()
    # A constant becomes exactly zero; dividing by its rounding error would produce noise.
    if deviation <= 1e-12 * np.abs(values).max():
        return np.zeros_like(values)
    return (values - values.mean()) / deviation
