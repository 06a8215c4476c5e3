"""Predictions of packed batches: each text gets its own output, in the order of the data."""

import numpy as np
import pytest

import finetune_tf as ft
from finetune_tf.errors import DataTypeError, ModelError
from finetune_tf.messages import quiet

pytestmark = pytest.mark.jax
TEXTS = ["a " * (1 + i * 7 % 12) + ("film" if i % 2 else "good story") for i in range(30)]


@pytest.fixture
def model(tiny_bert):
    with quiet():
        return ft.load(tiny_bert, labels=["bad", "good"])


def expected_of(model):
    with quiet():
        batches = ft.data.from_arrays(TEXTS).batches(model, 30, buckets=1)
    return model.predict(batches, verbose=0)


@pytest.mark.parametrize(
    "options", [{}, {"shuffle": True, "seed": 4}], ids=["in order", "shuffled"]
)
@pytest.mark.parametrize("packing", [True, 20])
def test_outputs_are_in_the_order_of_the_texts(model, packing, options):
    labels = ["bad", "good"] * 15
    with quiet():
        examples = ft.data.from_arrays(TEXTS, labels, labels=model.labels)
        batches = examples.batches(model, 6, packing=packing, **options)
    assert len(batches) > 2
    for _ in range(2):  # with shuffle, the second epoch has another order
        found = model.predict(batches, verbose=0)
        np.testing.assert_allclose(found, expected_of(model), rtol=1e-5, atol=1e-5)


def test_vectors_of_texts(tiny_bert):
    with quiet():
        model = ft.load(tiny_bert, "feature-extraction")
        batches = ft.data.from_arrays(TEXTS).batches(model, 6, packing=20)
    found = model.predict(batches, verbose=0)
    np.testing.assert_allclose(found, expected_of(model), rtol=1e-5, atol=1e-5)
    assert len(found) == len(TEXTS)


def test_arrays_of_one_batch_have_an_output_for_each_place(model):
    """They know nothing of the texts that they come from."""
    with quiet():
        batches = ft.data.from_arrays(TEXTS).batches(model, 6, packing=20)
    inputs = next(batches.as_numpy_iterator())
    assert len(model.predict(inputs, verbose=0)) == inputs["text_starts"].size


class TestRefusals:
    def test_parts_of_an_epoch(self, model):
        with quiet():
            batches = ft.data.from_arrays(TEXTS).batches(model, 6, packing=20)
        with pytest.raises(ModelError, match="it needs all batches of an epoch"):
            model.predict(batches, steps=2, verbose=0)
        batches.cursor.batch = 1
        with pytest.raises(ModelError, match="it needs all batches of an epoch"):
            model.predict(batches, verbose=0)

    def test_outputs_of_tokens(self, tiny_bert):
        tags = [["O"] * len(text.split()) for text in TEXTS]
        examples = ft.data.from_arrays(tokens=[text.split() for text in TEXTS], tags=tags)
        with quiet():
            model = ft.load(tiny_bert, "token-classification", labels=["O", "B-X", "I-X"])
            batches = examples.batches(model, 6, packing=20)
        with pytest.raises(ModelError, match=r"several texts share a row.*Use ft\.predict"):
            model.predict(batches, verbose=0)

    def test_predict_and_evaluate_take_examples(self, model):
        with quiet():
            batches = ft.data.from_arrays(TEXTS).batches(model, 6, packing=20)
        for function in (ft.predict, ft.evaluate):
            with pytest.raises(DataTypeError):
                function(model, batches)
