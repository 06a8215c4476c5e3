"""Targets of causal language models: the token after each one, in whatever form they are given."""

import numpy as np
import pytest

import finetune_tf as ft
from finetune_tf.errors import DataError
from finetune_tf.messages import quiet

IDS = np.array([[3, 4, 5, 6], [7, 8, 9, 0]])
MASK = np.array([[1, 1, 1, 1], [1, 1, 1, 0]])
LABELS = np.where(MASK, IDS, -100)
NEXT = np.array([[4, 5, 6, -100], [8, 9, -100, -100]])
INPUTS = {"input_ids": IDS, "attention_mask": MASK}


@pytest.fixture(scope="module")
def model(tiny_decoder):
    with quiet():
        decoder = ft.load(tiny_decoder)
        decoder.compile()
    return decoder


def as_dataset(x, y=None):
    import tensorflow as tf

    return tf.data.Dataset.from_tensors(x if y is None else (x, y))


def test_labels_among_the_inputs_are_shifted(model):
    expected = model.evaluate(INPUTS, NEXT, verbose=0)
    for labels in (LABELS, NEXT, LABELS.astype("int64")):
        given = {**INPUTS, "labels": labels}
        assert model.evaluate(given, verbose=0) == pytest.approx(expected, rel=1e-6)
        assert model.test_on_batch(given) == pytest.approx(expected, rel=1e-6)
    weights = np.array([1.0, 0.0])
    wanted = model.evaluate(INPUTS, NEXT, sample_weight=weights, verbose=0)
    given = {**INPUTS, "labels": LABELS}
    assert model.evaluate(given, sample_weight=weights, verbose=0) == pytest.approx(wanted)


@pytest.mark.needs_tensorflow("a tf.data.Dataset")
def test_labels_among_the_inputs_of_a_dataset(model):
    expected = model.evaluate(INPUTS, NEXT, verbose=0)
    found = model.evaluate(as_dataset({**INPUTS, "labels": LABELS}), verbose=0)
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
def test_a_fit_on_labels_is_one_on_next_tokens(tiny_decoder):
    def losses(x, y=None):
        with quiet():
            decoder = ft.load(tiny_decoder)
        validation = (x, y) if y is not None else x
        fit = decoder.fit(x, y, epochs=2, validation_data=validation, verbose=0)
        return [*fit.history["loss"], *fit.history["val_loss"]]

    given = {**INPUTS, "labels": LABELS}
    assert losses(given) == pytest.approx(losses(INPUTS, NEXT), rel=1e-6)


def test_targets_that_are_the_tokens_themselves(model):
    message = "The targets are the tokens themselves, so that the model would learn to copy"
    for method in (model.fit, model.evaluate):
        with pytest.raises(DataError, match=message):
            method(INPUTS, LABELS, verbose=0)
    with pytest.raises(DataError, match=message):
        model.train_on_batch(IDS, IDS)


@pytest.mark.needs_tensorflow("a tf.data.Dataset")
def test_targets_of_a_dataset_that_are_the_tokens_themselves(model):
    with pytest.raises(DataError, match="The targets are the tokens themselves"):
        model.fit(as_dataset(INPUTS, LABELS), verbose=0)
