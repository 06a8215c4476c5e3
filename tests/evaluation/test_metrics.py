"""Metrics on examples calculated by hand."""

import numpy as np
import pytest

from finetune_tf.base.labels import Labels
from finetune_tf.evaluation.evaluators.text import MultiLabel
from finetune_tf.evaluation.metrics import compute_metrics, confusion, decide, per_class

COLOURS = Labels(["red", "green", "blue"])
TOPICS = Labels(["art", "law", "war"], "multi_label_classification")
SCORE = Labels(["score"])


def test_the_most_probable_class_is_the_prediction():
    scores = np.array([[0.2, 0.5, 0.3], [0.9, 0.1, 0.0]])

    assert decide(scores, COLOURS).tolist() == [1, 0]


def test_labels_with_probability_of_at_least_half_are_predicted():
    scores = np.array([[0.5, 0.49, 0.9], [0.1, 0.2, 0.3]])

    assert decide(scores, TOPICS).tolist() == [[1, 0, 1], [0, 0, 0]]


def test_regression_scores_are_the_predictions():
    assert decide(np.array([0.2, 3.5]), SCORE).tolist() == [0.2, 3.5]


def test_single_label_metrics():
    targets = np.array([0, 0, 0, 1, 1, 2])
    predictions = np.array([0, 0, 1, 1, 1, 0])

    metrics = compute_metrics(targets, predictions, COLOURS)

    # f1: red 2*2/(3+3), green 2*2/(2+3), blue 0.
    assert metrics == {
        "accuracy": pytest.approx(4 / 6),
        "macro_f1": pytest.approx((2 / 3 + 4 / 5 + 0) / 3),
        # (c*s - sum t*p) / sqrt((s² - sum p²)(s² - sum t²)), Gorodkin 2004.
        "mcc": pytest.approx((4 * 6 - 15) / np.sqrt((36 - 18) * (36 - 14))),
    }
    assert next(iter(metrics)) == "accuracy"
    table = per_class(targets, predictions, COLOURS)
    assert table["green"] == {
        "precision": pytest.approx(2 / 3), "recall": 1.0, "f1": pytest.approx(4 / 5), "support": 2,
    }  # fmt: skip
    assert table["blue"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1}
    assert confusion(targets, predictions, COLOURS).tolist() == [[2, 1, 0], [0, 2, 0], [1, 0, 0]]


def test_macro_f1_omits_classes_that_do_not_occur():
    targets, predictions = np.array([0, 1, 1]), np.array([0, 1, 1])

    assert compute_metrics(targets, predictions, COLOURS)["macro_f1"] == 1.0
    assert per_class(targets, predictions, COLOURS)["blue"]["support"] == 0
    assert confusion(targets, predictions, COLOURS).shape == (3, 3)


def test_mcc_of_a_single_class_is_zero():
    assert compute_metrics(np.array([1, 1]), np.array([1, 1]), COLOURS) == {
        "accuracy": 1.0, "macro_f1": 1.0, "mcc": 0.0,
    }  # fmt: skip


def test_multi_label_metrics():
    targets = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0]], dtype="float32")
    predictions = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0]])

    metrics = compute_metrics(targets, predictions, TOPICS)

    # Two true positives, one false positive, one false negative; "war" does not occur.
    assert metrics == {
        "micro_f1": pytest.approx(2 * 2 / (2 * 2 + 2)),
        "macro_f1": pytest.approx((1.0 + 0.0) / 2),
        "subset_accuracy": pytest.approx(1 / 3),
    }
    assert per_class(targets, predictions, TOPICS)["art"]["support"] == 2
    assert confusion(targets, predictions, TOPICS) is None


def test_no_labels_at_all_give_zero_without_a_warning():
    nothing = np.zeros((2, 3), dtype=int)

    assert compute_metrics(nothing, nothing, TOPICS) == {
        "micro_f1": 0.0, "macro_f1": 0.0, "subset_accuracy": 1.0,
    }  # fmt: skip


def test_regression_metrics():
    targets, predictions = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 2.0, 3.0, 8.0])

    metrics = compute_metrics(targets, predictions, SCORE)

    assert metrics == {
        # Deviations -1.5 -0.5 0.5 1.5 and -2.5 -1.5 -0.5 4.5.
        "pearson": pytest.approx(11 / np.sqrt(5 * 29)),
        "spearman": pytest.approx(1.0),
        "mse": pytest.approx(4.0),
        "mae": pytest.approx(1.0),
    }
    assert per_class(targets, predictions, SCORE) == {}


@pytest.mark.parametrize("constant", [0.0, 2.5, 1e6 + 0.1])
def test_the_correlation_with_a_constant_is_zero(constant):
    metrics = compute_metrics(np.array([1.0, 2.0, 3.0]), np.full(3, constant), SCORE)

    assert metrics["pearson"] == metrics["spearman"] == 0.0


def test_metrics_of_a_single_text():
    assert compute_metrics(np.array([1.0]), np.array([3.0]), SCORE)["mse"] == 4.0
    assert compute_metrics(np.array([1]), np.array([0]), COLOURS)["accuracy"] == 0.0


def test_one_label_that_may_apply_is_no_choice_between_two():
    """scikit-learn would count rows without the label as correct predictions of a class."""
    labels = Labels(["urgent"], "multi_label_classification")
    targets, predictions = (
        np.array([[1.0], [1], [0], [0], [0]]),
        np.array([[1], [0], [0], [0], [1]]),
    )
    metrics = compute_metrics(targets, predictions, labels)
    assert metrics == pytest.approx({"micro_f1": 0.5, "macro_f1": 0.5, "subset_accuracy": 0.6})
    found = per_class(targets, predictions, labels)
    assert found == {"urgent": {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2}}
    evaluator = MultiLabel()
    means = evaluator.statistics(targets, predictions).mean(axis=0, keepdims=True)
    assert evaluator.metric(means)[0] == pytest.approx(metrics["micro_f1"])
    nothing = compute_metrics(targets, np.zeros((5, 1), int), labels)
    assert nothing["micro_f1"] == nothing["macro_f1"] == 0.0
