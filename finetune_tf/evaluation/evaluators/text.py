"""How predictions about whole texts are measured: classes, sets of labels, numbers."""

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
    """Class indices (n,); the main metric is the accuracy."""

    kind = "single_label_classification"
    drawing = "confusion"

    def statistics(self, targets: np.ndarray, predictions: np.ndarray) -> np.ndarray:
        """Whether it is right."""
        return np.float64(predictions == targets)[:, None]

    def metric(self, means: np.ndarray) -> np.ndarray:
        """Accuracy."""
        return means[:, 0]


class MultiLabel(_TextEvaluator):
    """0 and 1 (n, num_labels); the main metric is the F1 over all labels together."""

    kind = "multi_label_classification"

    def statistics(self, targets: np.ndarray, predictions: np.ndarray) -> np.ndarray:
        """Hits and errors."""
        hits = ((predictions == 1) & (targets == 1)).sum(axis=1)
        errors = (predictions != targets).sum(axis=1)
        return np.float64(np.stack([hits, errors], axis=1))

    def metric(self, means: np.ndarray) -> np.ndarray:
        """Micro F1."""
        hits, errors = means.T
        total = 2 * hits + errors
        return np.divide(2 * hits, total, out=np.zeros_like(total), where=total > 0)


class Regression(_TextEvaluator):
    """Numbers (n,); the main metric is Pearson's correlation."""

    kind = "regression"
    drawing = "scatter on one scale"

    def statistics(self, targets: np.ndarray, predictions: np.ndarray) -> np.ndarray:
        """First and second moments."""
        # Standardised first: the variances below would otherwise lose digits to large means.
        x, y = _standardised(targets), _standardised(predictions)
        return np.stack([x, y, x * x, y * y, x * y], axis=1)

    def metric(self, means: np.ndarray) -> np.ndarray:
        """Pearson's correlation; 0 where it is undefined."""
        x, y, xx, yy, xy = means.T
        variances = (xx - x * x) * (yy - y * y)
        defined = variances > 1e-12
        root = np.sqrt(variances, where=defined, out=np.ones_like(variances))
        return np.divide(xy - x * y, root, out=np.zeros_like(variances), where=defined)


def _standardised(values: np.ndarray) -> np.ndarray:
    values = np.float64(values)
    deviation = values.std()
    # A constant is left at exactly zero; dividing its rounding error would make noise of it.
    if deviation <= 1e-12 * np.abs(values).max():
        return np.zeros_like(values)
    return (values - values.mean()) / deviation
