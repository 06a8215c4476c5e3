"""`calibrate` finds the temperature of a model, folds it into the output layer, or refuses."""

import json

import keras
import numpy as np
import pytest
from helpers_decisions import (
    drawn_bert,
    drawn_case,
    drawn_examples,
    texts_at_random,
    train_at_random,
)
from helpers_models import small_model
from helpers_tasks import small_task_model

import finetune_tf as ft
from finetune_tf.adapters.attaching import attach
from finetune_tf.adapters.layers import Factors
from finetune_tf.errors import DataError, DataTypeError, ModelError
from finetune_tf.evaluation.predict import outputs


def logits_of(model, examples):
    rows, _ = outputs(model, examples)
    return np.concatenate([np.reshape(row, -1) for row in rows])


def rounding(model):
    """How far logits may differ if features, between -1 and 1, differ by 1e-6."""
    kernel = model.get_layer("classifier").dense.kernel.numpy()
    return float(1e-6 * np.abs(kernel).sum(axis=0).max())


@pytest.mark.slow
@pytest.mark.parametrize("case", ["one label", "two labels", "several labels", "tokens"])
def test_the_temperature_that_the_labels_were_drawn_with_is_found(case, tiny_bert, capsys):
    model, validation = drawn_case(case, tiny_bert, temperature=2.0)
    before = logits_of(model, validation)
    result = ft.calibrate(model, validation)
    assert result.is_applied
    assert result.temperature == pytest.approx(2.0, rel=0.15)
    assert result.nll_difference.high < 0
    assert result.ece_after.value < result.ece_before.value
    # The logits are divided, so that any other library that reads the weights has them as well.
    assert logits_of(model, validation) == pytest.approx(before / result.temperature, abs=2e-6)
    assert model.config["calibration"]["temperature"] == result.temperature
    assert "the output layer was divided by the temperature" in capsys.readouterr().out
    assert "NLL" in str(result)
    json.dumps(result.to_dict())


@pytest.mark.slow
def test_predicted_labels_stay_the_same_and_scores_do_not(tiny_bert):
    model, validation = drawn_case("one label", tiny_bert, temperature=3.0)
    before = ft.predict(model, validation)
    ft.calibrate(model, validation)
    after = ft.predict(model, validation)
    assert [each.label for each in after] == [each.label for each in before]
    assert np.mean([each.score for each in after]) < np.mean([each.score for each in before])


@pytest.mark.slow
def test_each_of_several_labels_can_have_its_own_temperature(tiny_bert):
    model, validation = drawn_case("several labels", tiny_bert, temperature=2.0, rows=1_000)
    dense = model.get_layer("classifier").dense
    factors = np.array([1.0, 2.0, 0.5], "float32")
    dense.kernel.assign(dense.kernel * factors)
    dense.bias.assign(dense.bias * factors)
    result = ft.calibrate(model, validation, per_label=True)
    assert list(result.temperature) == ["a", "b", "c"]
    assert list(result.temperature.values()) == pytest.approx(2 * factors, rel=0.25)
    assert model.config["calibration"]["temperature"] == result.temperature


@pytest.mark.slow
def test_temperatures_of_two_calibrations_multiply(tiny_bert):
    model, validation = drawn_case("one label", tiny_bert, temperature=2.0)
    first = ft.calibrate(model, validation)
    dense = model.get_layer("classifier").dense
    dense.kernel.assign(dense.kernel * 3)
    dense.bias.assign(dense.bias * 3)
    second = ft.calibrate(model, validation)
    assert second.temperature == pytest.approx(3, rel=1e-3)
    assert second.total == pytest.approx(first.temperature * second.temperature)
    assert model.config["calibration"]["temperature"] == second.total
    assert "was calibrated before" in str(second)


