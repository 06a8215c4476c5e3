"""How sure a difference between two models on one test is: the paired bootstrap.

The test is drawn anew many times, with replacement, and both models are measured on each draw
(Efron & Tibshirani, An Introduction to the Bootstrap, 1993; Koehn, Statistical Significance
Tests for Machine Translation Evaluation, 2004).
"""

from dataclasses import dataclass

import numpy as np

from finetune_tf.evaluation.metrics import MAIN_METRIC
from finetune_tf.labels import Labels

# Draws are made in pieces of this many counts, which bounds the memory for large tests.
_COUNTS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Difference:
    """What a model has over another one in one metric, with the 95 % interval.

    Attributes:
        metric: Name of the metric.
        value: The difference on the test itself.
        low: Lower end of the interval.
        high: Upper end of the interval.
        n: How many times the test was drawn.
    """

    metric: str
    value: float
    low: float
    high: float
    n: int

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.value:+.3f} (95% interval {self.low:+.2f} to {self.high:+.2f})"


def paired_bootstrap(
    targets: np.ndarray,
    predictions: np.ndarray,
    other_predictions: np.ndarray,
    labels: Labels,
    n: int = 2000,
    seed: int = 0,
) -> Difference:
    """The difference of the main metric between two models, with its 95 % interval.

    Args:
        targets: What is right, in the form of `metrics.measure`.
        predictions: The predictions of the model.
        other_predictions: The predictions that the model is compared with.
        labels: The labels; their problem type chooses the metric.
        n: How many times the test is drawn.
        seed: Seed of the draws.
    """
    statistics, metric = _STATISTICS[labels.problem_type]
    ours, theirs = statistics(targets, predictions), statistics(targets, other_predictions)
    # Examples on which everything is equal are drawn as one, weighted by how many they are.
    rows, counts = np.unique(np.hstack([ours, theirs]), axis=0, return_counts=True)
    ours, theirs = np.ascontiguousarray(rows[:, : ours.shape[1]]), rows[:, ours.shape[1] :]
    theirs = np.ascontiguousarray(theirs)

    def difference(weights: np.ndarray) -> np.ndarray:  # (draws, rows) -> (draws,)
        return metric(weights @ ours) - metric(weights @ theirs)

    size, generator = len(targets), np.random.default_rng(seed)
    at_once = max(1, _COUNTS_AT_ONCE // len(rows))
    draws = np.concatenate(
        [
            difference(
                generator.multinomial(size, counts / size, size=min(at_once, n - done)) / size
            )
            for done in range(0, n, at_once)
        ]
    )
    low, high = np.quantile(draws, [0.025, 0.975])
    return Difference(
        metric=MAIN_METRIC[labels.problem_type],
        value=float(difference(counts[None] / size)[0]),
        low=float(low),
        high=float(high),
        n=n,
    )


# Each metric as a function of means over the examples: `statistics` gives what is averaged,
# (n, s), and `metric` the value from the averages, (draws, s) -> (draws,).


def _right(targets, predictions):
    return np.float64(predictions == targets)[:, None]


def _accuracy(means):
    return means[:, 0]


def _hits_and_errors(targets, predictions):
    hits = ((predictions == 1) & (targets == 1)).sum(axis=1)
    errors = (predictions != targets).sum(axis=1)
    return np.float64(np.stack([hits, errors], axis=1))


def _micro_f1(means):
    hits, errors = means.T
    total = 2 * hits + errors
    return np.divide(2 * hits, total, out=np.zeros_like(total), where=total > 0)


def _moments(targets, predictions):
    # Standardised first: the variances below would otherwise lose digits to large means.
    x, y = _standardised(targets), _standardised(predictions)
    return np.stack([x, y, x * x, y * y, x * y], axis=1)


def _standardised(values):
    values = np.float64(values)
    deviation = values.std()
    # A constant is left at exactly zero; dividing its rounding error would make noise of it.
    if deviation <= 1e-12 * np.abs(values).max():
        return np.zeros_like(values)
    return (values - values.mean()) / deviation


def _pearson(means):
    x, y, xx, yy, xy = means.T
    variances = (xx - x * x) * (yy - y * y)
    defined = variances > 1e-12
    return np.divide(
        xy - x * y, np.sqrt(variances, where=defined, out=np.ones_like(variances)),
        out=np.zeros_like(variances), where=defined,
    )  # fmt: skip


_STATISTICS = {
    "single_label_classification": (_right, _accuracy),
    "multi_label_classification": (_hits_and_errors, _micro_f1),
    "regression": (_moments, _pearson),
}
