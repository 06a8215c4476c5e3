"""The results of several models on one test set: `Comparison`."""

from dataclasses import asdict, dataclass, field

from finetune_tf.base.labels import Labels
from finetune_tf.evaluation.bootstrap import Difference
from finetune_tf.evaluation.document import Table
from finetune_tf.evaluation.evaluators.registry import direction_note
from finetune_tf.evaluation.report import ResultOnTest, duplicates_line, value_of


@dataclass(frozen=True)
class Row:
    """One model of a comparison.

    Attributes:
        name: The name of the model.
        metrics: Its metrics on the test set.
        trainable_parameters: The number of trainable parameters; None for a baseline.
        difference: The difference to the first row with its confidence interval; None in the first
            row.
        further_differences: The differences in further metrics that have an interval.
    """

    name: str
    metrics: dict[str, float]
    trainable_parameters: int | None
    difference: Difference | None
    further_differences: list[Difference] = field(default_factory=list)


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(ResultOnTest):
    """The results of several models on one test set; `print` shows them as a table.

    Attributes:
        name: The name of the test set.
        texts: The number of test examples.
        labels: The labels of the first model, or None.
        rows: One `Row` per model in the order of the call, then one for the baseline if there is
            one.
        duplicates: As in `Report`.
        kind: As in `Report`.
        notes: As in `Report`.

    Example:
        >>> comparison = ft.compare({"first": model, "second": model}, test)
        >>> [row.name for row in comparison.rows]
        ['first', 'second']
        >>> comparison.rows[1].difference.value
        0.0
    """

    name: str
    texts: int
    labels: Labels | None
    rows: list[Row]
    duplicates: int | None = None
    kind: str = ""
    notes: list[str] = field(default_factory=list)

    _drawing = "comparison_figure"

    def __repr__(self) -> str:
        values = ", ".join(f"{row.name} {row.metrics[self.main_metric]:.3f}" for row in self.rows)
        return f"<Comparison on {self.name}: {self.main_metric} {values}>"

    def blocks(self) -> list[str | Table]:
        """Returns the lines and tables of the comparison in reading order."""
        metrics = list(self.rows[0].metrics)
        note = direction_note(self.kind, ", ")
        header = ["model", *metrics, "trainable"]
        header.append(f"{self.main_metric} against {self.rows[0].name}{note}")
        further = list(
            dict.fromkeys(d.metric for row in self.rows for d in row.further_differences)
        )
        header += [f"{metric} against {self.rows[0].name}" for metric in further]
        rows = [
            [
                row.name,
                *(value_of(row.metrics, name) for name in metrics),
                "-" if row.trainable_parameters is None else f"{row.trainable_parameters:,}",
                "-" if row.difference is None else str(row.difference),
                *(_difference_in(row, metric) for metric in further),
            ]
            for row in self.rows
        ]
        blocks = [f"{self.name}: {self.texts:,} {self.unit}", Table(header, rows)]
        if self.duplicates is not None:
            blocks.append(duplicates_line(self.duplicates, self.texts, self.kind))
        return blocks + self.notes

    def to_dict(self) -> dict:
        """Returns the comparison as values that JSON can represent."""
        return {
            "name": self.name,
            "texts": self.texts,
            "kind": self.kind,
            "labels": list(self.labels or ()),
            "main_metric": self.main_metric,
            "rows": [asdict(row) for row in self.rows],
            "duplicates": self.duplicates,
            "notes": self.notes,
        }


def _difference_in(row: Row, metric: str) -> str:
    return next((str(each) for each in row.further_differences if each.metric == metric), "-")
