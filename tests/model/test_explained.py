"""`evaluate`, `predict` and the methods on one batch raise the same clear errors as `fit`."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers_models import small_model, token_batch

import finetune_tf as ft
from finetune_tf.errors import DataError, DataTypeError, ModelError

TOKENS, ANSWERS = token_batch(8)
WITH_LABELS = ("fit", "evaluate", "train_on_batch", "test_on_batch")
METHODS = (*WITH_LABELS, "predict", "predict_on_batch")
QUIET = {"fit": {"verbose": 0}, "evaluate": {"verbose": 0}}
pytestmark = pytest.mark.filterwarnings("ignore:The schedule does not know")


@pytest.fixture(scope="module")
def model():
    model = small_model()
    model.compile()
    return model


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "texts", [["good film"], "good film", ("good", "bad"), np.array(["good film"])]
)
def test_texts_where_ids_are_meant(model, method, texts):
    start = f"{method} expects batches of token ids, found texts. Encode them: "
    with pytest.raises(DataTypeError, match=re.escape(start)) as caught:
        getattr(model, method)(texts)
    advice = {
        "predict": ", or call ft.predict(model, texts).",
        "predict_on_batch": ", or call ft.predict(model, texts).",
        "evaluate": ", or call ft.evaluate(model, examples).",
        "train_on_batch": "train_on_batch(*next(iter(data.batches(model, batch_size=32)))).",
        "test_on_batch": "test_on_batch(*next(iter(data.batches(model, batch_size=32)))).",
        "fit": "fit(train.batches(model, batch_size=32, shuffle=True)).",
    }
    assert str(caught.value).endswith(advice[method])


@pytest.mark.parametrize("method", METHODS)
def test_texts_by_name_and_nothing_at_all(model, method):
    with pytest.raises(DataTypeError, match=f"{method} expects batches of token ids, found texts"):
        getattr(model, method)({"text": ["good film"]})
    with pytest.raises(DataTypeError, match=f"{method} expects batches of token ids, found None"):
        getattr(model, method)(None)


@pytest.mark.parametrize("method", METHODS)
def test_no_rows(model, method):
    targets = () if method.startswith("predict") else (ANSWERS[:0],)
    for nothing in ([], {}, TOKENS[:0], {"input_ids": TOKENS[:0]}):
        with pytest.raises(
            (DataError, DataTypeError), match=f"{method} expects batches of token id"
        ):
            getattr(model, method)(nothing, *targets)


def test_no_rows_to_validate(model):
    with pytest.raises(DataError, match="token ids, found an empty array"):
        model.fit(TOKENS, ANSWERS, validation_data=(TOKENS[:0], ANSWERS[:0]), verbose=0)


@pytest.mark.parametrize("method", ["fit", "evaluate"])
def test_rows_that_do_not_fit_together(model, method):
    run = getattr(model, method)
    with pytest.raises(DataError, match="different numbers of rows: x 8; y 3. Give one target"):
        run(TOKENS, ANSWERS[:3], verbose=0)
    with pytest.raises(DataError, match="rows of a batch have one length, found lists of several"):
        run([[5, 6], [7]], [0, 1], verbose=0)
    names = np.array(["no", "yes"] * 4)
    with pytest.raises(DataError, match="Targets must be numbers, found texts in the batches"):
        run(tf.data.Dataset.from_tensors((TOKENS, names)), verbose=0)


@pytest.mark.parametrize("method", METHODS)
def test_examples_where_batches_are_meant(model, method):
    examples = ft.data.from_arrays(["good", "bad"], ["yes", "no"])
    with pytest.raises(
        DataTypeError, match=f"^{method} expects batches, found <Examples arrays: 2"
    ):
        getattr(model, method)(examples)


@pytest.mark.parametrize("method", WITH_LABELS)
def test_a_label_outside_of_the_outputs(model, method):
    labels = ANSWERS.copy()
    labels[2] = 7
    message = "A label is 7, but the model has 2 outputs, for the class numbers 0 to 1."
    with pytest.raises(DataError, match=re.escape(message)):
        getattr(model, method)(TOKENS, labels, **QUIET.get(method, {}))


@pytest.mark.parametrize("method", WITH_LABELS)
def test_no_labels(model, method):
    with pytest.raises(DataError, match="There are no labels to train on"):
        getattr(model, method)(TOKENS, **QUIET.get(method, {}))


@pytest.mark.parametrize("method", METHODS)
def test_memory_that_runs_out(model, method, monkeypatch):
    def exhausted(self, *args, **kwargs):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor\nmore")

    monkeypatch.setattr(keras.Model, method, exhausted)
    with pytest.raises(ModelError, match=r"Memory ran out\. .* \(OOM when allocating tensor\)"):
        getattr(model, method)(TOKENS)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["evaluate", "train_on_batch", "test_on_batch"])
def test_a_model_that_nobody_compiled_is_compiled_with_its_preset(method, capsys):
    loss, accuracy = getattr(small_model(), method)(TOKENS, ANSWERS, **QUIET.get(method, {}))
    assert loss == pytest.approx(0.69, abs=0.05)
    assert 0 <= accuracy <= 1
    said = "compile: loss and metrics of the preset cross_entropy."
    assert said in capsys.readouterr().out.splitlines()


def test_encodings_and_lists_on_one_batch(model):
    expected = model.test_on_batch(TOKENS, ANSWERS)
    assert model.test_on_batch(TOKENS.tolist(), ANSWERS.tolist()) == pytest.approx(expected)
    inside = {"input_ids": TOKENS, "labels": ANSWERS}
    assert model.test_on_batch(inside) == pytest.approx(expected)
    np.testing.assert_allclose(model.predict_on_batch(TOKENS.tolist()), model(TOKENS), atol=1e-6)


def test_batches_of_a_model_with_the_labels_in_another_order(tiny_bert):
    examples = ft.data.from_arrays(["a good film", "a dull film"] * 2, ["yes", "no"] * 2)
    first, second = (small_model(names, tiny_bert) for names in (["no", "yes"], ["yes", "no"]))
    batches = examples.batches(first, 2)
    message = "made for a model with the labels no, yes, but this one has yes, no, so class numbers"
    with pytest.raises(DataError, match=message):
        second.fit(batches, verbose=0)
    with pytest.raises(DataError, match=message):
        second.evaluate(batches, verbose=0)
    with pytest.raises(DataError, match=message):
        second.fit(examples.batches(second, 2), validation_data=batches, verbose=0)
    first.evaluate(batches, verbose=0)
    small_model(2, tiny_bert).evaluate(batches, verbose=0)  # LABEL_0 and LABEL_1 are no names
