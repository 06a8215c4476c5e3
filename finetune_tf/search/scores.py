"""Scores of features for a task, without fine-tuning; for all of them, higher is better.

References:
    Bao et al., An Information-Theoretic Approach to Transferability in Task Transfer Learning,
    ICIP 2019 (the H-score).
    Ibrahim, Ponomareva and Mazumder, Newer is Not Always Better: Rethinking Transferability
    Metrics, Their Peculiarities, Stability and Performance, ECML PKDD 2022 (its shrinkage).
    Shao and Wu, A General Theory for Jackknife Variance Estimation, Annals of Statistics 1989
    (half-samples).
"""

import numpy as np

#: The quantile of a normal distribution that belongs to an interval of 95 %.
NORMAL = 1.96
_TINY = 1e-9  # variance of what does not vary


def h_score(features: np.ndarray, targets: np.ndarray) -> float:
    """Computes the H-score with a shrunk covariance, divided by its highest possible value.

    It is the share of the features' variance, in directions scaled to equal variance, that the
    targets explain: the mean squared canonical correlation of features and targets. With one class
    for each example, this is tr(cov(f)⁻¹ cov(E[f | class])) / (classes - 1). The covariance of the
    features is shrunk towards a multiple of the identity (Ledoit and Wolf 2004), and the score by
    the same share; otherwise more features than examples would have a perfect score. It is 0 if
    all targets, or all features, are the same.

    Args:
        features: (n, d).
        targets: (n, k) numbers: 1 for the class of an example and 0 for the others, 0 and 1 for
            several labels, or the numbers of a regression (n, 1).

    Returns:
        A number from 0 to 1; higher is better.

    Example:
        >>> from finetune_tf.search.scores import h_score
        >>> targets = np.eye(2)[[0, 1] * 50]
        >>> noise = np.random.default_rng(0).normal(size=(100, 3))
        >>> informed = noise + targets[:, :1] * 3
        >>> h_score(noise, targets) < 0.1 < 0.6 < h_score(informed, targets) < 1
        True
    """
    from sklearn.covariance import ledoit_wolf

    features = np.float64(features) - features.mean(axis=0, dtype="float64")
    targets = np.float64(targets) - targets.mean(axis=0, dtype="float64")
    covariance, shrinkage = ledoit_wolf(features, assume_centered=True)
    # In directions in which the targets vary: the indicators of classes always have the sum 1.
    variances, directions = np.linalg.eigh(targets.T @ targets / len(targets))
    varying = variances > _TINY * variances.max()
    rank = int(varying.sum())
    if not variances.max() > 0 or not np.trace(covariance) > 0:
        return 0.0
    # Of fewer rows than features, the covariance may not be shrunk at all.
    covariance[np.diag_indices_from(covariance)] += _TINY * np.trace(covariance) / len(covariance)
    whitened = targets @ (directions[:, varying] / np.sqrt(variances[varying]))
    joint = features.T @ whitened / len(targets)  # (d, rank)
    explained = np.sum(joint * np.linalg.solve(covariance, joint))
    return float((1 - shrinkage) * explained / rank)


def half_samples(features: np.ndarray, targets: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Returns the H-scores (draws,) of random halves of the rows.

    Their standard deviation estimates the standard error of the H-score of all rows. A bootstrap
    with replacement would not: equal rows make a covariance look better than it is known.

    Args:
        features: As for `h_score`.
        targets: As for `h_score`.
        draws: The number of halves.
        seed: Decides the halves, so that those of two checkpoints have the same rows.
    """
    generator, rows = np.random.default_rng(seed), len(features)
    halves = (generator.permutation(rows)[: rows // 2] for _ in range(draws))
    return np.array([h_score(features[half], targets[half]) for half in halves])


def linear_probe(features: np.ndarray, targets: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Fits a ridge regression of targets on features and applies it to other features.

    Its strength of regularization is chosen by leave-one-out errors on the rows that are fitted.

    Args:
        features: (n, d).
        targets: (n, k) numbers, as for `h_score`.
        others: (m, d).

    Returns:
        Predicted targets (m, k).
    """
    from sklearn.linear_model import RidgeCV

    mean, deviation = features.mean(axis=0), features.std(axis=0)
    deviation = np.where(deviation > 1e-6, deviation, 1.0)
    # A share of the number of rows: then each feature is penalized as if it had other variance.
    ridge = RidgeCV(alphas=len(features) * np.logspace(-4, 2, 13))
    ridge.fit((features - mean) / deviation, targets)
    return ridge.predict((others - mean) / deviation).reshape(len(others), -1)
