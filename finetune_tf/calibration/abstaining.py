"""Abstaining: leaving out predictions that are too uncertain, and what accuracy the rest has.

References:
    Geifman and El-Yaniv, Selective Classification for Deep Neural Networks, NeurIPS 2017 (accuracy
    with a guarantee).
    Geifman, Uziel and El-Yaniv, Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers,
    ICLR 2019 (the area under the risk-coverage curve).
    Angelopoulos et al., Learn then Test, 2021 (thresholds tested in a fixed order).
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from finetune_tf.base.arguments import check, shown
from finetune_tf.base.spelling import names_checked
from finetune_tf.calibration.decided import decisions_of, predicted_by
from finetune_tf.calibration.scores import probabilities
from finetune_tf.data import Examples
from finetune_tf.errors import DataError, DataTypeError, ModelError
from finetune_tf.evaluation.document import Document, Table
from finetune_tf.evaluation.intervals import RESAMPLES, Interval, share
from finetune_tf.model.finetune_model import FineTuneModel
from finetune_tf.tasks.classification import Prediction

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COVERAGES = np.arange(20, 0, -1) / 20
_CERTAINTY = 0.95
_STEPS = 1_000_000  # between two confidences of 0 and 1


@dataclass(frozen=True)
class CoveragePoint:
    """A point of a coverage curve.

    Attributes:
        coverage: The share of the examples that are kept.
        threshold: The lowest confidence that is kept.
        accuracy: The accuracy of those that are kept.
    """

    coverage: float
    threshold: float
    accuracy: Interval


@dataclass(frozen=True, repr=False)
class CoverageCurve(Document):
    """The result of `coverage_curve`.

    Attributes:
        rows: The points of the curve, from all examples to the most certain ones.
        data: The name of the examples.
        size: The number of examples.
        accuracy: The accuracy without abstaining.
        area: The area under the risk-coverage curve: the error rate averaged over all coverages;
            lower is better. Leaving out examples at random would have the error rate.
    """

    rows: list[CoveragePoint]
    data: str
    size: int
    accuracy: Interval
    area: Interval
    _confidence: np.ndarray = field(repr=False, compare=False)  # in descending order
    _hits: np.ndarray = field(repr=False, compare=False)

    def threshold_for(self, accuracy: float) -> CoveragePoint:
        """Returns the lowest confidence at which predictions are at least this accurate.

        The accuracy holds for other examples of the same kind with a probability of 95 %, because
        coverages are tested in a fixed order, from the most certain examples to all, until the
        first one that fails. The accuracy on these examples is therefore higher than asked for.

        Args:
            accuracy: The accuracy, between 0 and 1.

        Raises:
            DataError: If no threshold reaches it with certainty on these examples.

        Example:
            >>> from finetune_tf.calibration.abstaining import CoverageCurve
            >>> confidence, hits = np.linspace(1, 0.5, 200), np.repeat([1, 0], [150, 50])
            >>> whole = ft.calibration.CoveragePoint(1.0, 0.5, None)
            >>> curve = CoverageCurve([whole], "data", 200, None, None, confidence, hits)
            >>> curve.threshold_for(0.9).coverage  # 150 of 160 would not be certain enough
            0.75
        """
        from scipy.stats import binom

        check(accuracy=accuracy)
        kept = sorted({self._count_at(coverage) for coverage in _COVERAGES})
        # With fewer rows even perfect predictions would prove nothing.
        fewest = np.log(1 - _CERTAINTY) / np.log(accuracy)
        found = None
        for count in (count for count in kept if count >= fewest):
            errors = count - int(self._hits[:count].sum())
            if binom.cdf(errors, count, 1 - accuracy) > 1 - _CERTAINTY:
                break
            found = self._point(count)
        if found is None:
            raise DataError(
                f"No confidence has an accuracy of {accuracy:g} that is certain on the "
                f"{self.size:,} rows of {self.data}: the accuracy without abstaining is "
                f"{self.accuracy}, and {int(np.ceil(fewest)):,} rows would have to be correct in "
                "any case. Ask for less, give more examples, or improve the model."
            )
        return found

    def at(self, threshold: float) -> CoveragePoint:
        """Returns the coverage and the accuracy of the predictions that a threshold keeps.

        Args:
            threshold: The lowest confidence that is kept, such as one that other examples
                determined.

        Raises:
            DataError: If it keeps none.
        """
        check(**{"abstain.threshold": threshold})
        count = int((self._confidence >= threshold).sum())
        if not count:
            raise DataError(
                f"No prediction for {self.data} has a confidence of {threshold:g} or more; the "
                f"highest one is {self._confidence[0]:g}."
            )
        kept = share(int(self._hits[:count].sum()), count)
        return CoveragePoint(count / self.size, float(threshold), kept)

    def _point(self, count: int) -> CoveragePoint:
        return self.at(self._confidence[count - 1])

    def _count_at(self, coverage: float) -> int:
        """How many rows a threshold keeps that keeps this share: rows of equal confidence too."""
        place = max(1, round(coverage * self.size)) - 1
        return int((self._confidence >= self._confidence[place]).sum())

    def blocks(self) -> list[str | Table]:
        """Returns the lines and the table in reading order."""
        rows = [
            [
                f"{point.coverage:.0%}",
                f"{point.threshold:.3f}",
                f"{point.accuracy.value:.3f}",
                f"{point.accuracy.low:.3f} to {point.accuracy.high:.3f}",
            ]
            for point in self.rows[::2]
        ]
        return [
            f"{self.data}: accuracy {self.accuracy} on all {self.size:,} rows; area under the "
            f"risk-coverage curve {self.area}, and {1 - self.accuracy.value:.3f} if rows were "
            "left out at random.",
            Table(["coverage", "confidence from", "accuracy", "95% interval"], rows),
        ]

    def to_dict(self) -> dict:
        """Returns the result as values that JSON can represent."""
        values = asdict(self)
        return {name: value for name, value in values.items() if not name.startswith("_")}

    def _draw(self) -> "Figure":
        from finetune_tf.calibration.figures import coverage_figure

        return coverage_figure(self)

    def __repr__(self) -> str:
        return str(self)


@names_checked
def coverage_curve(
    model: FineTuneModel, examples: Examples, *, batch_size: int = 64, seed: int = 0
) -> CoverageCurve:
    """Measures the accuracy of the predictions above any confidence.

    The confidence of a prediction is the probability of the predicted label, which is below 0.5
    where a threshold of `choose_thresholds` decides. A temperature does not change the order of two
    labels' confidences, so this works without `ft.calibrate` as well. Confidences are rounded down
    to six digits, so that equal texts have equal ones.

    Args:
        model: A trained model from `load` that gives each text or image one label.
        examples: Examples with labels that the model was not trained on.
        batch_size: Rows in a batch.
        seed: The seed of the interval of the area.

    Returns:
        The curve; print it, `plot()` it, or ask for `threshold_for(accuracy)`.

    Raises:
        DataTypeError: If `examples` are not `Examples`.
        DataError: If they have no labels.
        ModelError: If the model does not give each example one label.

    Example:
        >>> curve = ft.calibration.coverage_curve(model, test)
        >>> curve.rows[0].coverage
        1.0
    """
    check(batch_size=batch_size, seed=seed)
    task = getattr(model, "task", None)
    if task is not None and task.problem_type != "single_label_classification":
        raise ModelError(
            "Abstaining needs models that give each text or image one label; found a model for "
            f"{task.title.replace('_', ' ')}. For several labels, see "
            "ft.calibration.choose_thresholds."
        )
    decisions = decisions_of(model, examples, batch_size)
    predicted = predicted_by(model, decisions)
    confidence = probabilities(decisions)[np.arange(len(predicted)), predicted]
    # The probabilities of a text differ by rounding from batch to batch. Rounded down, a threshold
    # keeps what it was measured on.
    confidence = np.floor(np.float64(confidence) * _STEPS) / _STEPS
    hits = np.float64(predicted == decisions.targets)
    order = np.lexsort((hits, -confidence))  # which does not depend on the order of the data
    confidence, hits = confidence[order], hits[order]
    size = len(hits)
    curve = CoverageCurve(
        [],
        examples.name,
        size,
        share(int(hits.sum()), size),
        _area(1 - hits, confidence, seed),
        confidence,
        hits,
    )
    counts = dict.fromkeys(map(curve._count_at, _COVERAGES))
    curve.rows.extend(curve._point(count) for count in counts)
    return curve


@names_checked
def abstain(predictions: Iterable[Prediction], threshold: float) -> list[Prediction | None]:
    """Replaces predictions with too low a confidence by None.

    Args:
        predictions: What `ft.predict` returned for several texts or images.
        threshold: The lowest confidence that is kept, such as `threshold_for(0.95).threshold`.

    Returns:
        The predictions in the same order.

    Raises:
        DataTypeError: If they are not predictions with one label.

    Example:
        >>> predictions = ft.predict(model, ["a good film", "a dull film"])
        >>> ft.calibration.abstain(predictions, 0.0) == predictions
        True
    """
    check(**{"abstain.threshold": threshold})
    listed = [predictions] if isinstance(predictions, Prediction) else list(predictions)
    for each in listed:
        if not isinstance(each, Prediction) or not isinstance(each.label, str):
            raise DataTypeError(
                "abstain expects predictions of ft.predict with one label each, found "
                f"{shown(each)}."
            )
    return [each if each.score >= threshold else None for each in listed]


def _area(errors: np.ndarray, confidence: np.ndarray, seed: int) -> Interval:
    """Returns the area under the risk-coverage curve of errors (n,), most certain ones first."""
    # A threshold keeps all rows of one confidence or none, whatever their order is.
    ends = np.searchsorted(-confidence, -confidence, side="right") - 1

    def area(weights: np.ndarray) -> np.ndarray:  # (resamples, n)
        total = np.cumsum(weights, axis=1)
        wrong = np.cumsum(weights * errors, axis=1)
        risk = np.divide(wrong, total, out=np.zeros_like(wrong), where=total > 0)
        return (risk[:, ends] * weights).sum(axis=1) / total[:, -1]

    size, generator = len(errors), np.random.default_rng(seed)
    chunk = max(1, 1_000_000 // size)
    draws = np.concatenate(
        [
            area(np.float64(generator.multinomial(size, np.full(size, 1 / size), size=count)))
            for count in _chunks(RESAMPLES, chunk)
        ]
    )
    low, high = np.quantile(draws, (0.025, 0.975))
    return Interval(float(area(np.ones((1, size)))[0]), float(low), float(high))


def _chunks(total: int, size: int) -> list[int]:
    return [min(size, total - done) for done in range(0, total, size)]
