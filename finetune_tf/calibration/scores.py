"""Losses, confidences and calibration errors of decisions, and the best temperature.

Intervals resample examples, not decisions: the words of a sentence stay together.

References:
    Guo et al., On Calibration of Modern Neural Networks, ICML 2017 (temperature scaling, and the
    expected calibration error over 15 bins of equal width).
    Vaicenavicius et al., Evaluating Model Calibration in Classification, AISTATS 2019 (the error
    that a calibrated model has by chance).
"""

from typing import NamedTuple

import numpy as np

from finetune_tf.evaluation.intervals import Interval, bootstrap
from finetune_tf.tasks.decisions import Decisions

BINS = 15
# Temperatures outside of this range mean that the loss has no minimum.
LOWEST, HIGHEST = 0.05, 20.0
_DRAWS = 2000


class Confidences(NamedTuple):
    """What a model is certain of, and whether it is right.

    Attributes:
        values: Probabilities (m,): of the most probable label; for several labels of each label.
        hits: Whether the most probable label is right, or the label applies (m,), as 0 and 1.
        rows: The index of the example of each (m,).
    """

    values: np.ndarray
    hits: np.ndarray
    rows: np.ndarray


def scaled(decisions: Decisions, temperature: float | np.ndarray) -> Decisions:
    """Divides the logits by a temperature, or by one for each label (labels,)."""
    return decisions._replace(logits=decisions.logits / temperature)


def losses(decisions: Decisions) -> np.ndarray:
    """Returns the cross-entropy (n,) of each decision; for several labels their mean."""
    logits, targets = decisions.logits, decisions.targets
    if decisions.is_several:
        return label_losses(decisions).mean(axis=1)
    highest = logits.max(axis=1)
    total = highest + np.log(np.exp(logits - highest[:, None]).sum(axis=1))
    return total - logits[np.arange(len(logits)), targets]


def label_losses(decisions: Decisions) -> np.ndarray:
    """Returns the cross-entropy of each label (n, labels), where several may apply."""
    signs = 1 - 2 * decisions.targets  # -1 for labels that apply
    return np.logaddexp(0.0, signs * decisions.logits)


def probabilities(decisions: Decisions) -> np.ndarray:
    """Returns the probability of each label (n, labels)."""
    logits = decisions.logits
    if decisions.is_several:
        return np.exp(-np.logaddexp(0.0, -logits))
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def confidences(decisions: Decisions) -> Confidences:
    """Returns the probabilities that a reliability diagram compares with frequencies."""
    values, targets, rows = probabilities(decisions), decisions.targets, decisions.rows
    if decisions.is_several:
        repeated = np.repeat(rows, values.shape[1])
        return Confidences(values.ravel(), np.float64(targets).ravel(), repeated)
    return Confidences(values.max(axis=1), np.float64(values.argmax(axis=1) == targets), rows)


def negative_log_likelihood(decisions: Decisions, seed: int) -> Interval:
    """Returns the mean loss of the decisions with an interval."""
    return bootstrap(by_row(_with_count(losses(decisions)), decisions.rows), _ratio, seed)


def calibration_error(decisions: Decisions, seed: int) -> Interval:
    """Returns the expected calibration error (ECE) with an interval.

    The ECE of a perfectly calibrated model is not 0 on finitely many examples. The interval
    corrects this bias (see `bootstrap`), and contains 0 if the error is one of those that 97.5 % of
    all draws from perfectly calibrated probabilities have.
    """
    found = confidences(decisions)
    interval = bootstrap(error_statistics(decisions), _error, seed, is_biased=True)
    bins, size = _bins(found.values), len(found.values)
    variances = np.bincount(bins, found.values * (1 - found.values), minlength=BINS)
    noise = np.random.default_rng(seed).normal(size=(_DRAWS, BINS)) * np.sqrt(variances) / size
    by_chance = np.quantile(np.abs(noise).sum(axis=1), 0.975)
    return Interval(interval.value, 0.0, interval.high) if interval.value <= by_chance else interval


def difference(after: np.ndarray, before: np.ndarray, metric: str, seed: int) -> Interval:
    """Returns the difference between two sets of statistics of the same examples.

    Args:
        after: From `error_statistics` or `loss_statistics`.
        before: The same for the other probabilities.
        metric: "error" or "loss".
        seed: The seed of the resampling.
    """
    function = {"error": _error, "loss": _ratio}[metric]
    width = after.shape[1]
    return bootstrap(
        np.hstack([after, before]),
        lambda means: function(means[:, :width]) - function(means[:, width:]),
        seed,
    )


def loss_statistics(decisions: Decisions) -> np.ndarray:
    """Returns the summed losses and the number of decisions of each example (examples, 2)."""
    return by_row(_with_count(losses(decisions)), decisions.rows)


def error_statistics(decisions: Decisions) -> np.ndarray:
    """Returns sums of confidence minus hit in each bin, and counts (examples, bins + 1)."""
    found = confidences(decisions)
    sums = np.zeros((len(found.values), BINS + 1))
    sums[np.arange(len(sums)), _bins(found.values)] = found.values - found.hits
    sums[:, -1] = 1
    return by_row(sums, found.rows)


def bin_counts(found: Confidences) -> list[tuple[int, int, float, float]]:
    """Returns number of the bin, size, summed confidences and hits of each bin with any."""
    bins = _bins(found.values)
    sizes = np.bincount(bins, minlength=BINS)
    values = np.bincount(bins, found.values, minlength=BINS)
    hits = np.bincount(bins, found.hits, minlength=BINS)
    return [
        (i, int(sizes[i]), float(values[i]), float(hits[i])) for i in range(BINS) if sizes[i] > 0
    ]


def best_temperature(decisions: Decisions) -> float:
    """Returns the temperature with the lowest loss, between `LOWEST` and `HIGHEST`.

    The loss is convex in the inverse of the temperature, so that there is only one minimum.
    """
    from scipy.optimize import minimize_scalar

    def loss(logarithm: float) -> float:
        return losses(scaled(decisions, np.exp(logarithm))).mean()

    bounds = np.log(LOWEST), np.log(HIGHEST)
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-5})
    return float(np.exp(found.x))


def by_row(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Sums values (n, k) over the decisions of each example: (examples with decisions, k)."""
    _, starts = np.unique(rows, return_index=True)
    return np.add.reduceat(values, starts, axis=0)


def _bins(values: np.ndarray) -> np.ndarray:
    return np.minimum((values * BINS).astype(int), BINS - 1)


def _with_count(values: np.ndarray) -> np.ndarray:
    return np.stack([values, np.ones_like(values)], axis=1)


def _ratio(means: np.ndarray) -> np.ndarray:
    return means[:, 0] / means[:, 1]


def _error(means: np.ndarray) -> np.ndarray:
    return np.abs(means[:, :-1]).sum(axis=1) / means[:, -1]
