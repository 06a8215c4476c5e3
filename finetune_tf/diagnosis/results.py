"""The results of this package: lists of rows, which `print` shows as short tables."""

from dataclasses import dataclass

from finetune_tf.evaluation.document import DataDocument, Table
from finetune_tf.evaluation.intervals import Interval

_SHOWN, _WIDTH = 10, 60  # rows of a printed table, and characters of a text in it


@dataclass(frozen=True)
class SuspectLabel:
    """A row of `LabelErrors`.

    Attributes:
        row: The index of the row in the examples, from 0.
        place: Where the row is in its source, such as "line 12".
        text: Its text; for images the name of the file, if there is one.
        label: Its label.
        suggested: The most probable label according to the probes.
        self_confidence: The probability that the probes give to its label; low is suspect.
        suggested_probability: The probability of the suggested label.
        is_likely_error: Whether confident learning counts the row as an error.
    """

    row: int
    place: str
    text: str
    label: str
    suggested: str
    self_confidence: float
    suggested_probability: float
    is_likely_error: bool


@dataclass(frozen=True, repr=False)
class LabelErrors(DataDocument):
    """The result of `label_errors`.

    Attributes:
        rows: The rows of the examples, most suspect first.
        data: The name of the examples.
        estimated: The estimated number of rows with a wrong label (confident learning); its
            interval covers the choice of rows, and not a weak probe.
        probe_accuracy: The share of rows whose label the probes predict, each of which was trained
            on other rows. The lower it is, the less the ranking says.
        left_out: The number of rows of classes that are too small to have rows in every fold, or
            whose texts are all the same; they are not ranked.
    """

    rows: list[SuspectLabel]
    data: str
    estimated: Interval
    probe_accuracy: Interval
    left_out: int = 0

    def blocks(self) -> list[str | Table]:
        """Returns the lines and the table in reading order."""
        estimated = self.estimated
        total = len(self.rows)
        rows = [
            [
                str(row.row),
                shortened(row.text),
                row.label,
                row.suggested,
                f"{row.self_confidence:.3f}",
                "yes" if row.is_likely_error else "no",
            ]
            for row in self.rows[:_SHOWN]
        ]
        return [
            f"{self.data}: about {estimated.value:,.0f} of {total:,} labels are estimated to be "
            f"wrong (95% interval {estimated.low:,.0f} to {estimated.high:,.0f}). The probes "
            f"predict {self.probe_accuracy.value:.3f} of the labels of rows that they were not "
            "trained on.",
            f"The {len(rows)} rows with the lowest probability of their own label:",
            Table(["row", "text", "label", "suggested", "own label", "likely error"], rows, False),
            *([f"{self.left_out:,} rows of rare classes are not ranked."] * bool(self.left_out)),
        ]


@dataclass(frozen=True)
class LossRow:
    """A row of `TopLosses`.

    Attributes:
        row: The index of the row in the examples, from 0.
        place: Where the row is in its source, such as "line 12".
        text: Its text; for images the name of the file, if there is one.
        label: Its label; for words that of the word with the highest loss.
        predicted: What the model predicts in its place, as `ft.predict` does.
        probability: The probability that the model gives to the label; for several labels the
            geometric mean of what it gives to each of them being as it is.
        loss: The mean cross-entropy of the row.
    """

    row: int
    place: str
    text: str
    label: str
    predicted: str
    probability: float
    loss: float


