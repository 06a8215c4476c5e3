"""Correlations of cosines with scores, and the TF-IDF baseline."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from finetune_tf.data import from_arrays
from finetune_tf.evaluation.bootstrap import paired_bootstrap
from finetune_tf.evaluation.evaluators.registry import EVALUATORS

MEASURE = EVALUATORS["similarity"]


def test_the_main_metric_depends_on_ranks_only():
    scores = np.array([0.0, 1.0, 2.0, 5.0])
    found = MEASURE.measure(scores, np.array([0.1, 0.2, 0.8, 0.9]), None)
    assert list(found) == ["spearman", "pearson"]
    assert found["spearman"] == pytest.approx(1.0) and found["pearson"] < 1
    assert MEASURE.measure(scores, np.ones(4), None) == {"spearman": 0.0, "pearson": 0.0}


def test_the_statistics_yield_spearman_with_ties():
    random = np.random.default_rng(0)
    scores, cosines = random.integers(0, 6, 80), random.normal(size=80)
    means = MEASURE.statistics(scores, cosines).mean(axis=0, keepdims=True)
    assert MEASURE.metric(means)[0] == pytest.approx(spearmanr(scores, cosines).statistic)


def test_the_interval_identifies_the_better_model():
    random = np.random.default_rng(1)
    scores = random.uniform(0, 5, 300)
    close, far = scores + random.normal(size=300), scores + 4 * random.normal(size=300)
    difference = paired_bootstrap(MEASURE, scores, close, far)
    assert difference.metric == "spearman"
    assert 0 < difference.low < difference.value < difference.high


def test_the_tfidf_baseline_scores_shared_words():
    train = from_arrays(["a good film", "a train"], [5.0, 0.5], ["a good story", "a dull actor"])
    test = from_arrays(["a good film"] * 3, [5.0, 2.0, 0.5], ["a good film", "a film", "trains"])
    cosines = MEASURE.baselines["tfidf"](train, None, test, None, 0)
    assert cosines[0] == pytest.approx(1.0)
    assert cosines[0] > cosines[1] > cosines[2] >= 0
