"""The evaluators of image classification and regression: those of texts with other baselines."""

import numpy as np

from finetune_tf.base.labels import Labels
from finetune_tf.data import Examples
from finetune_tf.evaluation.baselines.images import baselines_for_images
from finetune_tf.evaluation.evaluators.evaluator import Evaluator, Predicted
from finetune_tf.evaluation.evaluators.text import MultiLabel, Regression, SingleLabel
from finetune_tf.evaluation.mistakes import Mistake, find_mistakes

_BEST = 5


class Top5(Evaluator):
    """Evaluates scores (n, num_labels): whether the true class is among the five highest ones.

    Among equal scores, those of lower class indices count as higher, as for the predicted class.

    Example:
        >>> from finetune_tf.evaluation.evaluators.images import Top5
        >>> scores = np.array([[0.3, 0.25, 0.2, 0.15, 0.06, 0.04]])
        >>> Top5().measure([4], scores, None), Top5().measure([5], scores, None)
        ({'top5_accuracy': 1.0}, {'top5_accuracy': 0.0})
    """

    main_metric = "top5_accuracy"
    baselines = {}

    def measure(
        self, targets: np.ndarray, predictions: np.ndarray, labels: Labels | None
    ) -> dict[str, float]:
        """Computes the top-5 accuracy of scores."""
        return {self.main_metric: float(self.statistics(targets, predictions).mean())}

    def statistics(self, targets: np.ndarray, predictions: np.ndarray) -> np.ndarray:
        """Returns 1 where the true class is among the five highest scores, else 0 (n, 1)."""
        targets = np.asarray(targets)[:, None]
        true_scores = np.take_along_axis(predictions, targets, axis=1)
        is_lower_index = np.arange(predictions.shape[1]) < targets
        before = (predictions > true_scores) | ((predictions == true_scores) & is_lower_index)
        return np.float64(before.sum(axis=1) < _BEST)[:, None]

    def metric(self, means: np.ndarray) -> np.ndarray:
        """Returns the top-5 accuracy."""
        return means[:, 0]


class _ImageEvaluator:
    unit = example_unit = "images"

    def __init__(self) -> None:
        super().__init__()
        self.baselines = baselines_for_images(self.kind)


class TopOfScores:
    """Adds the top-5 accuracy to an evaluator of single labels with more than five classes."""

    reads_scores = True

    def of_scores(self, labels: Labels) -> list[Evaluator]:
        """Returns the evaluator of the top-5 accuracy for more than five classes."""
        return [Top5()] if len(labels) > _BEST else []


class SingleLabelImages(_ImageEvaluator, TopOfScores, SingleLabel):
    """Evaluates class indices (n,); the main metric is the accuracy.

    With more than five classes there is also the top-5 accuracy.
    """

    def mistakes(
        self, test: Examples, targets: np.ndarray, predicted: Predicted, labels: Labels
    ) -> list[Mistake]:
        """See `mistakes.find_mistakes`."""
        return find_mistakes(
            test, predicted.encoded, targets, predicted.values, predicted.scores, labels
        )


class MultiLabelImages(_ImageEvaluator, MultiLabel):
    """Evaluates 0 and 1 (n, num_labels); the main metric is the micro-averaged F1."""


class ImageRegression(_ImageEvaluator, Regression):
    """Evaluates numbers (n,); the main metric is Pearson's correlation."""