@dataclass(frozen=True, repr=False)
class TopLosses(DataDocument):
    """The result of `top_losses`.

    Attributes:
        rows: The rows with the highest losses, highest first.
        data: The name of the examples.
        size: The number of examples.
        mean_loss: The mean loss of all examples.
        share_of_loss: The share of the sum of all losses that these rows have.
    """

    rows: list[LossRow]
    data: str
    size: int
    mean_loss: float
    share_of_loss: float

    def blocks(self) -> list[str | Table]:
        """Returns the lines and the table in reading order."""
        rows = [
            [
                str(row.row),
                shortened(row.text),
                row.label,
                row.predicted,
                f"{row.probability:.3f}",
                f"{row.loss:.3f}",
            ]
            for row in self.rows
        ]
        return [
            f"{self.data}: the {len(rows)} rows with the highest losses of {self.size:,}. They "
            f"have {self.share_of_loss:.1%} of the total loss; the mean is {self.mean_loss:.3f}.",
            Table(["row", "text", "label", "predicted", "probability", "loss"], rows, False),
        ]


@dataclass(frozen=True)
class SliceRow:
    """A row of `Slices`: a part of the examples.

    Attributes:
        by: What the examples were divided by, such as "length".
        value: The value of this slice, such as "12 to 20 tokens".
        size: The number of its examples.
        metric: The metric on the slice, with a 95 % interval for this slice alone.
        difference: The metric on the slice minus that on all other examples, with an interval that
            is wide enough for all slices together (Bonferroni).
        p_value: The probability of a difference at least this large if the slice were a random
            part of the examples (a permutation test), corrected for the number of slices (Holm).
    """

    by: str
    value: str
    size: int
    metric: Interval
    difference: Interval
    p_value: float

    @property
    def is_clear(self) -> bool:
        """Whether the slice differs from the rest by more than chance explains."""
        return self.p_value < 0.05


@dataclass(frozen=True, repr=False)
class Slices(DataDocument):
    """The result of `slices`.

    Attributes:
        rows: The slices, worst first.
        data: The name of the examples.
        size: The number of examples.
        metric: The name of the metric.
        overall: The metric on all examples.
        too_small: The number of slices that were left out because they have too few examples.
        lower_is_better: Whether a lower metric is better.
        without_metric: The number of slices that were left out because the metric says nothing on
            them or on the rest: it is 0 whatever is predicted, such as the F1 of examples without
            any of several labels.
    """

    rows: list[SliceRow]
    data: str
    size: int
    metric: str
    overall: Interval
    too_small: int
    lower_is_better: bool = False
    without_metric: int = 0

    def blocks(self) -> list[str | Table]:
        """Returns the lines and the table in reading order."""
        rows = [
            [
                row.by,
                shortened(row.value),
                f"{row.size:,}",
                f"{row.metric.value:.3f} ({row.metric.low:.2f} to {row.metric.high:.2f})",
                f"{row.difference.value:+.3f}",
                f"{row.p_value:.3f}",
                "yes" if row.is_clear else "no",
            ]
            for row in self.rows
        ]
        header = ["by", "slice", "examples", self.metric, "to the rest", "p", "clear"]
        clear = sum(row.is_clear for row in self.rows)
        lines = [
            f"{self.data}: {self.metric} {self.overall} on {self.size:,} examples. {clear} of "
            f"{len(rows)} slices differ from the rest by more than chance explains; p is corrected "
            "for their number (Holm).",
            Table(header, rows, has_numbers=False),
        ]
        if self.too_small:
            lines.append(f"{self.too_small} slices have too few examples and were left out.")
        if self.without_metric:
            lines.append(
                f"{self.without_metric} slices were left out because {self.metric} says nothing "
                "there: it is 0 whatever is predicted."
            )
        return lines


@dataclass(frozen=True)
class DuplicatePair:
    """A row of `NearDuplicates`: two rows that are almost the same.

    Attributes:
        row: The index of the row in the test examples, or in the only examples.
        other_row: The index of the most similar row in the training examples, or, without test
            examples, of the other row in the only examples.
        text: The text of the row; for images the name of the file, if there is one.
        other_text: The text of the other row.
        similarity: The cosine similarity of their features, at most 1.
        label: The label of the row; "(none)" for none of several, "" without labels.
        other_label: The label of the other row.
    """

    row: int
    other_row: int
    text: str
    other_text: str
    similarity: float
    label: str
    other_label: str

    @property
    def labels_differ(self) -> bool:
        """Whether both rows have labels, and not the same ones."""
        return bool(self.label and self.other_label) and self.label != self.other_label


