"""Linear classifiers of vectors: logistic regression and nearest class means.

Targets are class indices (n,), or 0 and 1 (n, labels) if a text has several labels. The logits of
the result are vectors @ kernel + bias; probabilities are their softmax, or sigmoids for several
labels.
"""

import contextlib
import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np

# Inverse strengths for vectors of mean squared length 1. SetFit's default is 1.
_STRENGTHS = (1.0, 3.0, 10.0, 30.0, 100.0)
_DEFAULT = 10.0
_FOLDS = 3
_TUNING_ROWS = 2000
_SCALES = np.logspace(-1, 2, 13)
# Numbers (rows x features x labels) up to which one thread is faster than several, which wait for
# each other ten times as long as they compute.
_ONE_THREAD = 1 << 20


@dataclass(frozen=True)
class Linear:
    """A linear function of vectors.

    Attributes:
        kernel: (features, labels).
        bias: (labels,).
    """

    kernel: np.ndarray
    bias: np.ndarray

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Returns the logits (n, labels)."""
        return vectors @ self.kernel + self.bias


def logistic(
    vectors: np.ndarray,
    targets: np.ndarray,
    classes: int,
    C: float | Literal["auto"] = "auto",
    held_out: tuple[np.ndarray, np.ndarray] | None = None,
    seed: int = 0,
) -> tuple[Linear, float]:
    """Fits a logistic regression; several labels have one each.

    Args:
        vectors: (n, features).
        targets: See above; each class occurs.
        classes: The number of labels.
        C: The inverse strength of regularization for vectors of mean squared length 1; "auto"
            chooses the one with the least cross-entropy on `held_out`, else in cross-validation.
        held_out: Vectors and targets of other examples.
        seed: Seed of the folds.

    Returns:
        The classifier, and `C`.

    Example:
        >>> from finetune_tf.fewshot.linear import logistic
        >>> head, C = logistic(np.array([[0.0], [1.0]]), np.array([0, 1]), classes=2, C=100.0)
        >>> head(np.array([[0.1], [0.9]])).argmax(axis=1)
        array([0, 1])
    """
    # A shift and one factor for all features keep the geometry of the vectors.
    mean = vectors.mean(axis=0, dtype="float64")
    scale = np.sqrt(np.mean(np.sum((vectors - mean) ** 2, axis=1))) or 1.0

    def scaled(values: np.ndarray) -> np.ndarray:
        return (values - mean) / scale

    with _threads(vectors.size * classes):
        if C == "auto":
            other = held_out and (scaled(held_out[0]), held_out[1])
            C = _best_strength(scaled(vectors), targets, classes, other, seed)
        found = _fit(scaled(vectors), targets, classes, C)
    kernel = found.kernel / scale
    return Linear(kernel, found.bias - mean @ kernel), float(C)


def prototypes(vectors: np.ndarray, targets: np.ndarray, classes: int) -> Linear:
    """Returns the classifier by the nearest mean vector of a class.

    The logits are -s · |x - mean|² up to a term that all classes share, which makes them linear.
    With several labels, the logit of each is s times the difference of the squared distances to the
    means of the texts without and with the label; a label that all texts have is always predicted.
    The factor s does not change decisions; it is the one for which each example is predicted best
    from the means of the others. An example that is alone in its class is not predicted for that.

    Args:
        vectors: (n, features).
        targets: See above; each class occurs.
        classes: The number of labels.
    """
    center = vectors.mean(axis=0, dtype="float64")  # which all means share: digits would be lost
    vectors = vectors - center
    member = indicators(targets, classes)  # (n, labels)
    means, counts = _means(vectors, member)
    distances = _distances(vectors, means, counts, member)
    constant = np.zeros(classes)
    if targets.ndim == 1:
        head = Linear(2 * means.T, -np.sum(means**2, axis=1))
        logits, counted = -distances, counts[targets] > 1
    else:
        others, other_counts = _means(vectors, 1 - member)
        varies = other_counts > 0
        head = Linear(
            2 * (means - others).T * varies,
            (np.sum(others**2, axis=1) - np.sum(means**2, axis=1)) * varies,
        )
        logits = _distances(vectors, others, other_counts, 1 - member) - distances
        counted = (np.where(member > 0, counts, other_counts) > 1) & varies
        constant[~varies] = np.log(2 * len(targets) + 1)  # as `logistic` has it
    factor = _best_factor(logits, targets, counted)
    kernel = factor * head.kernel
    return Linear(kernel, factor * head.bias + constant - center @ kernel)


def _distances(
    vectors: np.ndarray, means: np.ndarray, counts: np.ndarray, member: np.ndarray
) -> np.ndarray:
    """Returns the squared distances (n, labels) to means of which an example is no part."""
    products = vectors @ means.T
    distances = np.sum(vectors**2, axis=1, keepdims=True) - 2 * products + np.sum(means**2, axis=1)
    # Without the example itself, its mean is farther away by n / (n - 1).
    return distances * np.where(member > 0, np.square(counts / np.maximum(counts - 1, 1)), 1)


def _best_factor(logits: np.ndarray, targets: np.ndarray, counted: np.ndarray) -> float:
    """Returns the factor of logits with the least cross-entropy on the examples that count.

    Args:
        logits: (n, labels).
        targets: See above.
        counted: Which examples (n,) count, or which labels of them (n, labels).
    """
    if counted.any():
        logits, targets = logits[counted], targets[counted]
        if counted.ndim == 2:
            logits, targets = logits[:, None], targets[:, None]
    spread = np.mean(np.abs(logits - logits.mean())) or 1.0
    if not counted.any():
        return float(1 / spread)
    factors = _SCALES / spread
    losses = [cross_entropy(factor * logits, targets) for factor in factors]
    return float(factors[int(np.argmin(losses))])


def indicators(targets: np.ndarray, classes: int) -> np.ndarray:
    """Converts targets to 0 and 1 (n, labels)."""
    if targets.ndim == 2:
        return np.float64(targets)
    return np.float64(targets[:, None] == np.arange(classes))


def cross_entropy(logits: np.ndarray, targets: np.ndarray) -> float:
    """Returns the mean cross-entropy; with several labels, the mean over texts and labels."""
    if targets.ndim == 2:
        return float(np.mean(np.logaddexp(0.0, logits) - targets * logits))
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_sums = np.log(np.exp(shifted).sum(axis=1))
    return float(np.mean(log_sums - shifted[np.arange(len(targets)), targets]))


def _means(vectors: np.ndarray, member: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    counts = member.sum(axis=0)
    return member.T @ vectors / np.maximum(counts, 1)[:, None], counts


def _threads(numbers: int) -> contextlib.AbstractContextManager:
    """Returns the block in which linear algebra with so many numbers uses the threads it needs."""
    from threadpoolctl import threadpool_limits  # which scikit-learn requires

    return threadpool_limits(1 if numbers <= _ONE_THREAD else None, user_api="blas")


def _best_strength(
    vectors: np.ndarray,
    targets: np.ndarray,
    classes: int,
    held_out: tuple[np.ndarray, np.ndarray] | None,
    seed: int,
) -> float:
    if held_out is not None:
        losses = [
            cross_entropy(_fit(vectors, targets, classes, strength)(held_out[0]), held_out[1])
            for strength in _STRENGTHS
        ]
        return _STRENGTHS[int(np.argmin(losses))]
    rows = np.random.default_rng(seed).permutation(len(targets))[:_TUNING_ROWS]
    vectors, targets = vectors[rows], targets[rows]
    folds = _folds(targets, classes)
    if folds is None:
        return _DEFAULT

    def loss(strength: float) -> float:
        return sum(
            cross_entropy(
                _fit(vectors[folds != fold], targets[folds != fold], classes, strength)(
                    vectors[folds == fold]
                ),
                targets[folds == fold],
            )
            for fold in range(_FOLDS)
        )

    return min(_STRENGTHS, key=loss)


def _folds(targets: np.ndarray, classes: int) -> np.ndarray | None:
    """Returns the fold of each row, with the same share of classes in each; None for few rows."""
    member = indicators(targets, classes)
    if member.sum(axis=0).min() < _FOLDS:
        return None
    if targets.ndim == 2:
        return np.arange(len(targets)) % _FOLDS
    folds = np.empty(len(targets), dtype=int)
    for number in range(classes):
        (of_class,) = np.nonzero(targets == number)
        folds[of_class] = np.arange(len(of_class)) % _FOLDS
    return folds


def _fit(vectors: np.ndarray, targets: np.ndarray, classes: int, strength: float) -> Linear:
    from sklearn.linear_model import LogisticRegression

    def fitted(answers: np.ndarray) -> LogisticRegression:
        model = LogisticRegression(C=strength, max_iter=1000, tol=1e-4)
        with warnings.catch_warnings():
            # The last bit of convergence does not matter; nobody could act on the warning.
            warnings.simplefilter("ignore")
            return model.fit(vectors, answers)

    if targets.ndim == 1:
        model = fitted(targets)
        kernel = np.zeros((vectors.shape[1], classes))
        bias = np.full(classes, -1e4)  # a class that a fold does not have
        if len(model.classes_) == 2:  # one logit for the second class: half of it for each
            coefficients = np.concatenate([-model.coef_ / 2, model.coef_ / 2])
            intercepts = np.concatenate([-model.intercept_ / 2, model.intercept_ / 2])
        else:
            coefficients, intercepts = model.coef_, model.intercept_
        kernel[:, model.classes_] = coefficients.T
        bias[model.classes_] = intercepts
        return Linear(kernel, bias)
    columns = []
    for answers in targets.T:
        if len(np.unique(answers)) == 1:  # a label that all texts have
            share = (answers.sum() + 0.5) / (len(answers) + 1)
            columns.append((np.zeros(vectors.shape[1]), np.log(share / (1 - share))))
            continue
        model = fitted(answers)
        columns.append((model.coef_[0], model.intercept_[0]))
    kernels, biases = zip(*columns, strict=True)
    return Linear(np.stack(kernels, axis=1), np.array(biases))
