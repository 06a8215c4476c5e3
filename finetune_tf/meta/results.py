"""The accuracy of a learner over episodes, beside a probe on the same features."""

import contextlib
from dataclasses import dataclass

import numpy as np

from finetune_tf.evaluation.intervals import Interval, mean

_PROBE_STEPS = 1000


@dataclass(frozen=True, eq=False)
class EpisodeReport:
    """What `evaluate` of a learner returns; print it.

    Attributes:
        learner: The name of the learner.
        ways: The classes of an episode.
        shots: The rows of each class to learn from.
        queries: The rows of each class that were predicted.
        accuracies: The accuracy of the learner in each episode, (episodes,).
        probe_accuracies: That of a logistic regression on the features of the same model before
            it adapts, in the same episodes, (episodes,).
    """

    learner: str
    ways: int
    shots: int
    queries: int
    accuracies: np.ndarray
    probe_accuracies: np.ndarray

    @property
    def accuracy(self) -> Interval:
        """The mean accuracy of the learner."""
        return mean(self.accuracies)

    @property
    def probe(self) -> Interval:
        """The mean accuracy of the logistic regression."""
        return mean(self.probe_accuracies)

    @property
    def difference(self) -> Interval:
        """The mean difference of the two in the same episode."""
        return mean(self.accuracies - self.probe_accuracies)

    def __str__(self) -> str:
        difference = self.difference
        verdict = "" if difference.excludes(0) else "; it contains 0, so a probe is as good"
        return (
            f"{self.ways}-way {self.shots}-shot, {len(self.accuracies):,} episodes\n"
            f"  {self.learner}: {self.accuracy}\n"
            f"  logistic regression on the same features: {self.probe}\n"
            f"  difference: {difference.value:+.3f} "
            f"(95% interval {difference.low:+.3f} to {difference.high:+.3f}){verdict}"
        )

    __repr__ = __str__


def one_thread() -> contextlib.AbstractContextManager:
    """Makes linear algebra of NumPy use one thread, which suits the small matrices of episodes."""
    from threadpoolctl import threadpool_limits  # a dependency of scikit-learn

    return threadpool_limits(1)


def probe_accuracy(
    support: np.ndarray, support_classes: np.ndarray, query: np.ndarray, query_classes: np.ndarray
) -> float:
    """Returns the accuracy of a logistic regression on features.

    The features are divided by one number, after which their average variance is 1. They are
    projected to the space that the support set spans, which changes no result and is faster.

    Args:
        support: The features (rows, D) to learn from.
        support_classes: Their classes (rows,).
        query: The features to predict.
        query_classes: Their classes.
    """
    from sklearn.linear_model import LogisticRegression

    center = support.mean(axis=0, dtype="float64")
    support, query = support - center, query - center
    scale = np.sqrt(np.mean(np.square(support))) or 1.0
    basis = np.linalg.svd(support / scale, full_matrices=False)[2].T  # (D, rank)
    probe = LogisticRegression(max_iter=_PROBE_STEPS)
    probe.fit(support / scale @ basis, support_classes)
    return float(np.mean(probe.predict(query / scale @ basis) == query_classes))
