"""Invalid values in batches of a dataset raise errors before they change the model."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers_batches import IDS, IN_A_STEP, LABELS, changed, compiled_models, dataset, of_any_size
from helpers_tasks import CASES, LENGTH, ROWS, rows_for, small_task_model

from finetune_tf import messages
from finetune_tf.errors import DataError, ModelError


@pytest.fixture(scope="module")
def models():
    return compiled_models()


@pytest.fixture(scope="module")
def model(models):
    return models["one label"]


@pytest.mark.parametrize("name", ["input_ids", "attention_mask", "token_type_ids"])
def test_floats_in_the_batches_of_a_dataset(model, name):
    inputs = {"input_ids": IDS, name: np.ones((ROWS, LENGTH), "float32")}
    batches = tf.data.Dataset.from_tensors((inputs, LABELS))
    for call in (model.fit, model.evaluate, model.predict):
        with pytest.raises(ModelError, match=f"{name} must be integers.* found float32"):
            call(batches, verbose=0)


def test_floats_as_class_numbers_in_a_dataset(model):
    batches = tf.data.Dataset.from_tensors((IDS, LABELS.astype("float32")))
    with pytest.raises(DataError, match="Class indices must be integers, found floats in the batc"):
        model.fit(batches, verbose=0)


@pytest.mark.parametrize("kind", IN_A_STEP)
@pytest.mark.parametrize("wrong", [-1.0, np.nan, np.inf])
def test_weights_of_batches(models, kind, wrong):
    for case in ("one label", "tokens", "number"):
        ids, targets = rows_for(case)
        weights = np.array([1.0, wrong, 0.5, 1.0], "float32")
        for method in ("fit", "evaluate"):
            with pytest.raises(DataError, match=f"finite numbers of at least 0, found {wrong:g}"):
                getattr(models[case], method)(IN_A_STEP[kind](ids, targets, weights), verbose=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")
@pytest.mark.parametrize("case", CASES)
def test_right_batches_pass(case):
    model = small_task_model(case)
    model.compile(keras.optimizers.SGD(0.0))
    ids, targets = rows_for(case)
    expected = model.test_on_batch(ids, targets, return_dict=True)["loss"]
    for made in IN_A_STEP.values():
        found = model.evaluate(made(ids, targets), verbose=0, return_dict=True)["loss"]
        assert found == pytest.approx(expected)
        assert model.fit(made(ids, targets), verbose=0).history["loss"] == [pytest.approx(expected)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")
@pytest.mark.parametrize("rows", [2, 3])
@pytest.mark.parametrize("method", ["fit", "evaluate"])
def test_sizes_after_batches_of_other_sizes(rows, method):
    """A step traced for other sizes runs on a batch whose sizes do not match."""
    model = small_task_model("one label")
    with messages.quiet():
        model.compile(keras.optimizers.SGD(0.0))
        for made in (dataset, of_any_size):
            model.fit(made(IDS, LABELS), verbose=0)
    message = f"numbers of rows: targets {rows}; input_ids 4"
    for made in (dataset, of_any_size):
        with pytest.raises(DataError, match=message):
            getattr(model, method)(made(IDS, LABELS[:rows]), verbose=0)


@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")
def test_odd_batches_of_any_size(model):
    """Boolean masks, and texts as targets, with sizes that are unknown before the step."""
    mask = np.ones(IDS.shape, bool)
    model.evaluate(of_any_size({"input_ids": IDS, "attention_mask": mask}, LABELS), verbose=0)
    with pytest.raises(DataError, match="Targets must be numbers, found texts in the batches"):
        model.evaluate(of_any_size(IDS, np.array(["a", "b", "c", "d"])), verbose=0)


@pytest.mark.parametrize(
    ("batch", "error"),
    [((changed(99), LABELS), ModelError), ((IDS, LABELS + 1), DataError)],
)
def test_the_message_is_that_of_an_array(model, batch, error):
    messages = []
    for given in (batch, (dataset(*batch),)):
        with pytest.raises(error) as caught:
            model.fit(*given, verbose=0)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_a_wrong_batch_leaves_the_model_as_it_was():
    model = small_task_model("one label")
    model.compile(keras.optimizers.SGD(0.1))
    before = model.get_weights()
    for batch in ((IDS, LABELS + 1), (changed(99), LABELS), (IDS, LABELS, np.full(4, np.nan))):
        with pytest.raises((DataError, ModelError)):
            model.fit(dataset(*batch), verbose=0)
    for one, two in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


SIZES = {
    "targets": ((IDS, LABELS[:2]), "different numbers of rows: targets 2; input_ids 4. Give one"),
    "weights": ((IDS, LABELS, np.ones(2, "float32")), "numbers of rows: weights 2; input_ids 4."),
    "mask": (
        ({"input_ids": IDS, "attention_mask": np.ones((2, LENGTH), "int32")}, LABELS),
        "different numbers of rows: attention_mask 2; input_ids 4.",
    ),
    "length": (
        (np.ones((ROWS, 33), "int32"), LABELS),
        "33 tokens, but the model has positions for",
    ),
    "ragged": (
        (tf.ragged.constant([[1, 2, 3], [4]]), LABELS[:2]),
        "one length, found a RaggedTens",
    ),
}


@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")
@pytest.mark.parametrize("made", [dataset, of_any_size])
@pytest.mark.parametrize("wrong", SIZES)
def test_sizes_of_batches(model, wrong, made):
    batch, message = SIZES[wrong]
    if wrong == "ragged":
        made = dataset
    for method in ("fit", "evaluate"):
        with pytest.raises((DataError, ModelError), match=re.escape(message)):
            getattr(model, method)(made(*batch), verbose=0)
    if wrong in ("length", "ragged"):
        with pytest.raises(ModelError, match=re.escape(message)):
            model.predict(made(batch[0]), verbose=0)
    if wrong == "ragged":
        with pytest.raises(ModelError, match=re.escape(message)):
            model(batch[0])


def test_batches_of_an_eager_fit():
    model = small_task_model("one label")
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    with pytest.raises(ModelError, match="found 4294967301. Encode the texts"):
        model.fit(dataset(changed(2**32 + 5), LABELS), verbose=0)
    with pytest.raises(DataError, match="A label is 3, but the model has 3 outputs"):
        model.fit(dataset(IDS, LABELS + 1), verbose=0)
