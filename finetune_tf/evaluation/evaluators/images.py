"""The evaluators of image classification and regression: those of texts with other baselines."""

from finetune_tf.evaluation.baselines.images import baselines_for_images
from finetune_tf.evaluation.evaluators.text import MultiLabel, Regression, SingleLabel


class _ImageEvaluator:
    unit = example_unit = "images"

    def __init__(self) -> None:
        super().__init__()
        self.baselines = baselines_for_images(self.kind)


class SingleLabelImages(_ImageEvaluator, SingleLabel):
    """Evaluates class indices (n,); the main metric is the accuracy."""


class MultiLabelImages(_ImageEvaluator, MultiLabel):
    """Evaluates 0 and 1 (n, num_labels); the main metric is the micro-averaged F1."""


class ImageRegression(_ImageEvaluator, Regression):
    """Evaluates numbers (n,); the main metric is Pearson's correlation."""
