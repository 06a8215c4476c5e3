"""Pairs of texts in packed rows: a pair is one text, with token types and one target."""

import keras
import numpy as np
import pytest

import finetune_tf as ft
from finetune_tf.messages import quiet

pytestmark = [pytest.mark.jax, pytest.mark.filterwarnings("ignore:A learning rate of")]
TEXTS = [f"the {'very ' * (i % 4)}good film" for i in range(12)]
OTHERS = [f"a {'dull and ' * (i % 3)}short story" for i in range(12)]
LABELS = {
    "one label": [("bad", "fair", "good")[i % 3] for i in range(12)],
    "several labels": [["bad", "good"][: i % 3] for i in range(12)],
    "numbers": [i / 3 for i in range(12)],
}


def made(checkpoint, labels):
    """Pairs and a model for them, with weights of random numbers."""
    examples = ft.data.from_arrays(TEXTS, LABELS[labels], text_pair=OTHERS)
    with quiet():
        keras.utils.set_random_seed(0)
        model = ft.load(checkpoint, labels=examples.labels, dropout=0.0)
        model.compile(keras.optimizers.SGD(1.0))
    return examples, model


@pytest.mark.parametrize("labels", LABELS)
def test_logits_are_those_of_padded_pairs(tiny_bert, labels):
    examples, model = made(tiny_bert, labels)
    with quiet():
        (padded, _), *rest = examples.batches(model, 12, buckets=1).as_numpy_iterator()
        packed = examples.batches(model, 12, packing=30)
    assert not rest
    inputs, _ = next(packed.as_numpy_iterator())
    assert set(inputs["token_type_ids"].ravel()) == {0, 1}
    expected = np.asarray(model(padded))
    np.testing.assert_allclose(model.predict(packed, verbose=0), expected, rtol=1e-5, atol=1e-5)
    # The second texts do matter, and so do the types of their tokens.
    types = {**inputs, "token_type_ids": 0 * inputs["token_type_ids"]}
    assert np.abs(np.asarray(model(types)) - np.asarray(model(inputs))).max() > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("labels", LABELS)
def test_a_step_equals_that_of_padded_pairs(tiny_bert, labels):
    results = []
    for options in ({"buckets": 1}, {"packing": 30}):
        examples, model = made(tiny_bert, labels)
        with quiet():
            (batch,) = examples.batches(model, 12, **options).as_numpy_iterator()
        before = np.concatenate([np.ravel(v) for v in model.trainable_variables])
        loss = model.train_on_batch(*batch, return_dict=True)
        after = np.concatenate([np.ravel(v) for v in model.trainable_variables])
        results.append((loss, before - after))
    (loss, gradient), (packed_loss, packed_gradient) = results
    assert packed_loss == pytest.approx(loss, rel=1e-5)
    assert np.linalg.norm(packed_gradient - gradient) < 1e-5 * np.linalg.norm(gradient)


@pytest.mark.slow
def test_a_regression_of_pairs_is_learned(tiny_bert):
    words = ["dull", "good"]
    texts = [f"a {words[i % 2]} film" for i in range(48)]
    others = [f"the {'very ' * (i % 5)}{words[i // 2 % 2]} story" for i in range(48)]
    scores = [i % 2 + i // 2 % 2 + 0.5 for i in range(48)]  # how many of the two are good
    examples = ft.data.from_arrays(texts, scores, text_pair=others)
    with quiet():
        options = {"epochs": 12, "batch_size": 8, "learning_rate": 2e-3}
        result = ft.finetune(tiny_bert, examples, packing=True, **options)
    assert result.history["loss"][-1] < 0.7 * result.history["loss"][0]
