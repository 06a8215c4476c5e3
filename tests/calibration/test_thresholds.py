"""`choose_thresholds` finds thresholds that predictions, evaluations and saved models follow."""

import json

import numpy as np
import pytest
from helpers_decisions import drawn_bert, drawn_case, texts_at_random
from helpers_tasks import small_task_model

import finetune_tf as ft
from finetune_tf.calibration.thresholds import best_threshold
from finetune_tf.errors import ArgumentError, DataError, ModelError


def rare_case(case, checkpoint, shift, rows=600):
    """A model that was right before its biases were lowered, so that it finds too little."""
    model, examples = drawn_case(case, checkpoint, temperature=1.0, rows=rows)
    dense = model.get_layer("classifier").dense
    dense.bias.assign(dense.bias + np.asarray(shift, "float32"))
    return model, examples


@pytest.mark.parametrize(
    ("metric", "at_least"), [("f1", None), ("precision", 0.6), ("recall", 0.7)]
)
def test_the_best_threshold_is_that_of_a_search_through_all(metric, at_least):
    generator = np.random.default_rng(3)
    scores = generator.random(60).round(1)  # many equal ones
    targets = generator.random(60) < scores
    results = {}
    for threshold in np.append(np.unique(scores), 1.1):
        predicted = scores >= threshold
        found = (predicted & targets).sum()
        precision = found / max(predicted.sum(), 1)
        recall = found / targets.sum()
        if metric == "f1":
            results[threshold] = 2 * found / (predicted.sum() + targets.sum())
        elif metric == "precision" and recall >= at_least:
            results[threshold] = precision
        elif metric == "recall" and precision >= at_least:
            results[threshold] = recall
    chosen = best_threshold(scores, targets, metric, at_least)
    # The chosen one is between two scores; the next score above it decides the same.
    equal = min(score for score in [*np.unique(scores), 1.1] if score >= chosen)
    assert results[equal] == max(results.values())


@pytest.mark.slow
def test_thresholds_of_several_labels_find_more(tiny_bert, capsys):
    model, validation = rare_case("several labels", tiny_bert, [-3, -3, -3])
    before = ft.evaluate(model, validation).metrics["macro_f1"]
    result = ft.calibration.choose_thresholds(model, validation)
    assert result.is_applied
    assert result.difference.low > 0
    assert max(result.thresholds.values()) < 0.5
    assert model.config["label_thresholds"] == result.thresholds
    assert "PyTorch does not" in capsys.readouterr().out
    after = ft.evaluate(model, validation).metrics["macro_f1"]
    # Held-out rows promise a little less than the rows that chose.
    assert before == pytest.approx(result.before.value)
    assert before < result.after.value <= after
    assert "macro-averaged f1" in str(result)
    json.dumps(result.to_dict())


def test_predictions_follow_the_thresholds(tiny_bert):
    model, validation = rare_case("several labels", tiny_bert, [-3, -3, -3])
    model.info.record["result"] = {"metrics": {"accuracy": 0.5}}
    chosen = ft.calibration.choose_thresholds(model, validation).thresholds
    assert "result" not in model.info.record  # it was measured with other thresholds
    for each in ft.predict(model, validation.take(50)):
        expected = [name for name, p in each.probabilities.items() if p >= chosen[name]]
        assert each.label == expected


@pytest.mark.slow
def test_one_of_two_labels_gets_a_threshold(tiny_bert):
    model, validation = rare_case("two labels", tiny_bert, [0, -4])
    result = ft.calibration.choose_thresholds(model, validation, label="pos")
    assert list(result.thresholds) == ["pos"]
    assert result.thresholds["pos"] < 0.5
    for each in ft.predict(model, validation.take(50)):
        is_chosen = each.probabilities["pos"] >= result.thresholds["pos"]
        assert each.label == ("pos" if is_chosen else "neg")
        assert each.score == each.probabilities[each.label]
    # Choosing for the other label replaces it.
    again = ft.calibration.choose_thresholds(model, validation, "recall", at_least=0.5, label="neg")
    assert list(model.config["label_thresholds"]) == ["neg"]
    assert again.before.value > 0


@pytest.mark.slow
def test_recall_and_precision_can_be_bounded(tiny_bert):
    model, validation = rare_case("several labels", tiny_bert, [-3, -3, -3])
    result = ft.calibration.choose_thresholds(model, validation, "precision", at_least=0.8)
    report = ft.evaluate(model, validation)
    assert min(values["recall"] for values in report.per_class.values()) >= 0.8
    assert result.other_after.value == pytest.approx(0.8, abs=0.05)
    assert "asked for: 0.8" in str(result)


