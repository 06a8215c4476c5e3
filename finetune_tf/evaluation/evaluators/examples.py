"""The evaluators of examples with images and texts, and of models that read either of both."""

import numpy as np

from finetune_tf.architectures import PIXELS
from finetune_tf.base.labels import Labels
from finetune_tf.data import Examples
from finetune_tf.evaluation.baselines.examples import baselines_for_examples
from finetune_tf.evaluation.evaluators.evaluator import Predicted
from finetune_tf.evaluation.evaluators.images import SingleLabelImages
from finetune_tf.evaluation.evaluators.text import MultiLabel, Regression
from finetune_tf.evaluation.mistakes import Mistake


class _ExampleEvaluator:
    unit = example_unit = "examples"

    def __init__(self) -> None:
        super().__init__()
        self.baselines = baselines_for_examples(self.kind)


class SingleLabelExamples(_ExampleEvaluator, SingleLabelImages):
    """Evaluates class indices (n,); the main metric is the accuracy.

    With more than five classes there is also the top-5 accuracy.
    """

    def mistakes(
        self, test: Examples, targets: np.ndarray, predicted: Predicted, labels: Labels
    ) -> list[Mistake]:
        """See `mistakes.find_mistakes`; none for a model that reads no images."""
        if PIXELS not in predicted.encoded.inputs:
            return []
        return super().mistakes(test, targets, predicted, labels)


class MultiLabelExamples(_ExampleEvaluator, MultiLabel):
    """Evaluates 0 and 1 (n, num_labels); the main metric is the micro-averaged F1."""


class ExampleRegression(_ExampleEvaluator, Regression):
    """Evaluates numbers (n,); the main metric is Pearson's correlation."""
