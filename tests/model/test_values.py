"""Invalid values of inputs and targets are rejected by all methods; valid ones are unchanged."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers_batches import IDS, IN_A_STEP, LABELS, changed, compiled_models, dataset, with_slow
from helpers_tasks import LENGTH, ROWS, VOCABULARY, rows_for

from finetune_tf.data import tokenized_batches
from finetune_tf.errors import DataError, ModelError


@pytest.fixture(scope="module")
def models():
    return compiled_models()


@pytest.fixture(scope="module")
def model(models):
    return models["one label"]


#: Calls in which the values are known and checked.
METHODS = {
    "call": lambda model, x: model(x),
    "call with tensors": lambda model, x: model({n: tf.constant(v) for n, v in x.items()}),
    "predict": lambda model, x: model.predict(x, verbose=0),
    "predict_on_batch": lambda model, x: model.predict_on_batch(x),
    "fit": lambda model, x: model.fit(x, LABELS, verbose=0),
    "validation": lambda model, x: model.fit(IDS, LABELS, validation_data=(x, LABELS), verbose=0),
    "evaluate": lambda model, x: model.evaluate(x, LABELS, verbose=0),
    "train_on_batch": lambda model, x: model.train_on_batch(x, LABELS),
    "test_on_batch": lambda model, x: model.test_on_batch(x, LABELS),
    "with labels inside": lambda model, x: model.fit({**x, "labels": LABELS}, verbose=0),
    "tokenized": lambda model, x: tokenized_batches({n: list(v) for n, v in x.items()}, model, 2),
}


METHODS |= {
    f"{method} of a {kind}": lambda model, x, method=method, made=made: getattr(model, method)(
        made(x, LABELS), verbose=0
    )
    for method in ("fit", "evaluate", "predict")
    for kind, made in IN_A_STEP.items()
}
METHODS["validation with a dataset"] = lambda model, x: model.fit(
    IDS, LABELS, validation_data=dataset(x, LABELS), verbose=0
)


WRONG = {
    "beyond int32": ({"input_ids": changed(2**32 + 5)}, f"from 0 to {VOCABULARY - 1}, found 42949"),
    "beyond the embedding table": (
        {"input_ids": changed(VOCABULARY)},
        f"found {VOCABULARY}. Encode the",
    ),
    "below 0": ({"input_ids": changed(-1)}, "table, from 0 to 21, found -1. Encode the texts"),
    "floats": (
        {"input_ids": changed(1.5, "float32")},
        "must be integers, rows of the token embedding table",
    ),
    "whole floats": (
        {"input_ids": changed(1.0, "float64")},
        "Fractions would be truncated silently",
    ),
    "booleans": ({"input_ids": changed(1, "bool")}, "must be integers"),
    "mask of 2": (
        {"input_ids": IDS, "attention_mask": changed(2)},
        "attention_mask must be 1 for a token and 0 for padding, found 2. Write (mask != 0)",
    ),
    "mask of -1": ({"input_ids": IDS, "attention_mask": changed(-1)}, "padding, found -1."),
    "mask of shares": ({"input_ids": IDS, "attention_mask": changed(0.5, "float32")}, "float32"),
    "token types": ({"input_ids": IDS, "token_type_ids": changed(2)}, "from 0 to 1, found 2."),
    "token types below 0": ({"input_ids": IDS, "token_type_ids": changed(-1)}, "found -1."),
    "token types as floats": (
        {"input_ids": IDS, "token_type_ids": changed(0.5, "float32")},
        "token_type_ids must be integers",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("method", with_slow(METHODS))
def test_inputs(model, method, wrong):
    inputs, message = WRONG[wrong]
    with pytest.raises(ModelError, match=re.escape(message)):
        METHODS[method](model, inputs)


def test_what_stays_as_it_is(model):
    expected = np.asarray(model(IDS))
    for dtype in ("int8", "uint8", "int16", "int64", "uint32", "uint64"):
        np.testing.assert_array_equal(model(IDS.astype(dtype)), expected)
    mask = np.ones(IDS.shape, bool)
    np.testing.assert_array_equal(model({"input_ids": IDS, "attention_mask": mask}), expected)
    np.testing.assert_array_equal(model(tf.constant(IDS, tf.int64)), expected)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.ones(4, "int32"), "input_ids has the shape (4,), but inputs must be (batch, leng"),
        (
            {"input_ids": IDS, "attention_mask": np.ones((ROWS, LENGTH + 1), "int32")},
            f"attention_mask has the shape ({ROWS}, {LENGTH + 1}), but inputs must be",
        ),
        (
            {"input_ids": IDS, "attention_mask": np.ones((ROWS, LENGTH, LENGTH), "int32")},
            "but inputs must be (batch, length) with the same length",
        ),
    ],
)
def test_shapes(model, inputs, message):
    with pytest.raises(ModelError, match=re.escape(message)):
        model(inputs)


def test_an_input_of_a_model_that_is_no_integer(model):
    with pytest.raises(ModelError, match=r"found float32.*keras\.Input\(…, dtype='int32'\)"):
        model(keras.Input((None,)))


TARGET_METHODS = {
    "fit": lambda model, x, y: model.fit(x, y, verbose=0),
    "validation": lambda model, x, y: model.fit(
        x, np.zeros_like(y), validation_data=(x, y), verbose=0
    ),
    "evaluate": lambda model, x, y: model.evaluate(x, y, verbose=0),
    "train_on_batch": lambda model, x, y: model.train_on_batch(x, y),
    "test_on_batch": lambda model, x, y: model.test_on_batch(x, y),
    "among the inputs": lambda model, x, y: model.fit({"input_ids": x, "labels": y}, verbose=0),
    "tensors": lambda model, x, y: model.evaluate(x, tf.constant(y), verbose=0),
}
TARGET_METHODS |= {
    f"{method} of a {kind}": lambda model, x, y, method=method, made=made: getattr(model, method)(
        made(x, y), verbose=0
    )
    for method in ("fit", "evaluate")
    for kind, made in IN_A_STEP.items()
}
WRONG_TARGETS = {
    "fraction": ("one label", np.array([0.0, 1.5, 0.0, 1.0]), "A label is 1.5, but class numbers"),
    "nan": ("one label", np.array([0.0, np.nan, 0.0, 1.0]), "A label is nan, but class numbers"),
    "beyond int32": ("one label", np.array([0, 2**32, 1, 1]), "A label is 4294967296, but the mod"),
    "beyond": ("one label", np.array([0, 3, 1, 1]), "A label is 3, but the model has 3 outputs"),
    "below": ("one label", np.array([0, -1, 1, 1]), "A label is -1, but the model has 3 outputs"),
    "of tokens": ("tokens", np.full((ROWS, LENGTH), 3), "A label is 3, but the model has 3 outpu"),
    "tokens' fractions": ("tokens", np.full((ROWS, LENGTH), 0.5), "A label is 0.5, but class numb"),
    "words": ("words", np.full((ROWS, LENGTH), 99), "A target is 99, but the model has 22 outputs"),
    "places": (
        "answers",
        np.full((ROWS, 2), 4),
        "A start or end is 4, but the model has 4 outputs",
    ),
    "places below": ("answers", np.full((ROWS, 2), -2), "A start or end is -2, but"),
    "shares": (
        "several labels",
        np.full((ROWS, 3), 1.5),
        "Targets must be numbers between 0 and 1, one for each label",
    ),
    "ignored": ("several labels", np.full((ROWS, 3), -100.0), "found -100. This loss does not i"),
    "labels' nan": ("several labels", np.full((ROWS, 3), np.nan), "Targets must be finite numbers"),
    "numbers": (
        "number",
        np.array([1.0, np.inf, 2.0, 3.0]),
        "Targets must be finite numbers, found inf",
    ),
}


@pytest.mark.parametrize("wrong", WRONG_TARGETS)
@pytest.mark.parametrize("method", with_slow(TARGET_METHODS))
def test_targets(models, method, wrong):
    case, targets, message = WRONG_TARGETS[wrong]
    if " of a " in method and case in ("one label", "tokens") and targets.dtype.kind == "f":
        message = "Class indices must be integers, found floats in the batches."
    with pytest.raises(DataError, match=re.escape(message)):
        TARGET_METHODS[method](models[case], IDS, targets)


@pytest.mark.slow
def test_whole_floats_are_class_numbers(models):
    """A column of a table with a missing value has the dtype float."""
    for case in ("one label", "tokens", "words", "answers"):
        ids, targets = rows_for(case)
        expected = models[case].evaluate(ids, targets, verbose=0, return_dict=True)["loss"]
        for given in (targets.astype("float64"), targets.astype("float32")):
            found = models[case].evaluate(ids, given, verbose=0, return_dict=True)["loss"]
            assert found == pytest.approx(expected, rel=1e-6)


class TestTokenized:
    """Tokenized columns are checked before they are batched."""

    def test_labels(self, models):
        rows = {"input_ids": list(IDS)}
        for case, wrong, message in (
            ("one label", [0, 1.5, 2, 1], "A label is 1.5, but class numbers must be integers."),
            ("one label", [0, 3, 2, 1], "A label is 3, but the model has 3 outputs"),
            ("tokens", [[0, 1, 2, 3]] * ROWS, "A label is 3, but the model has 3 outputs"),
            (
                "tokens",
                [[0.5, 1, 2, 2]] * ROWS,
                "A label is 0.5, but class numbers must be integers.",
            ),
            ("number", [0.5, np.nan, 1.0, 2.0], "Targets must be finite numbers, found nan."),
            ("several labels", [[0, 1, 2]] * ROWS, "must be numbers between 0 and 1, one for each"),
        ):
            with pytest.raises(DataError, match=re.escape(message)):
                tokenized_batches({**rows, "labels": wrong}, models[case], 2)

    def test_places(self, models):
        rows = {"input_ids": list(IDS), "start_positions": [0] * ROWS, "end_positions": [4] * ROWS}
        with pytest.raises(DataError, match="A start or end is 4, but the model has 4 outputs"):
            tokenized_batches(rows, models["answers"], 2)


def test_the_old_classes(tiny_bert):
    from finetune_tf.compat import TFBertForSequenceClassification

    model = TFBertForSequenceClassification.from_pretrained(tiny_bert, num_labels=3)
    for inputs, message in WRONG.values():
        with pytest.raises(ModelError, match=re.escape(message)):
            model(**inputs)
    for wrong in (np.array([0, 3, 1, 1]), np.array([0.0, 1.5, 0.0, 1.0])):
        with pytest.raises(DataError, match="A label is (3|1.5), but"):
            model(input_ids=IDS, labels=wrong)
        with pytest.raises(DataError, match="A label is (3|1.5), but"):
            model.fit({"input_ids": IDS, "labels": wrong}, verbose=0)


def test_a_mask_of_other_numbers_in_a_traced_call_means_tokens(model):
    """Values are unknown in a traced step; -1 and 2 used to hide tokens or count them twice."""
    mask = np.array([[1, 1, 1, 0]] * ROWS, "int32")
    expected = model({"input_ids": IDS, "attention_mask": mask})
    call = tf.function(lambda ids, mask: model({"input_ids": ids, "attention_mask": mask}))
    for other in (2 * mask, -mask, mask.astype(bool), 255 * mask.astype("int64")):
        np.testing.assert_allclose(call(IDS, other), expected, atol=1e-5)