@dataclass(frozen=True, repr=False)
class NearDuplicates(DataDocument):
    """The result of `near_duplicates`.

    Attributes:
        rows: The pairs, most similar first: for each test example at most one.
        data: The name of the test examples, or of the only examples.
        size: The number of these examples.
        affected: The number of them that have a near duplicate.
        other_data: The name of the training examples; None if one data set was searched.
        similarity: The lowest similarity that counts.
        contradictory: The number of pairs whose labels differ.
    """

    rows: list[DuplicatePair]
    data: str
    size: int
    affected: int
    other_data: str | None
    similarity: float
    contradictory: int

    def blocks(self) -> list[str | Table]:
        """Returns the lines and the table in reading order."""
        where = "in the same data" if self.other_data is None else f"in {self.other_data}"
        line = (
            f"{self.data}: {self.affected:,} of {self.size:,} rows have a near duplicate {where} "
            f"(cosine similarity of at least {self.similarity:g}); {self.contradictory:,} of these "
            f"{len(self.rows):,} pairs have different labels."
        )
        rows = [
            [
                str(pair.row),
                str(pair.other_row),
                shortened(pair.text),
                shortened(pair.other_text),
                f"{pair.similarity:.3f}",
                "yes" if pair.labels_differ else "no",
            ]
            for pair in self.rows[:_SHOWN]
        ]
        header = ["row", "other row", "text", "other text", "similarity", "labels differ"]
        return [line, *([Table(header, rows, has_numbers=False)] if rows else [])]


@dataclass(frozen=True)
class DriftRow:
    """A row of `Drift`: an example of the test by which it differs from the training examples.

    Attributes:
        row: The index of the row in the test examples, from 0.
        place: Where the row is in its source, such as "line 12".
        text: Its text; for images the name of the file, if there is one.
        probability: The probability of a probe that the row is one of the test.
    """

    row: int
    place: str
    text: str
    probability: float


@dataclass(frozen=True, repr=False)
class Drift(DataDocument):
    """The result of `drift`.

    Attributes:
        rows: The test examples that differ most from the training examples, first the one with the
            highest probability.
        data: The name of the test examples.
        other_data: The name of the training examples.
        auc: The area under the ROC curve of a probe that tells test examples from training
            examples, on rows that it was not trained on: 0.5 if it cannot, 1 if it always can.
        p_value: The probability of such an area if both were drawn from one distribution.
        size: The number of test examples that were used.
        other_size: The number of training examples that were used.
    """

    rows: list[DriftRow]
    data: str
    other_data: str
    auc: Interval
    p_value: float
    size: int
    other_size: int

    @property
    def is_clear(self) -> bool:
        """Whether the two data sets differ by more than chance explains."""
        return self.p_value < 0.05

    def blocks(self) -> list[str | Table]:
        """Returns the lines and the table in reading order."""
        verdict = (
            "They differ by more than chance explains."
            if self.is_clear
            else "No difference is found that chance could not explain."
        )
        lines = [
            f"A probe tells {self.data} ({self.size:,} rows) from {self.other_data} "
            f"({self.other_size:,} rows) with an AUC of {self.auc}; 0.5 is guessing "
            f"(p = {self.p_value:.3f}). {verdict}"
        ]
        if not self.is_clear:
            return lines
        rows = [
            [str(row.row), shortened(row.text), f"{row.probability:.3f}"]
            for row in self.rows[:_SHOWN]
        ]
        title = f"The rows of {self.data} that are least like {self.other_data}:"
        table = Table(["row", "text", "probability"], rows, has_numbers=False)
        return [*lines, title, table]


def shortened(text: str) -> str:
    """Returns a text on one line that fits into a table."""
    text = " ".join(text.split())
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…"
