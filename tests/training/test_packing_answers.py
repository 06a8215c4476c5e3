"""Question answering in packed rows: the answer to a question is in its own part of the row."""

import keras
import numpy as np
import pytest
from helpers_packing import (
    CONVOLVED,
    ENCODERS,
    LENGTH,
    TEXTS,
    WITH_EMPTY,
    batch_of,
    gradient_of,
    in_places,
    loaded,
    of_families,
    order_of,
)

import finetune_tf as ft
from finetune_tf.errors import DataError, ModelError
from finetune_tf.families import FAMILIES
from finetune_tf.messages import quiet

pytestmark = [pytest.mark.jax, pytest.mark.filterwarnings("ignore:A learning rate of")]
TASK = "question-answering"


def answers(family):
    row = FAMILIES[family]
    return family not in CONVOLVED and TASK in row.heads(row.complete({}))


ANSWERING = [family for family in ENCODERS if answers(family)]
RANDOM = np.random.default_rng(3)
EQUAL = [RANDOM.integers(4, 23, 5).astype("int32") for _ in range(5)]  # padded rows have no padding


@pytest.mark.parametrize("family", of_families(ANSWERING, fast=("bert",)))
def test_logits_equal_those_of_each_text_alone(family):
    model = loaded(family, TASK)
    (inputs, _), (padded, _) = batch_of(model, WITH_EMPTY), batch_of(model, False)
    rows = order_of(TEXTS, WITH_EMPTY)
    packed = np.asarray(model(inputs)).reshape(len(rows), -1, 2, WITH_EMPTY)
    alone = np.asarray(model(padded))
    for row, texts in enumerate(rows):
        for place, text in enumerate(texts):
            length = len(TEXTS[text])
            found, expected = packed[row, place], alone[text]
            np.testing.assert_allclose(
                found[:, :length], expected[:, :length], rtol=1e-5, atol=1e-5
            )
            assert (found[:, length:] < -1e8).all()  # no token of another text is an answer
        assert (packed[row, len(texts) :] < -1e8).all()


@pytest.mark.parametrize("family", of_families(ANSWERING))
def test_a_step_equals_that_of_the_texts_alone(family):
    results = []
    for packing in (False, LENGTH):
        model = loaded(family, TASK)
        results.append(gradient_of(model, batch_of(model, packing, EQUAL)))
    (loss, gradient), (packed_loss, packed_gradient) = results
    np.testing.assert_allclose(packed_loss, loss, rtol=1e-5)
    assert np.linalg.norm(packed_gradient - gradient) < 1e-5 * np.linalg.norm(gradient)


def test_the_loss_is_that_of_each_text_without_padding():
    """In padded rows, padding takes part in the softmax, as in PyTorch."""
    model = loaded("bert", TASK)
    with quiet():
        model.compile(keras.optimizers.SGD(0.0))
    inputs, targets = batch_of(model, False)
    each, hits = [], []
    for i, text in enumerate(TEXTS):
        alone = {name: values[i : i + 1, : len(text)] for name, values in inputs.items()}
        if len(text) == 1:  # Keras warns of a softmax over one key
            alone = {name: values[i : i + 1, :2] for name, values in inputs.items()}
        logits = np.asarray(model(alone), "float64")[0, :, : len(text)]
        of_ends = logits[[0, 1], targets[i]]
        each.append(np.log(np.exp(logits).sum(axis=1)) - of_ends)
        hits.append(logits.argmax(axis=1) == targets[i])
    found = model.test_on_batch(*batch_of(model, WITH_EMPTY), return_dict=True)
    assert found["loss"] == pytest.approx(np.mean(each), rel=1e-5)
    assert found["accuracy"] == pytest.approx(np.mean(hits), rel=1e-5)
    weights = np.array([1.0, 3.0, 0.0, 0.5, 2.0, 4.0], "float32")
    batch = (*batch_of(model, WITH_EMPTY), in_places(weights, 9.0))
    found = model.test_on_batch(*batch, return_dict=True)
    assert found["loss"] == pytest.approx(np.mean(weights[:, None] * each), rel=1e-5)


CONTEXTS = ["the film was good", "a very long story and a dull actor", "the actor was great"] * 4
WORDS = ["good", "dull", "great"] * 4


def questions():
    columns = {
        "question": ["was the film good", "the actor", "good and great not bad"] * 4,
        "context": CONTEXTS,
        "answers": [
            {"text": [word], "answer_start": [context.index(word)]}
            for word, context in zip(WORDS, CONTEXTS, strict=True)
        ],
    }
    return ft.data.from_arrays(**columns)


