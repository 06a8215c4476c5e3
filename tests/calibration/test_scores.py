"""Losses, calibration errors and their intervals, compared with their definitions."""

import numpy as np
import pytest
from helpers_decisions import drawn_case

import finetune_tf as ft
from finetune_tf.calibration import scores
from finetune_tf.evaluation.intervals import bootstrap, share
from finetune_tf.tasks.decisions import Decisions


def decisions(rows=2_000, factor=1.0, seed=0):
    """Decisions among three classes, calibrated if the factor is 1."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, (rows, 3))
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    targets = (chances.cumsum(axis=1) < generator.random((rows, 1))).sum(axis=1)
    return Decisions(logits * factor, targets, np.arange(rows), is_several=False)


def test_the_loss_is_that_of_scikit_learn():
    from sklearn.metrics import log_loss

    found = decisions()
    assert scores.losses(found).mean() == pytest.approx(
        log_loss(found.targets, scores.probabilities(found))
    )


def test_the_loss_of_several_labels_is_the_mean_of_binary_ones():
    from sklearn.metrics import log_loss

    generator = np.random.default_rng(0)
    several = Decisions(
        generator.normal(size=(50, 4)), generator.integers(0, 2, (50, 4)), np.arange(50), True
    )
    chances = scores.probabilities(several)
    expected = np.mean([log_loss(several.targets[:, i], chances[:, i]) for i in range(4)])
    assert scores.losses(several).mean() == pytest.approx(expected)


def test_the_calibration_error_is_that_of_its_definition():
    found = decisions(factor=2.0)
    values, hits, _ = scores.confidences(found)
    expected = 0.0
    for i in range(15):
        inside = (values >= i / 15) & ((values < (i + 1) / 15) | (i == 14))
        if inside.any():
            expected += inside.mean() * abs(values[inside].mean() - hits[inside].mean())
    error = scores.calibration_error(found, seed=0)
    assert error.value == pytest.approx(expected)
    assert 0 < error.low < error.value < error.high


def test_the_interval_of_a_calibrated_model_contains_zero():
    # The error itself is never 0, so an ordinary bootstrap interval would never contain it.
    found = [scores.calibration_error(decisions(300, seed=seed), 0) for seed in range(10)]
    assert min(each.value for each in found) > 0.01
    assert sum(each.low == 0 for each in found) >= 8


def test_words_of_a_sentence_are_resampled_together():
    found = decisions(1_000)
    by_five = found._replace(rows=np.repeat(np.arange(200), 5), targets=found.targets)
    same = found._replace(
        logits=np.repeat(found.logits[:200], 5, axis=0), targets=np.repeat(found.targets[:200], 5)
    )
    alone = scores.negative_log_likelihood(same, 0)
    together = scores.negative_log_likelihood(same._replace(rows=by_five.rows), 0)
    assert together.value == pytest.approx(alone.value)
    assert (together.high - together.low) / (alone.high - alone.low) == pytest.approx(
        np.sqrt(5), rel=0.1
    )


def test_the_best_temperature_undoes_a_factor():
    assert scores.best_temperature(decisions(20_000, factor=3.0)) == pytest.approx(3, rel=0.03)
    assert scores.best_temperature(decisions(20_000, factor=0.4)) == pytest.approx(0.4, rel=0.03)


def test_intervals_of_shares_and_means_contain_what_they_estimate():
    generator = np.random.default_rng(0)
    shares = [share(int(generator.binomial(30, 0.9)), 30) for _ in range(400)]
    assert np.mean([each.low <= 0.9 <= each.high for each in shares]) > 0.92
    means = [
        bootstrap(generator.normal(2, 1, (60, 1)), lambda m: m[:, 0], resamples=300)
        for _ in range(200)
    ]
    assert np.mean([each.low <= 2 <= each.high for each in means]) > 0.9
    assert not share(5, 10).excludes(0.5)


@pytest.mark.slow
def test_measure_reports_and_draws(tiny_bert, tmp_path):
    pytest.importorskip("matplotlib")
    model, examples = drawn_case("two labels", tiny_bert, temperature=3.0, rows=150)
    measured = ft.calibration.measure(model, examples)
    assert measured.size == 150
    assert measured.ece.low > 0
    assert sum(each.size for each in measured.rows) == 150
    assert all(e.low <= e.confidence <= e.high for e in measured.rows)
    assert "ECE" in str(measured)
    measured.save(tmp_path)
    assert (tmp_path / "report.png").exists()
    assert ft.calibrate(model, examples).plot().axes
