"""The confidence interval of a difference, by the paired bootstrap."""

import numpy as np
import pytest

from finetune_tf.base.labels import Labels
from finetune_tf.evaluation.bootstrap import Difference, paired_bootstrap
from finetune_tf.evaluation.evaluators.registry import EVALUATORS
from finetune_tf.evaluation.metrics import compute_metrics

YES_NO = Labels(["no", "yes"])
TOPICS = Labels(["art", "law"], "multi_label_classification")
SCORE = Labels(["score"])


def noisy(targets, share, seed):
    """Class indices, a share of which are wrong."""
    wrong = np.random.default_rng(seed).random(len(targets)) < share
    return np.where(wrong, 1 - targets, targets)


@pytest.mark.parametrize(
    ("labels", "targets", "predictions"),
    [
        (YES_NO, np.array([0, 1, 1, 0]), np.array([0, 1, 0, 0])),
        (TOPICS, np.array([[1, 0], [1, 1], [0, 0]]), np.array([[1, 0], [0, 1], [0, 1]])),
        (SCORE, np.array([1.0, 2.0, 4.0]), np.array([1.5, 1.0, 3.0])),
    ],
)
def test_equal_predictions_have_no_difference(labels, targets, predictions):
    difference = paired_bootstrap(
        EVALUATORS[labels.problem_type], targets, predictions, predictions.copy()
    )

    assert (difference.value, difference.low, difference.high) == (0.0, 0.0, 0.0)
    assert not difference.is_clear
    assert difference.n == 2000


def test_the_interval_of_a_clear_difference_excludes_zero():
    targets = np.tile([0, 1], 200)
    better, worse = noisy(targets, 0.1, seed=1), noisy(targets, 0.4, seed=2)

    difference = paired_bootstrap(EVALUATORS[YES_NO.problem_type], targets, better, worse)

    gain = np.mean(better == targets) - np.mean(worse == targets)
    assert difference.metric == "accuracy"
    assert difference.value == pytest.approx(gain)
    assert 0 < difference.low < gain < difference.high
    assert difference.is_clear
    turned = paired_bootstrap(EVALUATORS[YES_NO.problem_type], targets, worse, better)
    assert turned.value == pytest.approx(-gain)
    assert turned.is_clear


def test_the_interval_of_accuracies_matches_the_normal_approximation():
    targets = np.tile([0, 1], 500)
    ours, theirs = noisy(targets, 0.2, seed=1), noisy(targets, 0.3, seed=2)

    difference = paired_bootstrap(EVALUATORS[YES_NO.problem_type], targets, ours, theirs, n=20_000)

    gains = (ours == targets).astype(int) - (theirs == targets)
    half = 1.96 * gains.std() / np.sqrt(len(gains))
    assert difference.low == pytest.approx(gains.mean() - half, abs=0.003)
    assert difference.high == pytest.approx(gains.mean() + half, abs=0.003)


@pytest.mark.parametrize("labels", [TOPICS, SCORE])
def test_the_difference_equals_the_difference_of_the_metrics(labels):
    generator = np.random.default_rng(0)
    if labels is SCORE:
        targets = generator.normal(1000, 1, size=80)
        ours, theirs = (targets + generator.normal(0, noise, 80) for noise in (0.3, 1.0))
    else:
        targets, ours, theirs = generator.integers(2, size=(3, 80, 2))

    difference = paired_bootstrap(EVALUATORS[labels.problem_type], targets, ours, theirs, n=500)

    values = [compute_metrics(targets, each, labels)[difference.metric] for each in (ours, theirs)]
    assert difference.value == pytest.approx(values[0] - values[1])
    assert difference.low < difference.value < difference.high


def test_a_constant_has_correlation_zero_in_every_resample():
    targets = np.arange(30.0)

    difference = paired_bootstrap(
        EVALUATORS[SCORE.problem_type], targets, targets, np.full(30, 0.1), n=200
    )

    assert (difference.low, difference.high) == pytest.approx((1.0, 1.0))


def test_the_seed_determines_the_interval():
    targets = np.tile([0, 1], 30)
    ours, theirs = noisy(targets, 0.2, seed=1), noisy(targets, 0.3, seed=2)

    first, again, other = (
        paired_bootstrap(EVALUATORS[YES_NO.problem_type], targets, ours, theirs, seed=seed, n=77)
        for seed in (0, 0, 1)
    )

    assert first == again
    assert first != other


def test_large_test_sets_are_resampled_in_chunks(monkeypatch):
    targets = np.random.default_rng(0).normal(size=50)
    ours, theirs = targets + 0.1, targets**3
    whole = paired_bootstrap(EVALUATORS[SCORE.problem_type], targets, ours, theirs, n=20)

    monkeypatch.setattr("finetune_tf.evaluation.bootstrap._MAX_COUNTS_PER_CHUNK", 350)

    assert paired_bootstrap(EVALUATORS[SCORE.problem_type], targets, ours, theirs, n=20) == whole


def test_string_of_a_difference():
    difference = Difference("accuracy", value=0.213, low=0.152, high=0.274, n=2000)

    assert str(difference) == "+0.213 (95% interval +0.15 to +0.27)"
