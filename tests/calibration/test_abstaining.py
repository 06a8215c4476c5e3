"""Coverage curves, and thresholds below which predictions are left out."""

import json

import numpy as np
import pytest
from helpers_decisions import drawn_case

import finetune_tf as ft
from finetune_tf.errors import DataError, DataTypeError, ModelError


@pytest.fixture(scope="module")
def case(tiny_bert):
    return drawn_case("one label", tiny_bert, temperature=1.0, rows=1_000)


def test_the_accuracy_rises_as_coverage_falls(case):
    model, examples = case
    curve = ft.calibration.coverage_curve(model, examples)
    accuracy = ft.evaluate(model, examples).metrics["accuracy"]
    assert curve.rows[0].accuracy.value == curve.accuracy.value == pytest.approx(accuracy)
    assert curve.rows[10].accuracy.low > curve.rows[0].accuracy.high
    assert [row.threshold for row in curve.rows] == sorted(row.threshold for row in curve.rows)
    # Guessing which ones are wrong would leave the error rate.
    assert curve.area.high < 1 - accuracy
    assert "risk-coverage" in str(curve)
    json.dumps(curve.to_dict())
    pytest.importorskip("matplotlib")
    assert curve.plot().axes


def test_the_area_is_the_mean_error_over_all_coverages(case):
    model, examples = case
    few = examples.take(40)
    predictions = ft.predict(model, few)
    wrong = np.array(
        [p.label != label for p, label in zip(predictions, few.columns["label"], strict=True)]
    )
    order = np.argsort([-p.score for p in predictions], kind="stable")
    expected = np.mean([wrong[order[:count]].mean() for count in range(1, 41)])
    assert ft.calibration.coverage_curve(model, few).area.value == pytest.approx(expected)


def test_a_threshold_keeps_its_promise_on_other_examples(case):
    model, examples = case
    first, second = examples[:500], examples[500:]
    wanted = 0.9
    point = ft.calibration.coverage_curve(model, first).threshold_for(wanted)
    assert point.accuracy.value > wanted
    kept = ft.calibration.abstain(ft.predict(model, second), point.threshold)
    hits = [
        each.label == label
        for each, label in zip(kept, second.columns["label"], strict=True)
        if each is not None
    ]
    assert 0 < len(hits) < len(second)
    assert np.mean(hits) >= wanted
    found = ft.calibration.coverage_curve(model, second).at(point.threshold)
    assert found.accuracy.value == pytest.approx(np.mean(hits))
    assert found.coverage == len(hits) / len(second)


def test_what_cannot_be_promised_is_refused(case):
    model, examples = case
    curve = ft.calibration.coverage_curve(model, examples.take(30))
    with pytest.raises(DataError, match="No confidence has an accuracy of 0.99.*299 rows would"):
        curve.threshold_for(0.99)
    with pytest.raises(DataError, match="No prediction for validation has a confidence of 1"):
        curve.at(1.0)


def test_other_models_and_predictions_are_refused(tiny_bert):
    model, examples = drawn_case("several labels", tiny_bert, temperature=1.0, rows=20)
    with pytest.raises(ModelError, match="one label; found a model for multi label classification"):
        ft.calibration.coverage_curve(model, examples)
    with pytest.raises(DataTypeError, match=r"predictions of ft\.predict with one label each"):
        ft.calibration.abstain(ft.predict(model, examples), 0.5)


def test_the_curve_is_that_of_the_predictions_of_a_threshold(tiny_bert):
    model, examples = drawn_case("two labels", tiny_bert, temperature=1.0, rows=300)
    model.config["label_thresholds"] = {"pos": 0.8}
    curve = ft.calibration.coverage_curve(model, examples)
    assert curve.accuracy.value == ft.evaluate(model, examples).metrics["accuracy"]
    predictions = ft.predict(model, examples)
    lowest = min(p.score for p in predictions)  # thresholds are rounded down to six digits
    assert lowest - 1e-6 < curve.rows[0].threshold <= lowest
    assert curve.rows[0].threshold < 0.5
    for share in (0.9, 0.6):
        kept = ft.calibration.abstain(predictions, share)
        hits = [p.label == y for p, y in zip(kept, examples.columns["label"], strict=True) if p]
        assert curve.at(share).accuracy.value == pytest.approx(np.mean(hits))
        assert curve.at(share).coverage == len(hits) / 300


def test_rows_of_equal_confidence_are_kept_together_in_any_order(tiny_bert):
    """A threshold cannot keep the first rows of a text and leave out the others."""
    model, examples = drawn_case("two labels", tiny_bert, temperature=1.0, rows=100)
    text = examples.columns["text"][0]
    label = ft.predict(model, text).label
    other = next(name for name in model.labels if name != label)
    labels = [label] * 160 + [other] * 40
    curves = []
    for order in (labels, labels[::-1]):
        equal = ft.data.Examples({"text": [text] * 200, "label": order}, examples.labels, "equal")
        curve = ft.calibration.coverage_curve(model, equal)
        with pytest.raises(DataError, match="No confidence has an accuracy of 0.9"):
            curve.threshold_for(0.9)
        assert curve.threshold_for(0.7).accuracy.value == 0.8
        assert [row.coverage for row in curve.rows] == [1.0]
        curves.append(curve)
    assert curves[0].area == curves[1].area
    assert curves[0].area.value == pytest.approx(0.2)
