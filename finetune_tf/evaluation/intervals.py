"""Estimates with their 95 % confidence intervals, for means and shares over examples.

References:
    Sheppard, On the Calculation of the Most Probable Values of Frequency-Constants for Data
    Arranged According to Equidistant Divisions of a Scale, Proc. London Math. Society, 1898.
    Wilson, Probable Inference, the Law of Succession, and Statistical Inference, JASA 1927.
    Clopper and Pearson, The Use of Confidence or Fiducial Limits, Biometrika 1934.
    Efron and Tibshirani, An Introduction to the Bootstrap, Chapman & Hall, 1993.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
#: The quantile of a normal distribution that belongs to an interval of 95 %.
NORMAL = 1.959964
_QUANTILES = (0.025, 0.975)
# Resamples are drawn in chunks with at most this many counts, to limit memory on large test sets.
_MAX_COUNTS_PER_CHUNK = 4_000_000


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % confidence interval.

    Attributes:
        value: The estimate.
        low: The lower end of the interval.
        high: The upper end of the interval.

    Example:
        >>> from finetune_tf.evaluation.intervals import Interval
        >>> difference = Interval(-0.033, -0.055, -0.011)
        >>> print(difference)
        -0.033 (95% interval -0.055 to -0.011)
        >>> difference.excludes(0)
        True
    """

    value: float
    low: float
    high: float

    def excludes(self, value: float) -> bool:
        """Whether a value is outside of the interval."""
        return not self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.value:.3f} (95% interval {self.low:.3f} to {self.high:.3f})"


def mean(values: Sequence[float] | np.ndarray, resolution: float = 0.0) -> Interval:
    """Returns the mean of at least two values, such as results of several draws.

    The interval is that of Student's t, which holds for a few values that are about normal.

    Args:
        values: The values.
        resolution: The distance between neighbouring possible values, such as 1 / n for a share of
            n rows. Rounding to it hides differences, which count as a part of the variance
            (Sheppard 1898); without it, a few equal values would seem to be certain.

    Example:
        >>> from finetune_tf.evaluation.intervals import mean
        >>> print(mean([0.7, 0.8, 0.9]))
        0.800 (95% interval 0.552 to 1.048)
    """
    from scipy.stats import t

    center, count = float(np.mean(values)), len(values)
    variance = float(np.var(values, ddof=1)) + resolution**2 / 12
    error = np.sqrt(variance / count)
    half = float(t.ppf(_QUANTILES[1], count - 1) * error)
    return Interval(center, center - half, center + half)


def share(count: int, total: int) -> Interval:
    """Returns a share with the interval of Wilson, which holds for few rows and extreme shares.

    Args:
        count: How many of the rows have the property.
        total: The number of rows, at least 1.

    Example:
        >>> from finetune_tf.evaluation.intervals import share
        >>> print(share(20, 20))  # a bootstrap would be certain of 1
        1.000 (95% interval 0.839 to 1.000)
    """
    value = count / total
    shrunk = 1 + NORMAL**2 / total
    center = (value + NORMAL**2 / (2 * total)) / shrunk
    spread = NORMAL * np.sqrt(value * (1 - value) / total + NORMAL**2 / (4 * total**2)) / shrunk
    low, high = max(0.0, center - spread), min(1.0, center + spread)
    return Interval(value, float(min(low, value)), float(max(high, value)))


def bootstrap(
    statistics: np.ndarray,
    metric: Callable[[np.ndarray], np.ndarray],
    seed: int = 0,
    resamples: int = RESAMPLES,
    is_biased: bool = False,
) -> Interval:
    """Returns a function of averages over rows, with a bootstrap interval.

    Args:
        statistics: (rows, s), one row for each unit that is resampled, such as a sentence.
        metric: Maps averages (resamples, s) to values (resamples,).
        seed: The seed of the resampling.
        resamples: The number of resamples.
        is_biased: Whether resampling increases the metric, as it does for an absolute error. The
            quantiles are then reflected at the estimate (the basic bootstrap), which corrects the
            interval for this bias; it cannot be below 0.

    Example:
        >>> from finetune_tf.evaluation.intervals import bootstrap
        >>> values = np.random.default_rng(0).normal(5, 1, (400, 1))
        >>> print(bootstrap(values, lambda means: means[:, 0]))
        4.963 (95% interval 4.863 to 5.055)
    """
    generator, size = np.random.default_rng(seed), len(statistics)
    chunk = max(1, _MAX_COUNTS_PER_CHUNK // size)
    shares = np.full(size, 1 / size)
    values = np.concatenate(
        [
            metric(generator.multinomial(size, shares, size=min(chunk, resamples - done)) / size
                   @ statistics)
            for done in range(0, resamples, chunk)
        ]
    )  # fmt: skip
    value = float(metric(statistics.mean(axis=0, keepdims=True))[0])
    low, high = np.quantile(values, _QUANTILES)
    if is_biased:
        low, high = max(0.0, 2 * value - high), max(0.0, 2 * value - low)
    return Interval(value, float(low), float(high))


def of_metric(
    statistics: np.ndarray, metric: Callable[[np.ndarray], np.ndarray], seed: int = 0
) -> Interval:
    """Returns a metric with its interval: that of Wilson for a share of rows, else a bootstrap.

    Args:
        statistics: As for `bootstrap`.
        metric: As for `bootstrap`.
        seed: As for `bootstrap`.

    Example:
        >>> from finetune_tf.evaluation.intervals import of_metric
        >>> print(of_metric(np.ones((20, 1)), lambda means: means[:, 0]))
        1.000 (95% interval 0.839 to 1.000)
    """
    is_share = statistics.shape[1] == 1 and np.isin(statistics, (0, 1)).all()
    if is_share and np.allclose(metric(np.array([[0.25]])), 0.25):
        return share(int(statistics.sum()), len(statistics))
    return bootstrap(statistics, metric, seed)
