"""Metrics of a test: from targets and scores to named numbers, by problem type.

Scores are what `TextClassification.probabilities` returns: (n, num_labels) probabilities, or (n,)
numbers for a regression. `decide` turns them into predictions of the same form as the targets.
"""

import numpy as np

from finetune_tf.base.labels import Labels
from finetune_tf.tasks.text_classification import decide as decide

#: The metric that comparisons and confidence intervals are about.
MAIN_METRIC = {
    "single_label_classification": "accuracy",
    "multi_label_classification": "micro_f1",
    "regression": "pearson",
}


def compute_metrics(
    targets: np.ndarray, predictions: np.ndarray, labels: Labels
) -> dict[str, float]:
    """The metrics of a problem type, the main one first.

    - single label: accuracy, macro_f1, mcc (Matthews correlation);
    - multi-label: micro_f1, macro_f1, subset_accuracy (all labels of a text right);
    - regression: pearson, spearman, mse, mae. A correlation with a constant is undefined and
      counts as 0.0.

    A class that is neither in the targets nor in the predictions is left out of macro_f1.

    Args:
        targets: What is right: class indices (n,), 0 and 1 (n, num_labels), or numbers (n,).
        predictions: Predictions in the same form, as from `decide`.
        labels: The labels in index order.
    """
    if labels.problem_type == "single_label_classification":
        return _single_label(targets, predictions, labels)
    if labels.problem_type == "multi_label_classification":
        return _multi_label(targets, predictions)
    return _regression(targets, predictions)


def per_class(
    targets: np.ndarray, predictions: np.ndarray, labels: Labels
) -> dict[str, dict[str, float]]:
    """Precision, recall, f1 and support of each label; empty for a regression.

    What is undefined (the recall of a class that is not in the test) counts as 0.0.
    """
    from sklearn.metrics import precision_recall_fscore_support

    if labels.problem_type == "regression":
        return {}
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
    """Counts (num_labels, num_labels): rows are the truth, columns the prediction.

    None unless exactly one label is right per text.
    """
    from sklearn.metrics import confusion_matrix

    if labels.problem_type != "single_label_classification":
        return None
    return confusion_matrix(targets, predictions, labels=range(len(labels)))


def _single_label(targets: np.ndarray, predictions: np.ndarray, labels: Labels) -> dict[str, float]:
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    # scikit-learn warns when only one class occurs; the coefficient is 0 by convention then.
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

    targets = targets.astype(int)
    each = f1_score(targets, predictions, average=None, zero_division=np.nan)
    defined = each[~np.isnan(each)]
    return {
        "micro_f1": float(f1_score(targets, predictions, average="micro", zero_division=0.0)),
        "macro_f1": float(defined.mean()) if len(defined) else 0.0,
        "subset_accuracy": float(accuracy_score(targets, predictions)),
    }


def _regression(targets: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    from sklearn.metrics import mean_absolute_error, mean_squared_error

    targets, predictions = np.float64(targets), np.float64(predictions)
    return {
        **correlations(targets, predictions),
        "mse": float(mean_squared_error(targets, predictions)),
        "mae": float(mean_absolute_error(targets, predictions)),
    }


def correlations(targets: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    """Pearson's and Spearman's correlation of numbers (n,); 0.0 where undefined."""
    from scipy.stats import pearsonr, spearmanr

    targets, predictions = np.float64(targets), np.float64(predictions)
    if is_constant(targets) or is_constant(predictions):
        return {"pearson": 0.0, "spearman": 0.0}
    return {
        "pearson": float(pearsonr(targets, predictions).statistic),
        "spearman": float(spearmanr(targets, predictions).statistic),
    }


def is_constant(values: np.ndarray) -> bool:
    """Whether all values (n,) are equal up to rounding, so that nothing correlates with them."""
    return bool(np.ptp(values) <= 1e-12 * np.abs(values).max())