@pytest.mark.slow
def test_decisions_survive_saving_calibrating_and_not_training(tiny_bert, tmp_path, capsys):
    model, validation = drawn_bert(tiny_bert, ["a", "b", "c"], "multi_label_classification")
    found = ft.calibration.choose_thresholds(model, validation, "recall", at_least=0.3)
    before = [each.label for each in ft.predict(model, validation)]
    assert ft.calibrate(model, validation).is_applied
    # Other probabilities, other thresholds, the same decisions.
    assert model.config["label_thresholds"] != found.thresholds
    assert [each.label for each in ft.predict(model, validation)] == before
    folder = model.save_pretrained(tmp_path / "saved")
    assert [each.label for each in ft.predict(ft.load(folder), validation)] == before
    assert "PyTorch does not know them" in (folder / "README.md").read_text()
    model.fit(validation.take(8).batches(model, 4), verbose=0)
    assert "label_thresholds" not in model.config
    assert "after its calibration and thresholds, which" in capsys.readouterr().out


@pytest.mark.slow
def test_thresholds_without_a_gain_are_not_kept(tiny_bert):
    model, validation = drawn_case("two labels", tiny_bert, temperature=1.0, rows=110)
    labels = np.random.default_rng(0).permutation(validation.columns["label"]).tolist()
    columns = {**validation.columns, "label": labels}
    first = ft.data.Examples(columns, validation.labels, "first")
    ft.calibration.choose_thresholds(model, first)  # the best for what is not predictable
    config = dict(model.config)
    result = ft.calibration.choose_thresholds(model, first)
    assert not result.is_applied
    assert "on held-out rows f1 is" in result.reason
    assert model.config == config


def test_rare_labels_keep_their_threshold(tiny_bert):
    model, validation = rare_case("several labels", tiny_bert, [-3, -3, -3])
    rare = [[name for name in row if name != "c"] for row in validation.columns["label"]]
    rare[0] = ["c"]
    columns = {**validation.columns, "label": rare}
    result = ft.calibration.choose_thresholds(
        model, ft.data.Examples(columns, validation.labels, "rare")
    )
    assert [row.is_kept for row in result.rows] == [False, False, True]
    assert result.thresholds["c"] == 0.5
    assert "fewer than 10 examples" in str(result)


def test_what_has_no_threshold_is_refused(tiny_bert):
    model, validation = drawn_case("one label", tiny_bert, temperature=1.0, rows=100)
    with pytest.raises(ModelError, match=r"chooses among 3 labels.*class_weight="):
        ft.calibration.choose_thresholds(model, validation)
    model, words = drawn_case("tokens", tiny_bert, temperature=1.0, rows=100)
    with pytest.raises(ModelError, match="token-classification"):
        ft.calibration.choose_thresholds(model, words)


def test_wrong_arguments_are_explained(tiny_bert):
    model, validation = drawn_case("two labels", tiny_bert, temperature=1.0, rows=100)
    choose = ft.calibration.choose_thresholds
    with pytest.raises(ArgumentError, match=r"metric must be one of \('f1', 'precision', 'recall'"):
        choose(model, validation, "accuracy")
    with pytest.raises(ArgumentError, match="at_least must be a number > 0 and < 1, found None"):
        choose(model, validation, "precision")
    with pytest.raises(ArgumentError, match="f1 has no such bound"):
        choose(model, validation, at_least=0.5)
    with pytest.raises(ModelError, match=r"one of the two labels \('neg', 'pos'\), found 'mid'"):
        choose(model, validation, label="mid")
    with pytest.raises(DataError, match="A threshold needs at least 100 validation examples"):
        choose(model, validation.take(99))
    with pytest.raises(DataError, match="has no labels"):
        choose(model, ft.data.from_arrays(texts_at_random(100)))


def test_a_config_with_other_thresholds_is_refused(tiny_bert):
    model, validation = drawn_case("two labels", tiny_bert, temperature=1.0, rows=100)
    for wrong in ({"other": 0.3}, {"pos": 1.5}, [0.5], {"pos": "high"}):
        model.config["label_thresholds"] = wrong
        with pytest.raises(ModelError, match="'label_thresholds' must name labels of the model"):
            ft.predict(model, validation)


def test_thresholds_that_nothing_would_follow_are_refused(tiny_bert):
    for case, unused in (
        ("one label", {"pos": 0.3}),
        ("two labels", {"pos": 0.3, "neg": 0.4}),
        ("number", {"stars": 0.3}),
    ):
        model = small_task_model(case, tiny_bert)
        model.config["label_thresholds"] = unused
        with pytest.raises(ModelError, match="is for models of several labels, and for one of the"):
            ft.predict(model, "a good film")


def test_thresholds_stay_probabilities_when_a_temperature_converts_them(tiny_bert):
    model, validation = drawn_case("two labels", tiny_bert, temperature=0.1, rows=200, scale=0.5)
    model.config["label_thresholds"] = {"pos": 1 - 1e-9}
    assert ft.calibrate(model, validation).is_applied
    assert 0.999 < model.config["label_thresholds"]["pos"] < 1
    assert {each.label for each in ft.predict(model, validation)} == {"neg"}
