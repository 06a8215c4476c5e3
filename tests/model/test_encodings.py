"""fit, evaluate and predict accept the output of tokenizers unchanged."""

import json
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.optimizers.schedules import PolynomialDecay

import finetune_tf as ft
from finetune_tf.errors import DataError
from finetune_tf.training import Warmup
from finetune_tf.training.callbacks import Measure

TEXTS = ["the film was good", "a bad story", "very fine", "a dull film"]
LABELS = [1, 0, 1, 0]


@pytest.fixture
def model(tiny_bert):
    keras.utils.set_random_seed(0)
    model = ft.load(tiny_bert, labels=["no", "yes"])
    model.compile(keras.optimizers.SGD(0.0), metrics=["accuracy"])
    return model


def first_loss(history):
    return history.history["loss"][0]


@pytest.mark.slow
def test_encodings_lists_and_labels_among_the_inputs(model):
    lists = model.tokenizer(TEXTS, padding=True)
    arrays = model.tokenizer(TEXTS, padding=True, return_tensors="np")
    expected = first_loss(model.fit(dict(arrays), np.array(LABELS), verbose=0))
    batches = tf.data.Dataset.from_tensors({**arrays, "labels": LABELS})
    for given in (
        (arrays, LABELS),
        (lists, LABELS),
        ({**arrays, "labels": LABELS},),
        ({**arrays, "label": LABELS},),
        (batches,),
        (arrays, {"labels": LABELS}),
    ):
        assert first_loss(model.fit(*given, verbose=0)) == pytest.approx(expected, rel=1e-6)
        assert model.evaluate(*given, verbose=0)[0] == pytest.approx(expected, rel=1e-6)
    history = model.fit(arrays, LABELS, validation_data=(lists, LABELS), verbose=0).history
    assert history["val_loss"][0] == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(model.predict(lists, verbose=0), model(dict(arrays)), atol=1e-6)


def test_the_tokenizer_gives_tensors_and_decodes_them(model):
    batch = model.tokenizer(TEXTS, padding=True, return_tensors="tf")
    assert batch["input_ids"].dtype == tf.int32
    assert model.tokenizer.batch_decode(batch["input_ids"], skip_special_tokens=True) == TEXTS
    assert model.tokenizer.decode(batch["input_ids"][0][1]) == "the"
    padded = model.tokenizer.pad({"input_ids": [[2, 3], [2, 7, 3]]}, return_tensors="tf")
    np.testing.assert_array_equal(padded["attention_mask"], [[1, 1, 0], [1, 1, 1]])
    assert pickle.loads(pickle.dumps(model.tokenizer))(TEXTS) == model.tokenizer(TEXTS)
    with pytest.raises(DataError, match=r"different lengths. Write tokenizer\(texts, padding=True"):
        model.tokenizer(TEXTS, return_tensors="tf")


def test_a_row_of_targets_for_each_class_number(model):
    encoding = model.tokenizer(TEXTS, padding=True)
    message = r"expects class indices, one per text, found rows of 2 numbers. Write labels.argmax"
    with pytest.raises(DataError, match=message):
        model.fit(encoding, np.eye(2, dtype="int32")[LABELS], verbose=0)


@pytest.mark.slow
def test_first_and_last_tokens_of_answers(tiny_bert):
    reader = ft.load(tiny_bert, "question-answering")
    reader.compile(keras.optimizers.SGD(0.0))
    given = reader.tokenizer(TEXTS, padding=True)
    starts, ends = np.array([1, 2, 1, 3]), np.array([2, 2, 1, 3])
    expected = first_loss(reader.fit(given, np.stack([starts, ends], axis=1), verbose=0))
    inside = {**given, "start_positions": starts, "end_positions": ends}
    for way in ((inside,), (given, (starts, ends))):
        assert first_loss(reader.fit(*way, verbose=0)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
def test_inputs_without_labels(model):
    with pytest.raises(DataError, match=r"no labels to train on.*found the inputs input_ids, "):
        model.fit(model.tokenizer(TEXTS, padding=True), verbose=0)
    # Two texts of two tokens: the ids must not be taken for labels.
    with pytest.raises(DataError, match="no labels to train on.*found only token ids"):
        model.fit(np.full((2, 2), 1, "int32"), verbose=0)


@pytest.mark.slow
def test_a_measure_of_all_rows_in_the_log(model, capsys):
    encoding = dict(model.tokenizer(TEXTS, padding=True, return_tensors="np"))
    seen = []

    def measure(logits, labels):
        seen.append((logits.shape, labels.tolist()))
        return {"right": np.mean(logits.argmax(-1) == labels)}

    pairs = tf.data.Dataset.from_tensor_slices((encoding, LABELS)).batch(3)
    inside = tf.data.Dataset.from_tensor_slices({**encoding, "labels": LABELS}).batch(3)
    callbacks = [Measure(measure, pairs), Measure(measure, inside)]
    history = model.fit(encoding, LABELS, epochs=2, verbose=0, callbacks=callbacks).history
    assert seen == [((4, 2), LABELS)] * 4
    assert history["right"] == pytest.approx(history["accuracy"])
    assert f"right: {history['right'][0]:.4f}" in capsys.readouterr().out


@pytest.mark.slow
def test_a_measure_of_tokens_pads_batches_to_one_length(tiny_bert):
    tagger = ft.load(tiny_bert, "token-classification", labels=["O", "X"])
    tagger.compile(keras.optimizers.SGD(0.0))
    batches = [
        ({"input_ids": np.full((2, length), 5)}, np.ones((2, length), "int32")) for length in (3, 5)
    ]
    seen = {}
    callback = Measure(lambda logits, tags: seen.update(logits=logits, tags=tags) or {}, batches)
    tagger.fit(*batches[0], verbose=0, callbacks=[callback])
    assert seen["logits"].shape == (4, 5, 2)
    assert seen["tags"].tolist() == [[1, 1, 1, -100, -100]] * 2 + [[1] * 5] * 2


def test_a_measure_refuses_sample_weights():
    callback = Measure(lambda logits, targets: {}, [(np.zeros((2, 3)), np.zeros(2), np.ones(2))])
    with pytest.raises(DataError, match="found 3 parts: it does not use sample weights"):
        callback.on_epoch_end(0)


def test_warm_up_before_any_schedule():
    rates = Warmup(1e-3, PolynomialDecay(1e-3, 10, 0.0), steps=4)
    again = keras.saving.deserialize_keras_object(
        json.loads(json.dumps(keras.saving.serialize_keras_object(rates)))
    )
    for schedule in (rates, again):
        found = [float(schedule(step)) for step in (0, 2, 4, 9, 14)]
        np.testing.assert_allclose(found, [0, 5e-4, 1e-3, 5e-4, 0], atol=1e-9)


def test_keys_of_the_config_are_attributes(model):
    assert model.config.hidden_size == model.config["hidden_size"] == 24
    assert model.config.id2label == {0: "no", 1: "yes"}
    assert model.config.num_labels == 2
    with pytest.raises(AttributeError, match="The config has no key 'hidden_sice'"):
        _ = model.config.hidden_sice
    model.config.note = "kept"
    assert model.config.to_dict()["note"] == "kept"