@pytest.mark.slow
def test_a_calibrated_model_is_not_changed(tiny_bert, capsys):
    model, validation = drawn_case("one label", tiny_bert, temperature=2.0)
    ft.calibrate(model, validation)
    weights, config = model.get_weights(), json.dumps(model.config)
    result = ft.calibrate(model, validation)
    assert not result.is_applied
    assert "on held-out rows the NLL is" in result.reason
    assert "The model was not changed" in str(result)
    assert "calibrate did not change the model" in capsys.readouterr().out
    assert json.dumps(model.config) == config
    for old, new in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_model_without_mistakes_has_no_temperature(tiny_bert):
    model, validation = drawn_case("one label", tiny_bert, temperature=0.001, rows=120)
    result = ft.calibrate(model, validation)
    assert not result.is_applied
    assert "the loss has no minimum between the temperatures 0.05 and 20" in result.reason


@pytest.mark.slow
def test_training_afterwards_forgets_the_record(tiny_bert, capsys):
    model, validation = drawn_case("two labels", tiny_bert, temperature=2.0, rows=200)
    model.compile(**ft.presets.cross_entropy(learning_rate=1e-4))
    ft.calibrate(model, validation)
    model.fit(validation.take(8).batches(model, 4), verbose=0)
    assert "calibration" not in model.config
    assert "trained after its calibration, which no longer apply" in capsys.readouterr().out


@pytest.mark.parametrize("source", ["load_weights", "Resume"])
def test_loading_other_weights_forgets_the_record(source, tiny_bert, tmp_path, capsys):
    model, validation = drawn_case("two labels", tiny_bert, temperature=2.0, rows=200)
    resume = ft.callbacks.Resume(tmp_path / "run")
    file = tmp_path / "my.weights.h5"
    model.fit(validation.take(4).batches(model, 4), callbacks=[resume], verbose=0)
    model.save_weights(file)

    def load():
        model.load_weights(file) if source == "load_weights" else resume.load_weights(model)

    model.config["calibration"] = {"temperature": 2.0}
    load()
    assert "calibration" in model.config  # the weights are the same
    model.set_weights([weight + 1 for weight in model.get_weights()])
    load()
    assert "calibration" not in model.config
    assert (
        "The loaded weights are not those of the model's calibration, which no longer apply"
        in capsys.readouterr().out
    )


@pytest.mark.slow
def test_the_record_is_saved_with_the_weights_and_replaced_with_the_head(tiny_bert, tmp_path):
    model, validation = drawn_bert(tiny_bert, ["neg", "pos"])
    result = ft.calibrate(model, validation)
    assert result.is_applied
    folder = model.save_pretrained(tmp_path / "saved")
    again = ft.load(folder)
    assert again.config["calibration"]["temperature"] == result.temperature
    assert logits_of(again, validation) == pytest.approx(logits_of(model, validation), abs=1e-6)
    assert "divided by the temperature" in (folder / "README.md").read_text()
    assert "calibration" not in ft.load(folder, labels=["x", "y"], new_head=True).config


@pytest.mark.slow
def test_other_precisions_have_an_output_layer_of_float32(tiny_bert):
    model = ft.load(tiny_bert, labels=["neg", "pos"], dtype="mixed_bfloat16")
    train_at_random(model)
    validation = drawn_examples(model, temperature=2.0, rows=200)
    before = logits_of(model, validation)
    result = ft.calibrate(model, validation)
    assert result.is_applied
    after = logits_of(model, validation)
    assert after == pytest.approx(before / result.temperature, abs=rounding(model))


def test_too_few_rows_are_refused(tiny_bert):
    model, validation = drawn_case("two labels", tiny_bert, temperature=2.0, rows=99)
    with pytest.raises(DataError, match="at least 100 validation examples, found 99 in validation"):
        ft.calibrate(model, validation)


def test_one_class_is_refused(tiny_bert):
    model = small_task_model("two labels", tiny_bert)
    labels = ft.Labels(["neg", "pos"])
    one = ft.data.Examples({"text": texts_at_random(100), "label": ["pos"] * 100}, labels)
    with pytest.raises(DataError, match="two classes, but all 100 rows of examples have the same"):
        ft.calibrate(model, one)


def test_missing_labels_and_batches_are_refused(tiny_bert):
    model = small_task_model("two labels", tiny_bert)
    with pytest.raises(DataError, match="has no labels, so nothing can be measured"):
        ft.calibrate(model, ft.data.from_arrays(texts_at_random(100)))
    with pytest.raises(DataTypeError, match="Expected Examples with labels, found list"):
        ft.calibration.measure(model, [])


