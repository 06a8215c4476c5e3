"""How sure a difference between two models on one test is: the paired bootstrap.

The test is drawn anew many times, with replacement, and both models are measured on each draw
(Efron & Tibshirani, An Introduction to the Bootstrap, 1993; Koehn, Statistical Significance
Tests for Machine Translation Evaluation, 2004).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from finetune_tf.evaluation.evaluators.evaluator import Evaluator

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
    evaluator: Evaluator,
    targets: Any,
    predictions: Any,
    other_predictions: Any,
    n: int = 2000,
    seed: int = 0,
) -> Difference:
    """The difference of the main metric between two models, with its 95 % interval.

    Args:
        evaluator: How they are measured.
        targets: What is right, as `evaluator` takes it.
        predictions: The predictions of the model.
        other_predictions: The predictions that the model is compared with.
        n: How many times the test is drawn.
        seed: Seed of the draws.
    """
    metric = evaluator.metric
    ours = evaluator.statistics(targets, predictions)
    theirs = evaluator.statistics(targets, other_predictions)
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
        metric=evaluator.main_metric,
        value=float(difference(counts[None] / size)[0]),
        low=float(low),
        high=float(high),
        n=n,
    )
