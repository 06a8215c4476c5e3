"""The results of measuring and improving the calibration of a model."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from finetune_tf.calibration.scores import BINS, bin_counts, confidences
from finetune_tf.evaluation.document import DataDocument, Table
from finetune_tf.evaluation.intervals import Interval, share
from finetune_tf.tasks.decisions import Decisions

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class ReliabilityBin:
    """A bin of a reliability diagram.

    Attributes:
        low: The lowest probability of the bin.
        high: The highest probability of the bin.
        size: The number of decisions in it.
        confidence: Their mean probability.
        frequency: How often they are right; for several labels how often the label applies.
    """

    low: float
    high: float
    size: int
    confidence: float
    frequency: Interval


def reliability_bins(decisions: Decisions) -> list[ReliabilityBin]:
    """Returns the bins of equal width that have decisions."""
    return [
        ReliabilityBin(i / BINS, (i + 1) / BINS, size, values / size, share(round(hits), size))
        for i, size, values, hits in bin_counts(confidences(decisions))
    ]


@dataclass(frozen=True, repr=False)
class Measured(DataDocument):
    """The result of `measure`: how far the probabilities of a model can be trusted.

    Attributes:
        data: The name of the examples.
        size: The number of decisions: of rows, of words, or of rows times labels.
        nll: The negative log-likelihood, which is the mean cross-entropy; lower is better.
        ece: The expected calibration error over 15 bins of equal width; lower is better.
        rows: The bins of the reliability diagram.
    """

    data: str
    size: int
    nll: Interval
    ece: Interval
    rows: list[ReliabilityBin]

    def blocks(self) -> list[str | Table]:
        """Returns the lines and the table in reading order."""
        return [
            f"{self.data}: NLL {self.nll}, ECE {self.ece}, on {self.size:,} decisions.",
            _bins_table(self.rows),
        ]

    def _draw(self) -> "Figure":
        from finetune_tf.calibration.figures import reliability_figure

        return reliability_figure({self.data: self.rows})


@dataclass(frozen=True, repr=False)
class Calibration(DataDocument):
    """The result of `calibrate`.

    What is called after was computed with temperatures of other rows: each fifth of the validation
    examples with that of the other four fifths.

    Attributes:
        data: The name of the validation examples.
        size: The number of these examples.
        temperature: The temperature that all rows determine; for `per_label` one for each label
            by name.
        is_applied: Whether the output layer was divided by it.
        reason: Why it was not applied; "" if it was.
        nll_before: The negative log-likelihood; lower is better.
        nll_after: The same after calibration.
        nll_difference: The one after minus the one before.
        ece_before: The expected calibration error; lower is better.
        ece_after: The same after calibration.
        ece_difference: The one after minus the one before.
        rows: The bins of the reliability diagram before.
        rows_after: The bins after calibration.
        total: The temperature of this and all earlier calibrations together, as recorded in the
            config.
    """

    data: str
    size: int
    temperature: float | dict[str, float]
    is_applied: bool
    reason: str
    nll_before: Interval
    nll_after: Interval
    nll_difference: Interval
    ece_before: Interval
    ece_after: Interval
    ece_difference: Interval
    rows: list[ReliabilityBin]
    rows_after: list[ReliabilityBin]
    total: float | dict[str, float]

    def blocks(self) -> list[str | Table]:
        """Returns the lines and the table in reading order."""
        values = [
            ["NLL", *map(_short, (self.nll_before, self.nll_after, self.nll_difference))],
            ["ECE", *map(_short, (self.ece_before, self.ece_after, self.ece_difference))],
        ]
        lines = [
            f"Temperature {format_temperature(self.temperature)}, from {self.size:,} rows of "
            f"{self.data}; after: each row with the temperature of other rows.",
            Table(["", "before", "after", "difference"], values),
        ]
        if not self.is_applied:
            lines.append(f"The model was not changed: {self.reason}")
        elif self.total != self.temperature:
            lines.append(
                f"The model was calibrated before; its outputs are now divided by "
                f"{format_temperature(self.total)} in all."
            )
        if self.is_applied and not self.nll_difference.high < 0:
            lines.append(
                "The interval of the difference in NLL includes 0: these rows do not show that "
                "the model is better calibrated now."
            )
        return lines

    def _draw(self) -> "Figure":
        from finetune_tf.calibration.figures import reliability_figure

        return reliability_figure({"before": self.rows, "after": self.rows_after})


def format_temperature(temperature: float | dict[str, float]) -> str:
    """Returns one temperature, or the range of those of several labels, as text."""
    if not isinstance(temperature, dict):
        return f"{temperature:.3f}"
    low, high = min(temperature.values()), max(temperature.values())
    return f"{low:.3f} to {high:.3f}"


def _short(interval: Interval) -> str:
    return f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def _bins_table(rows: list[ReliabilityBin]) -> Table:
    cells = [
        [
            f"{each.low:.2f} to {each.high:.2f}",
            f"{each.size:,}",
            f"{each.confidence:.3f}",
            f"{each.frequency.value:.3f} ({each.frequency.low:.2f} to {each.frequency.high:.2f})",
        ]
        for each in rows
    ]
    return Table(["probability", "decisions", "mean", "frequency"], cells)