@pytest.mark.parametrize("case", ["number", "words", "answers", "vectors"])
def test_models_that_choose_no_label_are_refused(case, tiny_bert):
    model = small_task_model(case, tiny_bert)
    examples = ft.data.from_arrays(texts_at_random(100))
    with pytest.raises(ModelError, match="Probabilities and thresholds are those of a model that"):
        ft.calibrate(model, examples)


def test_an_untrained_head_is_refused(tiny_bert):
    _, validation = drawn_case("two labels", tiny_bert, temperature=2.0, rows=100)
    model = ft.load(tiny_bert, labels=validation.labels)
    with pytest.raises(ModelError, match=r"is not trained.*Train it before calibrating it"):
        ft.calibrate(model, validation)


def test_an_adapter_of_the_output_layer_is_refused(tiny_bert):
    model, validation = drawn_case("two labels", tiny_bert, temperature=2.0, rows=100)
    # `ft.adapters.add` trains classifiers themselves; folders of PEFT may adapt them.
    attach(model.get_layer("classifier").dense, "scale", Factors.kind, {})
    with pytest.raises(ModelError, match=r"The output layer has an adapter .*adapters\.merge"):
        ft.calibrate(model, validation)


@pytest.mark.slow
def test_temperatures_of_labels_need_several_labels_with_examples(tiny_bert):
    model, validation = drawn_case("two labels", tiny_bert, temperature=2.0, rows=100)
    with pytest.raises(ModelError, match="per_label=True is for models of several labels"):
        ft.calibrate(model, validation, per_label=True)
    model, validation = drawn_case("several labels", tiny_bert, temperature=2.0, rows=100)
    columns = {**validation.columns, "label": [["a"], ["b"]] * 50}
    with pytest.raises(DataError, match="at least 10 examples with the label.*which c in rare"):
        ft.calibrate(model, ft.data.Examples(columns, validation.labels, "rare"), per_label=True)


def test_a_keras_model_of_another_origin_is_refused():
    inputs = keras.Input((2,))
    with pytest.raises(
        ModelError, match=r"calibrate needs a model from ft\.load, found Functional"
    ):
        ft.calibrate(keras.Model(inputs, inputs), ft.data.from_arrays(["a"]))


@pytest.mark.slow
def test_pytorch_has_the_same_probabilities(tiny_bert, tmp_path):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForSequenceClassification

    model, validation = drawn_bert(tiny_bert, ["neg", "mid", "pos"])
    uncalibrated = logits_of(model, validation).reshape(-1, 3)
    result = ft.calibrate(model, validation)
    theirs = AutoModelForSequenceClassification.from_pretrained(
        model.save_pretrained(tmp_path / "saved")
    ).eval()
    encoding = model.tokenizer(
        validation.columns["text"], padding=True, return_tensors="pt", return_token_type_ids=True
    )
    with torch.no_grad():
        found = theirs(**encoding).logits.numpy()
    expected = uncalibrated / result.temperature
    assert found == pytest.approx(expected, abs=rounding(model))
    assert np.ptp(expected) > 100 * rounding(model)
    assert theirs.config.calibration["temperature"] == result.temperature


@pytest.mark.slow
def test_a_step_and_a_fit_that_fails_forget_the_record_too(tiny_bert):
    class Fail(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise RuntimeError

    model = small_model(("no", "yes"), tiny_bert)
    model.compile(**ft.presets.cross_entropy(learning_rate=1e-4, schedule="constant"))
    batches = ft.data.from_arrays(["a film"] * 4, ["no", "yes"] * 2).batches(model, 2)
    record = {"temperature": 2.0}
    model.config["calibration"] = record
    with pytest.raises(DataTypeError):
        model.fit(["a text"])  # no step was taken
    model.test_on_batch(*next(iter(batches)))
    model.evaluate(batches, verbose=0)
    assert model.config["calibration"] == record
    with pytest.raises(RuntimeError):
        model.fit(batches, callbacks=[Fail()], verbose=0)
    assert "calibration" not in model.config
    model.config["calibration"] = record
    model.train_on_batch(*next(iter(batches)))
    assert "calibration" not in model.config
