"""Perplexity and the unigram baseline, on examples calculated by hand."""

import numpy as np
import pytest

from finetune_tf.data import Examples
from finetune_tf.evaluation import Report
from finetune_tf.evaluation.bootstrap import paired_bootstrap
from finetune_tf.evaluation.evaluators.registry import EVALUATORS
from finetune_tf.evaluation.report import Baseline
from finetune_tf.tasks.masking import Cloze

MEASURE = EVALUATORS["fill-mask"]


def cloze(ids, hidden):
    """A text with some tokens masked by the token 4, and a vocabulary of ten tokens."""
    ids, hidden = np.asarray(ids), np.isin(np.arange(len(ids)), hidden)
    return Cloze(np.where(hidden, 4, ids), np.where(hidden, ids, -100), ids, 10)


def texts(*clozes):
    return Examples({"text": ["words"] * len(clozes), "cloze": list(clozes)})


def test_a_cloze_stores_the_masked_tokens():
    assert cloze([5, 6, 7], [1]).ids.tolist() == [5, 6, 7]


def test_perplexity_averages_over_all_tokens():
    # Two tokens with probability 1/2 and one with 1/8: the mean of 1, 1 and 3 bits.
    predictions = np.array([[2 * np.log(2), 1, 2], [3 * np.log(2), 0, 1]])
    found = MEASURE.measure([None, None], predictions, None)
    assert found == {"perplexity": pytest.approx(2 ** (5 / 3)), "accuracy": pytest.approx(1 / 3)}


def test_unigram_baseline():
    train, test = texts(cloze([5, 5, 5, 6], [0])), texts(cloze([5, 7, 6], [0, 1]), cloze([5], []))
    fit = MEASURE.baselines["unigram"]
    found = fit(train, train.columns["cloze"], test, None, 0)
    # Four training tokens, and one added to each of ten: 5 has 4/14, 7 has 1/14.
    assert found == pytest.approx(np.array([[-np.log(4 / 14) - np.log(1 / 14), 1, 2], [0, 0, 0]]))


def test_report_and_figure_note_that_lower_is_better():
    random = np.random.default_rng(0)
    words = np.full(50, 3.0)
    ours = np.column_stack([random.uniform(3, 5, 50), words / 3, words])
    theirs = ours + [1.5, 0, 0]
    targets = [None] * 50
    difference = paired_bootstrap(MEASURE, targets, ours, theirs)
    assert difference.low < difference.value < difference.high < 0
    metrics = MEASURE.measure(targets, ours, None)
    baseline = Baseline("unigram", MEASURE.measure(targets, theirs, None))
    assert difference.value == pytest.approx(metrics["perplexity"] - baseline.metrics["perplexity"])
    report = Report(
        "words", None, metrics, {}, None, targets, ours, baseline, difference, kind="fill-mask"
    )
    assert str(report).endswith("; lower is better")
    titles = [axes.get_title(loc="left") for axes in report.plot().axes]
    assert "perplexity (lower is better)" in titles
    assert "Difference in perplexity (lower is better), 95% interval" in titles
