"""The base class of evaluators: metrics, statistics for confidence intervals, and baselines."""

import abc
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np

from finetune_tf.base.extras import require_package
from finetune_tf.base.labels import Labels
from finetune_tf.data import Examples
from finetune_tf.evaluation.mistakes import Mistake
from finetune_tf.tasks import Encoded, Task


class Predicted(NamedTuple):
    """The predictions of a model or baseline for a test set.

    Attributes:
        values: Predictions in the form of `Task.decide`.
        scores: The probability of each label (n, num_labels), from which the predictions were
            decided; None where there are none, or the evaluator does not read them.
        encoded: The test set as it was prepared for the model; None for a baseline.
    """

    values: Any
    scores: np.ndarray | None = None
    encoded: Encoded | None = None


#: (training examples, training targets, test examples, labels, seed) to test predictions, or to a
#: `Predicted` where these have scores.
BaselineFunction = Callable[[Examples, Any, Examples, Labels | None, int], Any]


class Evaluator(abc.ABC):
    """Evaluates the predictions of one kind of task; `EVALUATORS` registers one for each kind.

    Targets and predictions come from `Task.targets` and `Task.decide`: one per example, in the form
    of the task.

    The main metric is a function of averages over the examples: `statistics` returns the values to
    average, and `metric` computes the metric from their averages. The bootstrap can therefore
    resample the statistics and need not evaluate each resample from scratch.

    Attributes:
        main_metric: The metric for which differences and confidence intervals are computed.
        baselines: Baselines by name, strongest first; "auto" selects the first one.
        unit: What reports call the examples, in the plural.
        example_unit: What reports call the rows of a test set, in the plural.
        lower_is_better: Whether a lower main metric is better.
        drawing: What the figure of a report shows beside the metrics, a key of `figures.DRAWINGS`.
        packages: Modules of optional packages that the metrics need.
        reads_scores: Whether `of_scores` and `mistakes` need the probabilities of labels.
    """

    main_metric: ClassVar[str]
    baselines: ClassVar[Mapping[str, BaselineFunction]]
    unit: ClassVar[str] = "texts"
    example_unit: ClassVar[str] = "texts"
    lower_is_better: ClassVar[bool] = False
    drawing: ClassVar[str] = "label scores"
    packages: ClassVar[tuple[str, ...]] = ()
    reads_scores: ClassVar[bool] = False

    @abc.abstractmethod
    def measure(self, targets: Any, predictions: Any, labels: Labels | None) -> dict[str, float]:
        """Computes the metrics by name, the main metric first."""

    @abc.abstractmethod
    def statistics(self, targets: Any, predictions: Any) -> np.ndarray:
        """Returns the values (examples, s) whose averages determine the main metric."""

    @abc.abstractmethod
    def metric(self, means: np.ndarray) -> np.ndarray:
        """Computes the main metric from averaged statistics: (resamples, s) to (resamples,)."""

    def tells_of(self, targets: Any) -> bool:
        """Whether the main metric on examples with these targets depends on the predictions.

        A correlation does not if all numbers are the same, and an F1 not if there is nothing to
        find: they are 0 then, whatever is predicted.
        """
        return True

    def require(self) -> None:
        """Checks that the optional packages that the metrics need are installed.

        Raises:
            MissingExtraError: If one is not.
        """
        for module in self.packages:
            require_package(module)

    def notes(self, targets: Any) -> list[str]:
        """Returns sentences for the report about how the metrics are computed."""
        return []

    def scores_of(self, task: Task, rows: list[np.ndarray], values: Any) -> np.ndarray | None:
        """Returns what the evaluators of `of_scores` and `mistakes` read of a model's predictions.

        Args:
            task: The task of the model.
            rows: The prediction for each row, from `Task.predict_rows`.
            values: The predictions, from `Task.decide`.
        """
        return task.probabilities(np.stack(rows)) if self.reads_scores else None

    def of_scores(self, labels: Labels | None) -> "list[Evaluator]":
        """Returns evaluators of further metrics, whose predictions are `Predicted.scores`."""
        return []

    def mistakes(
        self, test: Examples, targets: Any, predicted: Predicted, labels: Labels | None
    ) -> list[Mistake]:
        """Returns the most confident wrong predictions of a model for the report."""
        return []

    def side_by_side(self, test: Examples, targets: Any, predictions: Any) -> list[dict[str, str]]:
        """Returns a few examples for the report: texts by name, such as "source"."""
        return []

    def per_class(
        self, targets: Any, predictions: Any, labels: Labels | None
    ) -> dict[str, dict[str, float]]:
        """Computes precision, recall, f1 and support by class; empty without classes."""
        return {}

    def confusion(self, targets: Any, predictions: Any, labels: Labels | None) -> Any:
        """Computes the confusion matrix, true classes in rows; None if there is none."""
        return None
