"""The result of one model on a test set: `Report`."""

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_tf.base.labels import Labels
from finetune_tf.base.spelling import names_checked
from finetune_tf.data import Examples
from finetune_tf.errors import DataError
from finetune_tf.evaluation.bootstrap import Difference
from finetune_tf.evaluation.document import Document, Table, require_matplotlib
from finetune_tf.evaluation.evaluators.registry import EVALUATORS, direction_note
from finetune_tf.evaluation.intervals import Interval
from finetune_tf.evaluation.mistakes import Mistake
from finetune_tf.evaluation.mistakes_shown import draw_mistakes, mistakes_html, mistakes_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A longer table of classes is limited to those with the lowest F1.
_MAX_CLASSES = 20
_MAX_MISSED = 5
_MAX_EXAMPLE = 60  # characters of a text in the table of examples; report.json has all of them


@dataclass(frozen=True)
class Baseline:
    """The baseline that a model was compared with.

    Attributes:
        name: The name of the baseline.
        metrics: Its metrics on the same test set.
    """

    name: str
    metrics: dict[str, float]


class ResultOnTest(Document):
    """The common part of `Report` and `Comparison`: the kind of task and its main metric."""

    labels: Labels | None
    kind: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", self.kind or self.labels.problem_type)

    @property
    def main_metric(self) -> str:
        """The metric for which differences and confidence intervals are computed."""
        return EVALUATORS[self.kind].main_metric

    @property
    def unit(self) -> str:
        """What the examples are called in the plural, such as "texts" or "questions"."""
        return EVALUATORS[self.kind].unit