def test_targets_are_places_in_their_text(tiny_bert):
    with quiet():
        model = ft.load(tiny_bert, TASK)
        (batch,) = questions().batches(model, 12, packing=31).as_numpy_iterator()
    inputs, targets = batch
    starts = inputs["text_starts"]
    assert targets.shape == (starts.size, 2)
    np.testing.assert_array_equal(targets[starts.ravel() == -1], -100)
    found = []
    for row, ids in enumerate(inputs["input_ids"]):
        of_row = targets.reshape(*starts.shape, 2)[row]
        for start, (first, last) in zip(starts[row], of_row, strict=True):
            if start >= 0:
                assert first == last  # answers are one word
                found += model.tokenizer.convert_ids_to_tokens([ids[start + first]])
    assert sorted(found) == sorted(WORDS)


@pytest.mark.slow
def test_packed_answers_are_learned(tiny_bert):
    with quiet():
        keras.utils.set_random_seed(0)
        model = ft.load(tiny_bert, TASK)
        model.compile(**ft.presets.cross_entropy(learning_rate=3e-3))
        batches = questions().batches(model, 6, shuffle=True, packing=True)
        model.fit(batches, epochs=25, verbose=0)
        results = ft.evaluate(model, questions())
    assert results.metrics["exact_match"] > 0.9


@pytest.mark.slow
def test_windows_of_a_long_context_are_packed_like_other_texts(tiny_bert):
    context = " ".join(["the film was very long and dull"] * 8)
    long = ft.data.from_arrays(
        question=["was the film good", "the actor"],
        context=[context, "the actor was great"],
        answers=[
            {"text": ["dull"], "answer_start": [context.index("dull")]},
            {"text": ["great"], "answer_start": [14]},
        ],
    )
    with quiet():
        model = ft.load(tiny_bert, TASK)
        batches = long.batches(model, 32, packing=32, max_length=24, stride=4)
        rows = len(long.encoded(model, max_length=24, stride=4))
    assert rows > 4
    (inputs, targets), *_ = batches.as_numpy_iterator()
    assert (inputs["text_starts"] >= 0).sum() == (targets[:, 0] >= 0).sum() == rows


@pytest.mark.slow
@pytest.mark.parametrize("kept", ["head", "last block"])
def test_cached_features(kept):
    results = []
    for packing in (False, LENGTH):
        model = loaded("bert", TASK)
        with quiet():
            chosen = ft.select.head()
            ft.train_only(model, chosen | ft.select.blocks(-1) if kept != "head" else chosen)
            upper = ft.cache_features(model)
        results.append(gradient_of(upper, batch_of(upper, packing, EQUAL)))
    (loss, gradient), (packed_loss, packed_gradient) = results
    np.testing.assert_allclose(packed_loss, loss, rtol=1e-5)
    assert np.linalg.norm(packed_gradient - gradient) < 1e-5 * np.linalg.norm(gradient)


@pytest.mark.slow
def test_bfloat16_and_xla():
    model = loaded("bert", TASK)
    inputs, targets = batch_of(model, WITH_EMPTY)
    expected = np.asarray(model(inputs))
    half = np.asarray(loaded("bert", TASK, dtype="mixed_bfloat16")(inputs))
    is_token = expected > -1e8
    np.testing.assert_array_equal(half > -1e8, is_token)
    np.testing.assert_allclose(
        half[is_token], expected[is_token], atol=0.05 * np.abs(expected[is_token]).max()
    )
    losses = []
    for compiled in (False, True):
        with quiet():
            loss = ft.presets.LOSSES["classes"]()
            model.compile(keras.optimizers.SGD(0.0), loss, jit_compile=compiled)
        losses.append(model.train_on_batch(inputs, targets))
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


class TestRefusals:
    def test_missing_starts(self):
        model, ids = loaded("bert", TASK), np.array([[4, 5, 6]])
        with pytest.raises(ModelError, match="one output for each text, so packed rows need text_"):
            model({"input_ids": ids, "position_ids": ids * 0})

    def test_places_beyond_the_row(self):
        model = loaded("bert", TASK)
        inputs, targets = batch_of(model, WITH_EMPTY)
        targets = np.where(targets == -100, targets, WITH_EMPTY)
        with pytest.raises(DataError, match="A start or end is 13, but the model has 13 outputs"):
            model.train_on_batch(inputs, targets)
