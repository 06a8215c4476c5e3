"""`label_errors` ranks wrong labels first and estimates how many there are."""

import json

import numpy as np
import pytest

import finetune_tf as ft
from finetune_tf.diagnosis.features import folds_by_text
from finetune_tf.diagnosis.label_errors import _confident_classes, _estimated
from finetune_tf.errors import DataError, DataTypeError, ModelError

GOOD, BAD = ["good", "fine", "great"], ["bad", "dull", "poor"]
NOUNS = ["film", "story", "actor"]


def reviews(flipped=()):
    """162 reviews whose label follows from their words, but for those that are flipped."""
    texts, labels = [], []
    for noun in NOUNS:
        for words, label in ((GOOD, "yes"), (BAD, "no")):
            for first in words:
                for second in words:
                    for rest in ("", "very", "not"):
                        texts.append(f"the {noun} was {first} and {rest} {second}")
                        labels.append(label)
    for row in flipped:
        labels[row] = "no" if labels[row] == "yes" else "yes"
    return ft.data.from_arrays(texts, labels, name="reviews")


def test_flipped_labels_stand_first(tiny_bert):
    flipped = {3, 40, 77, 100, 150}
    examples = reviews(flipped)
    found = ft.diagnosis.label_errors(tiny_bert, examples)
    assert {row.row for row in found.rows[:8]} >= flipped
    assert len(found.rows) == len(examples)
    first = found.rows[0]
    assert first.text == examples.columns["text"][first.row]
    assert first.label == examples.columns["label"][first.row] != first.suggested
    assert first.place == f"row {first.row}"
    assert first.is_likely_error
    assert found.estimated.low <= len(flipped) <= found.estimated.high
    assert found.probe_accuracy.value > 0.9
    assert "about" in str(found)
    assert "labels are estimated to be wrong" in str(found)
    json.dumps(found.to_dict())


@pytest.mark.slow
def test_a_trained_model_is_told_from_a_checkpoint(tiny_bert, capsys):
    examples = reviews()
    model = ft.load(tiny_bert, labels=examples.labels)
    ft.diagnosis.label_errors(model, examples)
    assert "it has learned their wrong labels" not in capsys.readouterr().out
    model.info.record["fits"] = [{"epochs": 1}]
    ft.diagnosis.label_errors(model, examples)
    assert "it has learned their wrong labels" in capsys.readouterr().out


def test_confident_learning_counts_what_is_as_probable_as_usual():
    # Northcutt et al.: the threshold of a class is its mean probability in rows with this label.
    probabilities = np.array([[0.9, 0.1], [0.7, 0.3], [0.1, 0.9], [0.45, 0.55], [0.2, 0.8]])
    labels = np.array([0, 0, 0, 1, 1])
    # Thresholds: (0.9 + 0.7 + 0.1) / 3 = 0.567 and (0.55 + 0.8) / 2 = 0.675.
    assert _confident_classes(probabilities, labels).tolist() == [0, 0, 1, -1, 1]
    # One of the three rows of class 0 counts as class 1; of class 1 none does.
    assert _estimated(labels, np.array([0, 0, 1, -1, 1]), seed=0).value == pytest.approx(1.0)


def test_equal_texts_are_in_one_fold_and_classes_in_all():
    classes = np.repeat([0, 1], [40, 10])
    keys = [f"text {i // 2}" for i in range(50)]
    folds = folds_by_text(keys, classes, 5, seed=0)
    assert all(folds[i] == folds[i + 1] for i in range(0, 50, 2))
    for number in (0, 1):
        counts = np.bincount(folds[classes == number], minlength=5)
        assert counts.min() > 0
        assert np.ptp(counts) <= 2


@pytest.mark.slow
def test_rows_of_rare_classes_are_not_ranked(tiny_bert):
    examples = reviews()
    texts = [*examples.columns["text"], "the long story", "the short story"]
    labels = [*examples.columns["label"], "none", "none"]
    found = ft.diagnosis.label_errors(tiny_bert, ft.data.from_arrays(texts, labels))
    assert found.left_out == 2
    assert len(found.rows) == len(examples)
    assert "2 rows of rare classes are not ranked" in str(found)


def test_what_cannot_be_ranked_is_refused(tiny_bert):
    examples = reviews()
    with pytest.raises(
        DataError, match="at least 100 rows, of at least two classes with at least 5"
    ):
        ft.diagnosis.label_errors(tiny_bert, examples.take(50))
    texts = examples.columns["text"]
    with pytest.raises(DataError, match="has no labels, so no label can be wrong"):
        ft.diagnosis.label_errors(tiny_bert, ft.data.from_arrays(texts))
    with pytest.raises(ModelError, match="one label each; those of arrays are for regression"):
        ft.diagnosis.label_errors(tiny_bert, ft.data.from_arrays(texts, [0.5] * len(texts)))
    with pytest.raises(DataTypeError, match="examples must be Examples, found list"):
        ft.diagnosis.label_errors(tiny_bert, texts)
    with pytest.raises(ModelError, match=r"a model from ft\.load, or by a checkpoint"):
        ft.diagnosis.label_errors(3, examples)


@pytest.mark.slow
def test_a_class_whose_texts_are_all_the_same_is_left_out(tiny_bert):
    """Its probes would not know it, and call all of its rows and many others wrong."""
    plain = reviews()
    columns = {
        "text": [*plain.columns["text"], *["not a review"] * 30],
        "label": [*plain.columns["label"], *["none"] * 30],
    }
    examples = ft.data.Examples(columns, ft.Labels(["no", "yes", "none"]), "reviews")
    found = ft.diagnosis.label_errors(tiny_bert, examples)
    assert found.left_out == 30
    assert {row.label for row in found.rows} == {"no", "yes"}
    assert found.estimated.value < 10
    only = ft.data.Examples(columns, examples.labels, "x")[100:]  # no class but "no" and it
    rows = [i for i, label in enumerate(only.columns["label"]) if label != "yes"]
    with pytest.raises(DataError, match="different texts"):
        ft.diagnosis.label_errors(tiny_bert, only[rows * 3])