@dataclass(frozen=True, eq=False, repr=False)
class Report(ResultOnTest):
    """The results of a model on a test set; `print` shows them as a short table.

    Attributes:
        name: The name of the test set.
        labels: The model's labels; None for tasks without labels.
        metrics: Metric values by name, the main metric first; see `EVALUATORS`.
        per_class: Precision, recall, f1 and support by label; empty for a regression.
        confusion: The confusion matrix (num_labels, num_labels) as counts: true labels in rows,
            predicted labels in columns. None unless the task is single-label classification.
        targets: The ground truth, one per example: class indices (n,), 0 and 1
            (n, num_labels), or numbers (n,); for other tasks what `Task.targets` returns.
        predictions: The model's predictions in the same form.
        baseline: The name and metrics of the baseline, or None.
        difference: The difference model minus baseline in the main metric with its confidence
            interval, or None.
        duplicates: The number of test texts that occur in the training examples as well; None if
            no training examples were passed.
        kind: The kind of task, a key of `EVALUATORS`; by default the problem type of the labels.
        contradictions: The number of test texts that occur with a different label in the test set
            or in the training examples; None if they were not counted.
        notes: Sentences about how the metrics were computed, such as sacrebleu's signature.
        examples: For tasks that generate texts a few examples, each with its source, reference
            and prediction.
        further_differences: The differences in further metrics that have an interval, such as
            top5_accuracy.
        mistakes: For image classification with one label the wrong predictions with the highest
            probabilities, as `Mistake` with thumbnails.
        interval: The main metric of the model with its confidence interval; None if it was not
            computed.
        test: The test examples as they were given; None if the report was not made by `evaluate`.

    Example:
        >>> report = ft.evaluate(model, test)
        >>> report.main_metric, list(report.metrics)
        ('accuracy', ['accuracy', 'macro_f1', 'mcc'])
        >>> report.confusion.shape
        (2, 2)
        >>> report.to_dict()["labels"]
        ['bad', 'good']
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
    notes: list[str] = field(default_factory=list)
    examples: list[dict[str, str]] = field(default_factory=list)
    further_differences: list[Difference] = field(default_factory=list)
    mistakes: list[Mistake] = field(default_factory=list)
    interval: Interval | None = None
    test: Examples | None = None

    _drawing = "report_figure"

    def __repr__(self) -> str:
        value = self.metrics[self.main_metric]
        size = f"{len(self.targets)} {self.unit}"
        return f"<Report on {self.name}: {self.main_metric} {value:.3f}, {size}>"

    def blocks(self) -> list[str | Table]:
        """Returns the lines and tables of the report in reading order."""
        blocks = [f"{self.name}: {len(self.targets):,} {self.unit}", self._metrics_table()]
        if self.difference is not None:
            blocks += map(self._difference_line, (self.difference, *self.further_differences))
        if self.duplicates is not None:
            blocks.append(duplicates_line(self.duplicates, len(self.targets), self.kind))
        if self.contradictions:
            blocks.append(
                f"{self.contradictions:,} of {len(self.targets):,} test "
                f"{EVALUATORS[self.kind].example_unit} also occur with another "
                "label in the test set or the training examples: a model can predict "
                "these correctly only by chance."
            )
        if self.per_class:
            blocks += self._class_blocks()
        blocks += mistakes_table(self.mistakes)
        return blocks + self._example_blocks() + self.notes

    def plot_mistakes(self) -> "Figure":
        """Draws the most confident mistakes of image classification with their labels.

        Raises:
            DataError: If the report has no such mistakes.
            MissingExtraError: If matplotlib is not installed.
        """
        if not self.mistakes:
            raise DataError(
                f"{self!r} has no mistakes to draw. Reports on image classification with one "
                "label for an image have them, unless all predictions are correct."
            )
        with require_matplotlib().rc_context({"text.parse_math": False}):
            return draw_mistakes(self.mistakes, self.labels, self.name)

    def _figures(self) -> "dict[str, Callable[[], Figure] | None]":
        return super()._figures() | {"mistakes.png": self.plot_mistakes if self.mistakes else None}

    def _repr_html_(self) -> str:
        return super()._repr_html_() + mistakes_html(self.mistakes)

    def to_dict(self) -> dict:
        """Returns the report as values that JSON can represent, without targets and predictions."""
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
            "notes": self.notes,
            "examples": self.examples,
            "further_differences": [asdict(each) for each in self.further_differences],
            "mistakes": [each.to_dict() for each in self.mistakes],
            "interval": None if self.interval is None else asdict(self.interval),
        }

    def save(self, folder: str | os.PathLike, **page: Any) -> Path:
        """Writes report.json, report.txt and report.html, and figures if matplotlib is installed.

        The figure is report.png. A report on images with mistakes also writes mistakes.png.

        Args:
            folder: The folder, created if it does not exist. Files of these names are replaced.
            **page: Arguments of `save_html` for the page, such as `lang="zh"`.

        Returns:
            The folder.

        Raises:
            DataError: If a file cannot be written; an earlier file is then unchanged.
        """
        folder = super().save(folder)
        self.save_html(folder / "report.html", **page)
        return folder

    @names_checked
    def save_html(
        self,
        path: str | os.PathLike,
        lang: str = "en",
        *,
        model: Any = None,
        train: Examples | None = None,
        history: Mapping[str, Sequence[float]] | Any = None,
        settings: Mapping[str, Any] | None = None,
        results: Sequence[Any] = (),
        explanations: int = 5,
    ) -> Path:
        """Writes the report as one HTML file, which needs no network and runs no script.

        The page shows what it has data for, and says in one line for each other part what would
        provide it. It fits screens and paper, light and dark.

        Args:
            path: The file. Its folder is created, and an earlier file is replaced.
            lang: The language of the page, "en" or "zh". Data, code and messages of errors are
                shown as they are.
            model: The model that was evaluated. It adds the examples with the highest losses and
                their explanations, the calibration, parts of the test set, likely label errors and
                facts about the model. This runs the model over the test set several times.
            train: The training examples. With the model, they add near duplicates and drift between
                training and test, for which the features of all of them are computed.
            history: What `model.fit` returns, or the history of a `FinetuneResult`, for learning
                curves.
            settings: The settings of the training, as those of a `FinetuneResult`.
            results: Results of `ft.diagnosis` or `ft.calibration` that are shown instead of
                computing them again.
            explanations: How many of the examples with the highest losses are explained, up to 50.

        Returns:
            The absolute path of the file.

        Raises:
            ArgumentError: If the language is unknown, or a result is of another kind.
            DataError: If the file cannot be written; an earlier file is then unchanged.
            DataTypeError: If `train`, `history` or `settings` is of another type.
            ModelError: If the model has other labels than the report.

        Example:
            >>> report = ft.evaluate(model, test)
            >>> report.save_html("report.html", train=train).name
            'report.html'
        """
        # The page shows results of packages that import this one, so it is in a package after it.
        pages = importlib.import_module("finetune_tf.pages")
        return pages.save_html(
            self,
            path,
            lang,
            model=model,
            train=train,
            history=history,
            settings=settings,
            results=results,
            explanations=explanations,
        )

    def _metrics_table(self) -> Table:
        header, columns = ["", "fine-tuned"], [self.metrics]
        if self.baseline is not None:
            header.append(f"baseline {self.baseline.name}")
            columns.append(self.baseline.metrics)
        rows = [[name, *(value_of(column, name) for column in columns)] for name in self.metrics]
        return Table(header, rows)

    def _difference_line(self, difference: Difference) -> str:
        metric = difference.metric
        note = "" if difference.is_clear else "; the interval includes 0, no clear difference"
        return (
            f"{metric}: fine-tuned {self.metrics[metric]:.3f}, "
            f"baseline {self.baseline.name} {self.baseline.metrics[metric]:.3f}, "
            f"difference {difference}{note}{direction_note(self.kind, '; ')}"
        )

    def _example_blocks(self) -> list[Table]:
        if not self.examples:
            return []
        rows = [[_shortened(text) for text in row.values()] for row in self.examples]
        return [Table(list(self.examples[0]), rows, has_numbers=False)]

    def _class_blocks(self) -> list[str | Table]:
        shown = list(self.per_class)
        note = []
        if len(shown) > _MAX_CLASSES:
            in_test = [name for name in shown if self.per_class[name]["support"]]
            shown = sorted(in_test, key=lambda name: self.per_class[name]["f1"])[:_MAX_CLASSES]
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
        """Returns a sentence about classes of the test set without a correct prediction."""
        missed = {
            name: measures["support"]
            for name, measures in self.per_class.items()
            if measures["support"] and not measures["f1"]
        }
        if not missed:
            return []
        rarest = sorted(missed, key=missed.get)
        listed = ", ".join(
            f"{name} ({missed[name]:,} in the test set)" for name in rarest[:_MAX_MISSED]
        )
        more = f" and {len(missed) - _MAX_MISSED} more" if len(missed) > _MAX_MISSED else ""
        return [
            f"Never predicted correctly: {listed}{more}. If a class is rare in the training data, "
            "collect more examples of it, or increase its weight with class_weight=."
        ]


def value_of(metrics: dict[str, float], name: str) -> str:
    """Returns a metric as text; predictions without scores lack the metrics of scores."""
    return f"{metrics[name]:.3f}" if name in metrics else "-"


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_EXAMPLE else f"{text[: _MAX_EXAMPLE - 1]}…"


def duplicates_line(duplicates: int, total: int, kind: str) -> str:
    """Returns the sentence about test examples that occur in the training examples."""
    unit = EVALUATORS[kind].example_unit
    if not duplicates:
        return f"No test {unit.removesuffix('s')} occurs in the training examples."
    return (
        f"{duplicates:,} of {total:,} test {unit} also occur in the training examples: "
        f"results on new {unit} may be worse than these metrics."
    )
