"""Baselines for whole texts: what a test yields without a pretrained model.

- "tfidf": logistic regression, one label against the rest, on TF-IDF features;
- "majority": how frequent each label is in the training examples;
- "ridge": ridge regression on TF-IDF features;
- "mean": the mean of the training targets.

See `TfidfFeatures` for the features. The strength of a penalty is chosen by 3-fold
cross-validation on up to 2,000 training examples. Scores have the form of
`TextClassification.probabilities`.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from finetune_tf.base.labels import Labels, ProblemType
from finetune_tf.data import Examples
from finetune_tf.errors import DataError
from finetune_tf.evaluation.baselines.tfidf import TfidfFeatures
from finetune_tf.evaluation.evaluators.evaluator import BaselineFunction
from finetune_tf.evaluation.metrics import MAIN_METRIC, compute_metrics, decide

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

#: (features to learn from, their targets, features to score, labels, strength) to scores.
_FitAndScore = Callable[["csr_matrix", np.ndarray, "csr_matrix", Labels, float], np.ndarray]

# Enough to choose the strength of a penalty by, little enough to take seconds.
_TUNING_EXAMPLES = 2000
_FOLDS = 3


def _frequencies(
    train: Examples, targets: np.ndarray, test: Examples, labels: Labels, seed: int
) -> np.ndarray:
    return np.tile(_indicators(targets, labels).mean(axis=0), (len(test), 1))


def _mean(
    train: Examples, targets: np.ndarray, test: Examples, labels: Labels, seed: int
) -> np.ndarray:
    return np.full(len(test), np.mean(targets, dtype=np.float64))


def _tfidf(
    train: Examples, targets: np.ndarray, test: Examples, labels: Labels, seed: int
) -> np.ndarray:
    return _tuned(_logistic, (1.0, 5.0, 25.0), train, targets, test, labels, seed)


def _ridge(
    train: Examples, targets: np.ndarray, test: Examples, labels: Labels, seed: int
) -> np.ndarray:
    return _tuned(_ridge_scores, (10.0, 3.0, 1.0, 0.3), train, targets, test, labels, seed)


_CLASSES = {"tfidf": _tfidf, "majority": _frequencies}

#: By problem type; the strongest first: that is what "auto" means.
_SCORES = {
    "single_label_classification": _CLASSES,
    "multi_label_classification": _CLASSES,
    "regression": {"ridge": _ridge, "mean": _mean},
}


def baseline_scores(
    name: str,
    train: Examples,
    train_targets: np.ndarray,
    test: Examples,
    labels: Labels,
    seed: int = 0,
) -> np.ndarray:
    """Fits a baseline to the training examples and scores the test examples with it.

    Args:
        name: One of those for the labels' problem type.
        train: The examples to learn from.
        train_targets: Their targets, from `task.targets`.
        test: The examples to score.
        labels: The labels in target order.
        seed: Seed of the folds.
    """
    if ("text_pair" in train.columns) != ("text_pair" in test.columns):
        raise DataError(
            f"{train.name} and {test.name} do not fit together: only one has a text_pair. "
            "A baseline needs the same columns in both."
        )
    return _SCORES[labels.problem_type][name](train, train_targets, test, labels, seed)


def baselines_for(problem_type: ProblemType) -> dict[str, BaselineFunction]:
    """The baselines of a problem type as functions that give predictions."""

    def predicting(name: str) -> BaselineFunction:
        return lambda train, targets, test, labels, seed: decide(
            baseline_scores(name, train, targets, test, labels, seed), labels
        )

    return {name: predicting(name) for name in _SCORES[problem_type]}


def _tuned(
    fit_and_score: _FitAndScore,
    strengths: Sequence[float],
    train: Examples,
    targets: np.ndarray,
    test: Examples,
    labels: Labels,
    seed: int,
) -> np.ndarray:
    features = TfidfFeatures()
    learned, asked = features.fit_transform(_sides(train)), features.transform(_sides(test))
    strength = _best_strength(fit_and_score, strengths, learned, targets, labels, seed)
    return fit_and_score(learned, targets, asked, labels, strength)


def _best_strength(
    fit_and_score: _FitAndScore,
    strengths: Sequence[float],
    features: "csr_matrix",
    targets: np.ndarray,
    labels: Labels,
    seed: int,
) -> float:
    rows = np.random.default_rng(seed).permutation(len(targets))[:_TUNING_EXAMPLES]
    if len(rows) < 2 * _FOLDS:
        return strengths[len(strengths) // 2]
    folds = np.array_split(rows, _FOLDS)

    def quality(strength: float) -> float:
        values = []
        for held in folds:
            rest = np.setdiff1d(rows, held)
            scores = fit_and_score(features[rest], targets[rest], features[held], labels, strength)
            values.append(compute_metrics(targets[held], decide(scores, labels), labels))
        return np.mean([value[MAIN_METRIC[labels.problem_type]] for value in values])

    return max(strengths, key=quality)


def _logistic(
    features: "csr_matrix",
    targets: np.ndarray,
    asked: "csr_matrix",
    labels: Labels,
    strength: float,
) -> np.ndarray:
    # One against the rest with liblinear: with dozens of classes many times faster on sparse
    # features than a softmax, and as accurate.
    right = _indicators(targets, labels)
    scores = np.stack([_binary(features, column, asked, strength) for column in right.T], axis=1)
    if labels.problem_type == "multi_label_classification":
        return scores
    return scores / scores.sum(axis=1, keepdims=True)


def _binary(
    features: "csr_matrix", right: np.ndarray, asked: "csr_matrix", strength: float
) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(right)) == 1:  # Nothing to tell apart: always or never.
        return np.full(asked.shape[0], float(right[0]))
    # The dual problem: features far outnumber texts, and it takes a tenth of the time.
    model = LogisticRegression(
        C=strength, solver="liblinear", dual=True, max_iter=10_000, random_state=0
    )
    return model.fit(features, right).predict_proba(asked)[:, 1]


def _ridge_scores(
    features: "csr_matrix",
    targets: np.ndarray,
    asked: "csr_matrix",
    labels: Labels,
    strength: float,
) -> np.ndarray:
    from sklearn.linear_model import Ridge

    return Ridge(alpha=strength).fit(features, np.float64(targets)).predict(asked)


def _indicators(targets: np.ndarray, labels: Labels) -> np.ndarray:
    """Targets as 0 and 1 (n, num_labels)."""
    if labels.problem_type == "multi_label_classification":
        return np.asarray(targets, dtype=int)
    return (np.asarray(targets)[:, None] == np.arange(len(labels))).astype(int)


def _sides(examples: Examples) -> list[list[str]]:
    return [examples.columns[name] for name in ("text", "text_pair") if name in examples.columns]
