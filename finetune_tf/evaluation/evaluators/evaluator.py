"""What measuring means, whatever the task: metrics, their intervals, and what to beat."""

import abc
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from finetune_tf.base.labels import Labels
from finetune_tf.data import Examples

#: (training examples, their targets, test examples, labels, seed) to predictions for the test.
BaselineFunction = Callable[[Examples, Any, Examples, Labels | None, int], Any]


class Evaluator(abc.ABC):
    """How predictions of one kind are measured; there is one row for each in `EVALUATORS`.

    Targets and predictions come from `Task.targets` and `Task.decide`: one for each example, in
    whatever form the kind has.

    A metric with an interval is a function of averages over the examples: `statistics` gives what
    is averaged, and `metric` the value, so that the bootstrap can draw examples anew without
    measuring each draw from scratch.

    Attributes:
        main_metric: The metric that comparisons and intervals are about.
        baselines: By name, the strongest first: that is what "auto" means.
        unit: What an example is called in reports.
        lower_is_better: Of the main metric.
        drawing: What a report's figure shows beside the metrics, a key of `figures.DRAWINGS`.
    """

    main_metric: ClassVar[str]
    baselines: ClassVar[Mapping[str, BaselineFunction]]
    unit: ClassVar[str] = "texts"
    lower_is_better: ClassVar[bool] = False
    drawing: ClassVar[str] = "label scores"

    @abc.abstractmethod
    def measure(self, targets: Any, predictions: Any, labels: Labels | None) -> dict[str, float]:
        """The metrics by name, the main one first."""

    @abc.abstractmethod
    def statistics(self, targets: Any, predictions: Any) -> np.ndarray:
        """What the main metric is made of: (examples, s)."""

    @abc.abstractmethod
    def metric(self, means: np.ndarray) -> np.ndarray:
        """The main metric from averages of the statistics: (draws, s) to (draws,)."""

    def per_class(
        self, targets: Any, predictions: Any, labels: Labels | None
    ) -> dict[str, dict[str, float]]:
        """Precision, recall, f1 and support by class; empty where there are no classes."""
        return {}

    def confusion(self, targets: Any, predictions: Any, labels: Labels | None) -> Any:
        """Counts (classes, classes), rows the truth; None where it makes no sense."""
        return None
