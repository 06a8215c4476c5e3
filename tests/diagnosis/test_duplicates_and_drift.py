"""`near_duplicates` finds what two data sets share, `drift` in what they differ."""

import json

import numpy as np
import pytest
from helpers_decisions import texts_at_random

import finetune_tf as ft
from finetune_tf.diagnosis.drift import area_under_roc
from finetune_tf.errors import DataError, DataTypeError


@pytest.mark.slow
def test_copies_with_small_changes_are_found(tiny_bert):
    texts = texts_at_random(60)
    train = ft.data.from_arrays(texts, ["yes", "no"] * 30, name="train")
    # Another case and another last word; the others are new.
    leaked = [texts[3].upper(), texts[10]]
    new = texts_at_random(90, seed=1)[60:]
    test = ft.data.from_arrays([*leaked, *new], ["yes", "yes"] + ["no"] * 30, name="test")
    found = ft.diagnosis.near_duplicates(tiny_bert, train, test)
    pairs = {(pair.row, pair.other_row) for pair in found.rows}
    assert pairs >= {(0, 3), (1, 10)}
    assert found.affected == len(found.rows) < 10
    by_row = {pair.row: pair for pair in found.rows}
    assert by_row[0].similarity == pytest.approx(1.0, abs=1e-5)
    assert by_row[0].labels_differ  # "no" in the training examples
    assert found.contradictory >= 1
    assert "of 32 rows have a near duplicate in train" in str(found)
    json.dumps(found.to_dict())


@pytest.mark.slow
def test_duplicates_within_one_data_set_are_pairs(tiny_bert):
    texts = texts_at_random(40)
    examples = ft.data.from_arrays([*texts, texts[5].title()])
    found = ft.diagnosis.near_duplicates(tiny_bert, examples, similarity=0.999)
    assert [(pair.row, pair.other_row) for pair in found.rows] == [(5, 40)]
    assert found.affected == 2
    assert found.rows[0].label == ""
    assert not found.rows[0].labels_differ
    assert "in the same data" in str(found)


@pytest.mark.slow
def test_one_distribution_is_not_told_apart(tiny_bert):
    texts = texts_at_random(240)
    train, test = ft.data.from_arrays(texts[:120]), ft.data.from_arrays(texts[120:])
    found = ft.diagnosis.drift(tiny_bert, train, test)
    assert not found.is_clear
    assert found.auc.low < 0.5 < found.auc.high
    assert "No difference is found" in str(found)


@pytest.mark.slow
def test_other_words_are_drift_and_the_most_different_rows_come_first(tiny_bert):
    texts = texts_at_random(200)
    changed = ["film film film " + text if i % 2 else text for i, text in enumerate(texts[100:])]
    train = ft.data.from_arrays(texts[:100], name="train")
    test = ft.data.from_arrays(changed, name="test")
    found = ft.diagnosis.drift(tiny_bert, train, test, n=10)
    assert found.is_clear
    assert found.auc.low > 0.5
    assert len(found.rows) == 10
    assert sum(row.text.startswith("film film film") for row in found.rows) >= 9
    assert "differ by more than chance explains" in str(found)
    json.dumps(found.to_dict())


def test_the_area_and_its_variance_are_those_of_resampling():
    from sklearn.metrics import roc_auc_score

    generator = np.random.default_rng(0)
    positives, negatives = generator.normal(1, 1, 80).round(1), generator.normal(0, 1, 60).round(1)
    area, variance = area_under_roc(positives, negatives)
    targets = np.repeat([1, 0], [80, 60])
    assert area == pytest.approx(roc_auc_score(targets, np.append(positives, negatives)))
    drawn = [
        area_under_roc(generator.choice(positives, 80), generator.choice(negatives, 60))[0]
        for _ in range(500)
    ]
    assert np.sqrt(variance) == pytest.approx(np.std(drawn), rel=0.15)


def test_too_few_rows_and_batches_are_refused(tiny_bert):
    few, many = ft.data.from_arrays(texts_at_random(10)), ft.data.from_arrays(texts_at_random(60))
    with pytest.raises(DataError, match="at least 50 rows of each data set, found 10 in arrays"):
        ft.diagnosis.drift(tiny_bert, many, few)
    with pytest.raises(DataTypeError, match="test must be Examples, found list"):
        ft.diagnosis.drift(tiny_bert, many, [])
    with pytest.raises(DataTypeError, match="train must be Examples, found list"):
        ft.diagnosis.near_duplicates(tiny_bert, [])
