"""Results of a test: `Report` of one model, `Comparison` of several."""

from dataclasses import asdict, dataclass

import numpy as np

from finetune_tf.base.labels import Labels
from finetune_tf.evaluation.bootstrap import Difference
from finetune_tf.evaluation.document import Document, Table
from finetune_tf.evaluation.evaluators.registry import EVALUATORS, direction_note

# A longer table of classes is cut to those that need attention.
_MOST_CLASSES = 20
_MOST_MISSED = 5


@dataclass(frozen=True)
class Baseline:
    """What a model was compared with.

    Attributes:
        name: Name of the baseline.
        metrics: Its metrics on the same test.
    """

    name: str
    metrics: dict[str, float]


class _TestResult(Document):
    """What `Report` and `Comparison` share: the kind of prediction, and how it is measured."""

    labels: Labels | None
    kind: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", self.kind or self.labels.problem_type)

    @property
    def main_metric(self) -> str:
        """Name of the metric that differences and their intervals are about."""
        return EVALUATORS[self.kind].main_metric

    @property
    def unit(self) -> str:
        """What an example is called."""
        return EVALUATORS[self.kind].unit


@dataclass(frozen=True, eq=False, repr=False)
class Report(_TestResult):
    """How good a model is on a test, printed as a short table.

    Attributes:
        name: Name of the test.
        labels: The model's labels, or None where it has none.
        metrics: Metric name to value, the main one first; see `EVALUATORS`.
        per_class: Per label precision, recall, f1 and support; empty for a regression.
        confusion: Counts (num_labels, num_labels), rows the truth, columns the prediction; None
            unless one label is right per text.
        targets: What is right, one for each example: class indices (n,), 0 and 1
            (n, num_labels), or numbers (n,); for other tasks what `Task.targets` gives.
        predictions: What the model says, in the same form.
        baseline: Name and metrics of the baseline, or None.
        difference: Model minus baseline in the main metric with its interval, or None.
        duplicates: How many texts of the test also stand in the training examples; None if
            these were not given.
        kind: What was measured, a key of `EVALUATORS`; by default the labels' problem type.
        contradictions: How many texts of the test also stand with another label in the test or
            in the training examples; None if that was not counted.
    """

    name: str
    labels: Labels | None
    metrics: dict[str, float]
    per_class: dict[str, dict[str, float]]
    confusion: np.ndarray | None
    targets: np.ndarray
    predictions: np.ndarray
    baseline: Baseline | None = None
    difference: Difference | None = None
    duplicates: int | None = None
    kind: str = ""
    contradictions: int | None = None

    _drawing = "report_figure"

    def __repr__(self) -> str:
        value = self.metrics[self.main_metric]
        size = f"{len(self.targets)} {self.unit}"
        return f"<Report on {self.name}: {self.main_metric} {value:.3f}, {size}>"

    def blocks(self) -> list[str | Table]:
        """Lines and tables in reading order."""
        blocks = [f"{self.name}: {len(self.targets):,} {self.unit}", self._metrics_table()]
        if self.difference is not None:
            blocks.append(self._difference_line())
        if self.duplicates is not None:
            blocks.append(_duplicates_line(self.duplicates, len(self.targets)))
        if self.contradictions:
            blocks.append(
                f"{self.contradictions:,} of {len(self.targets):,} texts of the test also stand "
                "with another label in the test or the training examples: no model gets these "
                "right, except by chance."
            )
        if self.per_class:
            blocks += self._class_blocks()
        return blocks

    def to_dict(self) -> dict:
        """Plain values for JSON; targets and predictions are left out."""
        return {
            "name": self.name,
            "texts": len(self.targets),
            "kind": self.kind,
            "labels": list(self.labels or ()),
            "main_metric": self.main_metric,
            "metrics": self.metrics,
            "per_class": self.per_class,
            "confusion": None if self.confusion is None else self.confusion.tolist(),
            "baseline": None if self.baseline is None else asdict(self.baseline),
            "difference": None if self.difference is None else asdict(self.difference),
            "duplicates": self.duplicates,
            "contradictions": self.contradictions,
        }

    def _metrics_table(self) -> Table:
        header, columns = ["", "fine-tuned"], [self.metrics]
        if self.baseline is not None:
            header.append(f"baseline {self.baseline.name}")
            columns.append(self.baseline.metrics)
        rows = [[name, *(f"{column[name]:.3f}" for column in columns)] for name in self.metrics]
        return Table(header, rows)

    def _difference_line(self) -> str:
        metric = self.difference.metric
        doubt = "" if self.difference.is_clear else "; the interval includes 0, no clear difference"
        return (
            f"{metric}: fine-tuned {self.metrics[metric]:.3f}, "
            f"baseline {self.baseline.name} {self.baseline.metrics[metric]:.3f}, "
            f"difference {self.difference}{doubt}{direction_note(self.kind, '; ')}"
        )

    def _class_blocks(self) -> list[str | Table]:
        shown = list(self.per_class)
        note = []
        if len(shown) > _MOST_CLASSES:
            in_test = [name for name in shown if self.per_class[name]["support"]]
            shown = sorted(in_test, key=lambda name: self.per_class[name]["f1"])[:_MOST_CLASSES]
            note = [f"The {len(shown)} of {len(self.per_class)} classes with the lowest f1:"]
        rows = [
            [
                name,
                *(f"{self.per_class[name][key]:.3f}" for key in ("precision", "recall", "f1")),
                f"{self.per_class[name]['support']:,}",
            ]
            for name in shown
        ]
        table = Table(["class", "precision", "recall", "f1", "support"], rows)
        return [*note, table, *self._missed_classes()]

    def _missed_classes(self) -> list[str]:
        """A sentence about the classes of the test that the model never gets right."""
        missed = {
            name: measures["support"]
            for name, measures in self.per_class.items()
            if measures["support"] and not measures["f1"]
        }
        if not missed:
            return []
        rarest = sorted(missed, key=missed.get)
        told = ", ".join(f"{name} ({missed[name]:,} in the test)" for name in rarest[:_MOST_MISSED])
        more = f" and {len(missed) - _MOST_MISSED} more" if len(missed) > _MOST_MISSED else ""
        return [
            f"Never predicted right: {told}{more}. Of a class that is rare in training, collect "
            "more examples, or let each count more: class_weight=."
        ]


