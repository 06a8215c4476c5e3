"""What a page can show: a report, and what belongs to it where it was given."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from finetune_tf.data import Examples
from finetune_tf.evaluation.bootstrap import metric_interval
from finetune_tf.evaluation.evaluators.registry import EVALUATORS
from finetune_tf.evaluation.intervals import Interval
from finetune_tf.evaluation.report import Report
from finetune_tf.messages import quiet
from finetune_tf.pages.elements import Html, tag
from finetune_tf.pages.words import Words

if TYPE_CHECKING:
    from finetune_tf.model.finetune_model import FineTuneModel

Result = TypeVar("Result")


class NeedsError(Exception):
    """A section cannot be shown, because an argument of `save_html` was not given.

    Args:
        *names: The arguments that would provide it.
    """

    def __init__(self, *names: str) -> None:
        super().__init__(*names)
        self.names = names


class NoTestError(Exception):
    """A section cannot be shown, because the report does not have its test examples."""


@dataclass
class Content:
    """A report, the words of its page, and the optional inputs of `Report.save_html`.

    Attributes:
        report: The report.
        words: The words of the page.
        model: The model, or None.
        train: The training examples, or None.
        history: Values by metric and epoch; empty if unknown.
        settings: The settings of the training; empty if unknown.
        explanations: The number of examples that are explained.
        results: Results of `ft.diagnosis` and `ft.calibration` that were given, by their types.
        written: When the page is written.
    """

    report: Report
    words: Words
    model: "FineTuneModel | None" = None
    train: Examples | None = None
    history: Mapping[str, list[float]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    explanations: int = 5
    results: Mapping[type, Any] = field(default_factory=dict)
    written: str = ""

    @cached_property
    def main_metric(self) -> Interval:
        """The main metric of the model with its interval."""
        report = self.report
        if report.interval is not None:
            return report.interval
        return metric_interval(EVALUATORS[report.kind], report.targets, report.predictions)

    @property
    def lower_is_better(self) -> bool:
        """Whether a lower main metric is better."""
        return EVALUATORS[self.report.kind].lower_is_better

    @property
    def has_decisions(self) -> bool:
        """Whether the model chooses among labels, so that there are losses and confidences."""
        if self.model is not None:
            return self.model.task.has_decisions
        labels = self.report.labels
        return labels is not None and labels.problem_type != "regression"

    @property
    def test(self) -> Examples:
        """The test examples.

        Raises:
            NoTestError: If the report was not made by `evaluate`.
        """
        if self.report.test is None:
            raise NoTestError
        return self.report.test

    def data_of(self, result: Any) -> Html | None:
        """A line that says what data a given result is about, if they are not the test.

        Args:
            result: A result of `ft.diagnosis` or `ft.calibration`.
        """
        if result.data == self.report.name:
            return None
        return tag("p", self.words.html("result_on", data=result.data), class_="faint")

    def needs(self, *names: str) -> None:
        """Raises an error if one of the inputs was not given.

        Args:
            *names: Attributes of this object.

        Raises:
            NeedsError: If one of them is None or empty.
        """
        if missing := [name for name in names if not getattr(self, name)]:
            raise NeedsError(*missing)

    def result(self, kind: type[Result], compute: Callable[[], Result], *names: str) -> Result:
        """Returns a given result of that type, or computes it.

        Args:
            kind: The type of the result.
            compute: Computes it.
            *names: The inputs that the computation needs.

        Raises:
            NeedsError: If it was not given, and neither were the inputs.
        """
        if kind in self.results:
            return self.results[kind]
        self.needs(*names)
        with quiet():  # what is computed here is said on the page
            return compute()
