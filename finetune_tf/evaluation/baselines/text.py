"""Baselines for text classification and regression, without a pretrained model.

- "tfidf": one-vs-rest logistic regression on TF-IDF features, a strong baseline for text
  classification (Wang and Manning, Baselines and Bigrams: Simple, Good Sentiment and Topic
  Classification, ACL 2012, compare linear models on n-grams);
- "majority": the relative frequency of each label in the training examples;
- "ridge": ridge regression on TF-IDF features;
- "mean": the mean of the training targets.

See `TfidfFeatures` for the features. The regularization strength is selected by 3-fold
cross-validation on at most 2,000 training examples. Scores have the form that
`TextClassification.probabilities` returns.
"""

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_tf.base.labels import Labels, ProblemType
from finetune_tf.data import Examples
from finetune_tf.errors import DataError
from finetune_tf.evaluation.baselines.tfidf import TfidfFeatures
from finetune_tf.evaluation.evaluators.evaluator import BaselineFunction
from finetune_tf.evaluation.metrics import MAIN_METRIC, compute_metrics, decide

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

#: (training examples, test examples) to the features of both, (n, num_features).
Features = Callable[[Examples, Examples], tuple[Any, Any]]

#: (training features, training targets, test features, labels, regularization strength) to scores.
_FitAndScore = Callable[["csr_matrix", np.ndarray, "csr_matrix", Labels, float], np.ndarray]

# Enough examples to select the regularization strength, few enough to take only seconds.
_TUNING_EXAMPLES = 2000
_FOLDS = 3


def _majority(
    train: Examples, targets: np.ndarray, test: Examples, labels: Labels, seed: int
) -> np.ndarray:
    return np.tile(_indicators(targets, labels).mean(axis=0), (len(test), 1))


def _mean(
    train: Examples, targets: np.ndarray, test: Examples, labels: Labels, seed: int
) -> np.ndarray:
    return np.full(len(test), np.mean(targets, dtype=np.float64))


def text_features(train: Examples, test: Examples) -> tuple["csr_matrix", "csr_matrix"]:
    """Returns the TF-IDF features of training and of test texts."""
    extractor = TfidfFeatures()
    found = extractor.fit_transform(_text_columns(train))
    return found, extractor.transform(_text_columns(test))


def scorers(features: Features, linear: str) -> dict[str, dict[str, Callable[..., np.ndarray]]]:
    """Returns the baselines by problem type and name, strongest first, as functions to scores.

    Args:
        features: Computes the features of the linear models.
        linear: The name of the classifier.
    """
    logistic = functools.partial(_fit_tuned, features, _logistic_regression, (1.0, 5.0, 25.0))
    ridge = functools.partial(_fit_tuned, features, _ridge_regression, (10.0, 3.0, 1.0, 0.3))
    classifiers = {linear: logistic, "majority": _majority}
    return {
        "single_label_classification": classifiers,
        "multi_label_classification": classifiers,
        "regression": {"ridge": ridge, "mean": _mean},
    }


def baseline_scores(
    name: str,
    train: Examples,
    train_targets: np.ndarray,
    test: Examples,
    labels: Labels,
    seed: int = 0,
) -> np.ndarray:
    """Fits a baseline to the training examples and computes scores for the test examples.

    Args:
        name: The name of a baseline for the problem type of the labels.
        train: The training examples.
        train_targets: Their targets, as `task.targets` returns them.
        test: The test examples.
        labels: The labels in index order.
        seed: The seed of the cross-validation folds.

    Returns:
        Probabilities (n, num_labels), or numbers (n,) for a regression.

    Raises:
        DataError: If only one of the two data sets has text pairs.

    Example:
        >>> from finetune_tf.evaluation.baselines.text import baseline_scores
        >>> targets = np.array([1, 1, 1, 0, 0])
        >>> baseline_scores("majority", train, targets, test, train.labels)[0]
        array([0.4, 0.6])
    """
    if ("text_pair" in train.columns) != ("text_pair" in test.columns):
        raise DataError(
            f"{train.name} and {test.name} do not match: only one of them has a text_pair. "
            "A baseline needs the same columns in both."
        )
    return _BASELINES[labels.problem_type][name](train, train_targets, test, labels, seed)


def baselines_for(problem_type: ProblemType) -> dict[str, BaselineFunction]:
    """Returns the baselines of a problem type, as functions that return predictions."""

    def predictor(name: str) -> BaselineFunction:
        return lambda train, targets, test, labels, seed: decide(
            baseline_scores(name, train, targets, test, labels, seed), labels
        )

    return {name: predictor(name) for name in _BASELINES[problem_type]}


def _fit_tuned(
    features: Features,
    fit_and_score: _FitAndScore,
    strengths: Sequence[float],
    train: Examples,
    targets: np.ndarray,
    test: Examples,
    labels: Labels,
    seed: int,
) -> np.ndarray:
    train_features, test_features = features(train, test)
    strength = _best_strength(fit_and_score, strengths, train_features, targets, labels, seed)
    return fit_and_score(train_features, targets, test_features, labels, strength)


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

    def mean_metric(strength: float) -> float:
        results = []
        for fold in folds:
            rest = np.setdiff1d(rows, fold)
            scores = fit_and_score(features[rest], targets[rest], features[fold], labels, strength)
            results.append(compute_metrics(targets[fold], decide(scores, labels), labels))
        return np.mean([metrics[MAIN_METRIC[labels.problem_type]] for metrics in results])

    return max(strengths, key=mean_metric)


def _logistic_regression(
    features: "csr_matrix",
    targets: np.ndarray,
    test_features: "csr_matrix",
    labels: Labels,
    strength: float,
) -> np.ndarray:
    # One-vs-rest with liblinear. With dozens of classes it is many times faster on sparse features
    # than multinomial logistic regression, and as accurate.
    columns = _indicators(targets, labels).T
    scores = np.stack(
        [
            _binary_logistic_regression(features, column, test_features, strength)
            for column in columns
        ],
        axis=1,
    )
    if labels.problem_type == "multi_label_classification":
        return scores
    return scores / scores.sum(axis=1, keepdims=True)


def _binary_logistic_regression(
    features: "csr_matrix", is_class: np.ndarray, test_features: "csr_matrix", strength: float
) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(is_class)) == 1:  # a class that all training texts have, or none
        return np.full(test_features.shape[0], float(is_class[0]))
    # The dual problem takes a tenth of the time, because there are far more features than texts.
    model = LogisticRegression(
        C=strength, solver="liblinear", dual=True, max_iter=10_000, random_state=0
    )
    return model.fit(features, is_class).predict_proba(test_features)[:, 1]


def _ridge_regression(
    features: "csr_matrix",
    targets: np.ndarray,
    test_features: "csr_matrix",
    labels: Labels,
    strength: float,
) -> np.ndarray:
    from sklearn.linear_model import Ridge

    return Ridge(alpha=strength).fit(features, np.float64(targets)).predict(test_features)


def _indicators(targets: np.ndarray, labels: Labels) -> np.ndarray:
    """Converts targets to 0 and 1 (n, num_labels)."""
    if labels.problem_type == "multi_label_classification":
        return np.asarray(targets, dtype=int)
    return (np.asarray(targets)[:, None] == np.arange(len(labels))).astype(int)


def _text_columns(examples: Examples) -> list[list[str]]:
    return [examples.columns[name] for name in ("text", "text_pair") if name in examples.columns]


#: The baselines by problem type and name, strongest first; "auto" selects the first one.
_BASELINES = scorers(text_features, "tfidf")