@dataclass(frozen=True)
class Row:
    """One model of a comparison.

    Attributes:
        name: Its name.
        metrics: Its metrics on the test.
        trainable_parameters: How many numbers learn in it; None for a baseline.
        difference: Its difference to the first row with the interval; None in the first row.
    """

    name: str
    metrics: dict[str, float]
    trainable_parameters: int | None
    difference: Difference | None


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(_TestResult):
    """Several models on one test, printed as a table.

    Attributes:
        name: Name of the test.
        texts: How many texts it has.
        labels: The labels of the first model, or None.
        rows: One `Row` a model in the order given, then the baseline if there is one.
        duplicates: As in `Report`.
        kind: As in `Report`.
    """

    name: str
    texts: int
    labels: Labels | None
    rows: list[Row]
    duplicates: int | None = None
    kind: str = ""

    _drawing = "comparison_figure"

    def __repr__(self) -> str:
        values = ", ".join(f"{row.name} {row.metrics[self.main_metric]:.3f}" for row in self.rows)
        return f"<Comparison on {self.name}: {self.main_metric} {values}>"

    def blocks(self) -> list[str | Table]:
        """Lines and tables in reading order."""
        metrics = list(self.rows[0].metrics)
        against = f"{self.main_metric} against {self.rows[0].name}{direction_note(self.kind, ', ')}"
        header = ["model", *metrics, "trainable", against]
        rows = [
            [
                row.name,
                *(f"{row.metrics[name]:.3f}" for name in metrics),
                "-" if row.trainable_parameters is None else f"{row.trainable_parameters:,}",
                "-" if row.difference is None else str(row.difference),
            ]
            for row in self.rows
        ]
        blocks = [f"{self.name}: {self.texts:,} {self.unit}", Table(header, rows)]
        if self.duplicates is not None:
            blocks.append(_duplicates_line(self.duplicates, self.texts))
        return blocks

    def to_dict(self) -> dict:
        """Plain values for JSON."""
        return {
            "name": self.name,
            "texts": self.texts,
            "kind": self.kind,
            "labels": list(self.labels or ()),
            "main_metric": self.main_metric,
            "rows": [asdict(row) for row in self.rows],
            "duplicates": self.duplicates,
        }


def _duplicates_line(duplicates: int, texts: int) -> str:
    if not duplicates:
        return "No text of the test stands in the training examples."
    return (
        f"{duplicates:,} of {texts:,} texts of the test also stand in the training examples: "
        "new texts may turn out worse than the metrics say."
    )
