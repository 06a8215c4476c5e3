"""Confidence intervals for a metric and for the difference between two models: the bootstrap.

The test set is resampled many times with replacement, and the model, or both models, are evaluated
on each resample. The 2.5 % and 97.5 % quantiles of the results are the ends of the interval.

References:
    Efron and Tibshirani, An Introduction to the Bootstrap, Chapman & Hall, 1993.
    Koehn, Statistical Significance Tests for Machine Translation Evaluation, EMNLP 2004.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetune_tf.evaluation.evaluators.evaluator import Evaluator
from finetune_tf.evaluation.intervals import Interval

# Resamples are drawn in chunks with at most this many counts, to limit memory on large test sets.
_MAX_COUNTS_PER_CHUNK = 4_000_000


@dataclass(frozen=True)
class Difference:
    """The difference between two models in one metric, with its 95 % confidence interval.

    Attributes:
        metric: The name of the metric.
        value: The difference on the test set.
        low: The lower end of the interval.
        high: The upper end of the interval.
        n: The number of bootstrap resamples.

    Example:
        >>> from finetune_tf.evaluation.bootstrap import Difference
        >>> difference = Difference("accuracy", value=0.06, low=0.02, high=0.1, n=2000)
        >>> print(difference)
        +0.060 (95% interval +0.02 to +0.10)
        >>> difference.is_clear
        True
    """

    metric: str
    value: float
    low: float
    high: float
    n: int

    @property
    def is_clear(self) -> bool:
        """Whether the interval excludes zero."""
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
    """Computes the difference of the main metric between two models with a 95 % interval.

    Args:
        evaluator: The evaluator of the task, which computes the metric.
        targets: The ground truth in the form that `evaluator` expects.
        predictions: The predictions of the model.
        other_predictions: The predictions of the model or baseline to compare with.
        n: The number of bootstrap resamples.
        seed: The seed of the resampling.

    Returns:
        The difference `predictions` minus `other_predictions`.

    Example:
        >>> from finetune_tf.evaluation.bootstrap import paired_bootstrap
        >>> from finetune_tf.evaluation.evaluators.text import SingleLabel
        >>> targets = np.array([0, 1, 0, 1] * 50)
        >>> constant = np.zeros_like(targets)
        >>> paired_bootstrap(SingleLabel(), targets, targets, constant, n=200).value
        0.5
    """
    metric = evaluator.metric
    statistics = evaluator.statistics(targets, predictions)
    other_statistics = evaluator.statistics(targets, other_predictions)
    # Examples with equal statistics are grouped: a multinomial draw of the groups, weighted by
    # their sizes, has the same distribution as a draw of the examples and is much faster.
    groups, counts = np.unique(
        np.hstack([statistics, other_statistics]), axis=0, return_counts=True
    )
    width = statistics.shape[1]
    statistics = np.ascontiguousarray(groups[:, :width])
    other_statistics = np.ascontiguousarray(groups[:, width:])

    def difference(weights: np.ndarray) -> np.ndarray:  # (resamples, groups) -> (resamples,)
        return metric(weights @ statistics) - metric(weights @ other_statistics)

    value, low, high = _resampled(difference, counts, n, seed)
    return Difference(metric=evaluator.main_metric, value=value, low=low, high=high, n=n)


def metric_interval(
    evaluator: Evaluator, targets: Any, predictions: Any, n: int = 2000, seed: int = 0
) -> Interval:
    """Computes the main metric of one model with a 95 % interval.

    Args:
        evaluator: The evaluator of the task, which computes the metric.
        targets: The ground truth in the form that `evaluator` expects.
        predictions: The predictions of the model.
        n: The number of bootstrap resamples.
        seed: The seed of the resampling.

    Example:
        >>> from finetune_tf.evaluation.bootstrap import metric_interval
        >>> from finetune_tf.evaluation.evaluators.text import SingleLabel
        >>> targets = np.array([0, 1, 0, 1] * 50)
        >>> metric_interval(SingleLabel(), targets, np.zeros_like(targets), n=200).value
        0.5
    """
    groups, counts = np.unique(
        evaluator.statistics(targets, predictions), axis=0, return_counts=True
    )
    return Interval(
        *_resampled(lambda weights: evaluator.metric(weights @ groups), counts, n, seed)
    )


def _resampled(
    value_of: Callable[[np.ndarray], np.ndarray], counts: np.ndarray, n: int, seed: int
) -> tuple[float, float, float]:
    """The value of a test set, and the ends of its interval.

    Args:
        value_of: Computes values (resamples,) of the shares of groups (resamples, groups).
        counts: The number of examples in each group (groups,).
        n: The number of resamples.
        seed: The seed of the resampling.
    """
    size, generator = int(counts.sum()), np.random.default_rng(seed)
    chunk = max(1, _MAX_COUNTS_PER_CHUNK // len(counts))
    resamples = np.concatenate(
        [
            value_of(generator.multinomial(size, counts / size, size=min(chunk, n - done)) / size)
            for done in range(0, n, chunk)
        ]
    )
    low, high = np.quantile(resamples, [0.025, 0.975])
    return float(value_of(counts[None] / size)[0]), float(low), float(high)
