"""`near_duplicates` finds what two data sets share, `drift` in what they differ."""

import json

import numpy as np
import pytest
from helpers_decisions import texts_at_random
from helpers_tasks import small_task_model

import finetune_tf as ft
from finetune_tf.diagnosis.drift import _variance_by_chance, area_under_roc
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


def test_rows_of_one_text_are_one_observation():
    generator = np.random.default_rng(0)
    positives, negatives = generator.normal(1, 1, 40), generator.normal(0, 1, 30)
    area, variance = area_under_roc(positives, negatives)
    texts = np.repeat(np.arange(40), 5), np.repeat(np.arange(30), 5)
    repeated = area_under_roc(positives.repeat(5), negatives.repeat(5), *texts)
    assert repeated == pytest.approx((area, variance))
    assert _variance_by_chance(*texts) == pytest.approx((40 + 30 + 1) / (12 * 40 * 30))
    assert _variance_by_chance(np.arange(9), np.arange(7)) == pytest.approx(17 / (12 * 9 * 7))


@pytest.mark.slow
def test_repeated_texts_are_no_evidence_of_drift(tiny_bert):
    texts = texts_at_random(40, seed=104)
    train = ft.data.from_arrays([text for text in texts[:20] for _ in range(10)])
    test = ft.data.from_arrays([text for text in texts[20:] for _ in range(10)])
    found = ft.diagnosis.drift(tiny_bert, train, test)
    assert (found.auc.low < 0.5) == (not found.is_clear) and not found.is_clear
    with pytest.raises(DataError, match="drift needs different texts in each half"):
        ft.diagnosis.drift(tiny_bert, train, ft.data.from_arrays(["a film"] * 60))


def test_data_of_one_text_are_duplicates(tiny_bert):
    equal = ft.data.from_arrays(["a good film"] * 3)
    model = small_task_model("two labels", tiny_bert)
    assert ft.diagnosis.near_duplicates(model, equal[:2]).affected == 2
    assert ft.diagnosis.near_duplicates(model, equal[:1], equal).affected == 3


def test_rows_without_any_of_several_labels_contradict_those_with_one(tiny_bert):
    model = small_task_model("several labels", tiny_bert)
    labels = ft.Labels("abc", "multi_label_classification")
    train = ft.data.Examples({"text": ["a good film"] * 2, "label": [["a"], []]}, labels, "train")
    found = ft.diagnosis.near_duplicates(model, train)
    assert found.contradictory == 1
    assert {found.rows[0].label, found.rows[0].other_label} == {"a", "(none)"}


def test_pairs_that_a_model_reads_one_by_one_are_one_row_each(tiny_bert):
    model = small_task_model("vectors", tiny_bert)
    first, second = texts_at_random(60)[:30], texts_at_random(60)[30:]
    labels = ft.Labels(["score"], "regression")
    columns = {"text": first, "text_pair": second, "label": [0.5] * 30}
    train = ft.data.Examples(columns, labels, "train")
    # The first pair again; the second one with another partner.
    columns = {"text": first[:2], "text_pair": [second[0], second[9]], "label": [0.5] * 2}
    test = ft.data.Examples(columns, labels, "test")
    found = ft.diagnosis.near_duplicates(model, train, test, similarity=0.999)
    assert [(pair.row, pair.other_row) for pair in found.rows] == [(0, 0)]
    assert found.rows[0].other_text == f"{first[0]} | {second[0]}"


def test_contexts_of_several_windows_are_one_row_each(tiny_bert):
    model = small_task_model("answers", tiny_bert)
    texts = texts_at_random(80)
    contexts = [" ".join(texts[8 * i : 8 * i + 8]) for i in range(10)]
    examples = ft.data.Examples({"question": ["was it"] * 10, "context": contexts}, None, "qa")
    assert len(examples.encoded(model, targets=False)) > 20
    found = ft.diagnosis.near_duplicates(model, examples, examples[7:], similarity=0.999)
    assert {(pair.row, pair.other_row) for pair in found.rows} == {(0, 7), (1, 8), (2, 9)}


def test_too_few_rows_and_batches_are_refused(tiny_bert):
    few, many = ft.data.from_arrays(texts_at_random(10)), ft.data.from_arrays(texts_at_random(60))
    with pytest.raises(DataError, match="at least 50 rows of each data set, found 10 in arrays"):
        ft.diagnosis.drift(tiny_bert, many, few)
    with pytest.raises(DataTypeError, match="test must be Examples, found list"):
        ft.diagnosis.drift(tiny_bert, many, [])
    with pytest.raises(DataTypeError, match="train must be Examples, found list"):
        ft.diagnosis.near_duplicates(tiny_bert, [])
