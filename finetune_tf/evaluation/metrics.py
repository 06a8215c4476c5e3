"""Metrics of text classification and regression, by problem type.

`decide` converts scores to predictions of the same form as the targets. Scores are what
`TextClassification.probabilities` returns: probabilities (n, num_labels), or for a regression
numbers (n,).
"""

import numpy as np

from finetune_tf.base.labels import Labels
from finetune_tf.tasks.decisions import decide as decide

#: The metric for which differences and confidence intervals are computed.
MAIN_METRIC = {
    "single_label_classification": "accuracy",
    "multi_label_classification": "micro_f1",
    "regression": "pearson",
}


def compute_metrics(
    targets: np.ndarray, predictions: np.ndarray, labels: Labels
) -> dict[str, float]:
    """Computes the metrics of a problem type.

    - single-label: accuracy, macro_f1, mcc (Matthews correlation coefficient);
    - multi-label: micro_f1, macro_f1, subset_accuracy (the share of texts with all labels correct);
    - regression: pearson, spearman, mse, mae. The correlation with a constant is undefined and
      reported as 0.0.

    macro_f1 omits classes that occur neither in the targets nor in the predictions.

    Args:
        targets: The ground truth: class indices (n,), 0 and 1 (n, num_labels), or numbers (n,).
        predictions: Predictions in the same form, as `decide` returns them.
        labels: The labels in index order.

    Returns:
        The values by name, the main metric first.

    Example:
        >>> from finetune_tf.evaluation.metrics import compute_metrics
        >>> targets, predictions = np.array([0, 1, 1, 1]), np.array([0, 1, 1, 0])
        >>> metrics = compute_metrics(targets, predictions, ft.Labels(["bad", "good"]))
        >>> {name: round(value, 3) for name, value in metrics.items()}
        {'accuracy': 0.75, 'macro_f1': 0.733, 'mcc': 0.577}
    """
    if labels.problem_type == "single_label_classification":
        return _single_label(targets, predictions, labels)
    if labels.problem_type == "multi_label_classification":
        return _multi_label(targets, predictions)
    return _regression(targets, predictions)


def per_class(
    targets: np.ndarray, predictions: np.ndarray, labels: Labels
) -> dict[str, dict[str, float]]:
    """Computes precision, recall, f1 and support of each label; empty for a regression.

    Undefined values, such as the recall of a class that is not in the test set, are 0.0.
    """
    from sklearn.metrics import precision_recall_fscore_support

    if labels.problem_type == "regression":
        return {}
    targets, predictions = _indicators(targets), _indicators(predictions)
    precision, recall, f1, support = precision_recall_fscore_support(
        targets, predictions, labels=range(len(labels)), average=None, zero_division=0.0
    )
    return {
        name: {
            "precision": float(precision[i]),
            "recall": float(recall[i]),
            "f1": float(f1[i]),
            "support": int(support[i]),
        }
        for i, name in enumerate(labels)
    }


def confusion(targets: np.ndarray, predictions: np.ndarray, labels: Labels) -> np.ndarray | None:
    """Computes the confusion matrix (num_labels, num_labels) of counts.

    Returns:
        True labels in rows, predicted labels in columns; None unless the problem type is
        single-label classification.
    """
    from sklearn.metrics import confusion_matrix

    if labels.problem_type != "single_label_classification":
        return None
    return confusion_matrix(targets, predictions, labels=range(len(labels)))


def _single_label(targets: np.ndarray, predictions: np.ndarray, labels: Labels) -> dict[str, float]:
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    # With a single class, scikit-learn warns; the coefficient is 0 by convention.
    one_class = len(np.union1d(targets, predictions)) == 1
    macro_f1 = f1_score(
        targets, predictions, labels=range(len(labels)), average="macro", zero_division=np.nan
    )
    return {
        "accuracy": float(accuracy_score(targets, predictions)),
        "macro_f1": float(macro_f1),
        "mcc": 0.0 if one_class else float(matthews_corrcoef(targets, predictions)),
    }


def _multi_label(targets: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    from sklearn.metrics import accuracy_score, f1_score

    targets, predictions = _indicators(targets.astype(int)), _indicators(predictions)
    each = f1_score(targets, predictions, average=None, zero_division=np.nan)
    defined = each[~np.isnan(each)]
    return {
        "micro_f1": float(f1_score(targets, predictions, average="micro", zero_division=0.0)),
        "macro_f1": float(defined.mean()) if len(defined) else 0.0,
        "subset_accuracy": float(accuracy_score(targets, predictions)),
    }


def _indicators(values: np.ndarray) -> np.ndarray:
    """Adds a label that never applies if there is one label (n, 1); all else stays as it is.

    scikit-learn reads a single column as a choice between two classes, 0 and 1.
    """
    is_single_column = values.ndim == 2 and values.shape[1] == 1
    return np.pad(values, ((0, 0), (0, 1))) if is_single_column else values


def _regression(targets: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    from sklearn.metrics import mean_absolute_error, mean_squared_error

    targets, predictions = np.float64(targets), np.float64(predictions)
    return {
        **correlations(targets, predictions),
        "mse": float(mean_squared_error(targets, predictions)),
        "mae": float(mean_absolute_error(targets, predictions)),
    }


def correlations(targets: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    """Computes Pearson's and Spearman's correlation of numbers (n,); 0.0 if undefined."""
    from scipy.stats import pearsonr, spearmanr

    targets, predictions = np.float64(targets), np.float64(predictions)
    if is_constant(targets) or is_constant(predictions):
        return {"pearson": 0.0, "spearman": 0.0}
    return {
        "pearson": float(pearsonr(targets, predictions).statistic),
        "spearman": float(spearmanr(targets, predictions).statistic),
    }


def is_constant(values: np.ndarray) -> bool:
    """Whether all values (n,) are equal up to rounding, so that a correlation is undefined."""
    return bool(np.ptp(values) <= 1e-12 * np.abs(values).max())
