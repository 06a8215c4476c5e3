"""Batches as arrays are those of the tf.data pipeline: the same rows, padding, types and shapes."""

from types import SimpleNamespace

import numpy as np
import pytest
from helpers_tasks import CASES, small_task_model

import finetune_tf as ft
from finetune_tf.data.array_batches import ArrayBatches
from finetune_tf.data.batching import batches_of
from finetune_tf.data.rows import StoredRows
from finetune_tf.errors import DataError
from finetune_tf.tasks import Encoded
from finetune_tf.tasks.feature import Feature

RANDOM = np.random.default_rng(0)
LENGTHS = RANDOM.integers(1, 30, 23)
ORDER = RANDOM.permutation(23)
IDS = [RANDOM.integers(5, 20, length) for length in LENGTHS]


def model_of(*names, **others):
    """What batching reads of a model: the names of its inputs."""
    names = names or ("input_ids", "token_type_ids", "attention_mask")
    inputs = [SimpleNamespace(name=name) for name in names]
    return SimpleNamespace(inputs=inputs, max_length=32, **others)


def encoded(targets=None, **inputs):
    features = {"input_ids": Feature(IDS, padding=9), "token_type_ids": Feature(IDS, padding=1)}
    return Encoded(features | inputs, targets)


def assert_same(encoded, model, batch_size=4, order=ORDER):
    arrays = ArrayBatches(encoded, model, batch_size, order, "rows")
    dataset = batches_of(encoded, model, batch_size, order=order)
    spec = dataset.element_spec
    assert arrays.signature() == list(spec if arrays.has_targets else [spec])
    expected = list(dataset.as_numpy_iterator())
    assert len(arrays) == len(expected) > 1
    for number, batch in enumerate(expected):
        inputs, *targets = batch if arrays.has_targets else (batch,)
        found, *found_targets = arrays[number]
        assert found.keys() == inputs.keys()
        for one, other in zip(
            [*found_targets, *found.values()], [*targets, *map(inputs.get, found)], strict=True
        ):
            np.testing.assert_array_equal(one, other, strict=True)


@pytest.mark.parametrize("kind", ["none", "classes", "several", "numbers", "tokens"])
def test_targets_of_every_shape(kind):
    targets = {
        "none": None,
        "classes": Feature.of_array(np.arange(23, dtype="int32")),
        "several": Feature.of_array(RANDOM.random((23, 3), "float32")),
        "numbers": Feature.of_array(RANDOM.random(23, "float32")),
        "tokens": Feature(IDS, padding=-100),
    }
    assert_same(encoded(targets[kind]), model_of())


def test_rows_in_one_array_and_features_of_floats():
    ends = np.cumsum(LENGTHS)
    flat = RANDOM.random((ends[-1], 2), "float32")
    feature = Feature(StoredRows(flat, ends), padding=0.5, dtype="float32")
    model = model_of(
        "hidden",
        cached_features=lambda encoded, name: {"hidden": feature},
        remember_features=lambda batches: None,
    )
    assert_same(encoded(), model)


def test_several_axes_and_rows_of_one_shape():
    """As an encoder-decoder that also reads an image."""

    model = model_of("input_ids", "decoder_input_ids", "decoder_attention_mask", "pixels")
    targets = [RANDOM.integers(5, 20, length) for length in RANDOM.integers(1, 9, 23)]
    rows = encoded(
        decoder_input_ids=Feature(targets, axis="target_tokens", padding=3),
        pixels=Feature.of_array(RANDOM.integers(0, 256, (23, 4, 5, 3), "uint8")),
    )
    assert_same(rows, model)
    assert_same(rows, model, batch_size=7, order=ORDER[:5].repeat(30))


@pytest.mark.parametrize("case", CASES)
def test_predictions_of_every_task_have_the_batches_of_a_dataset(case, tiny_bert):
    model = small_task_model(case, tiny_bert)
    texts = [
        "a [MASK] film",
        "the actor was very bad and dull",
        "good",
        "a [MASK] [MASK] story",
    ] * 3
    column = "question" if case == "answers" else "text"
    columns = {column: texts} | ({"context": texts[::-1]} if case == "answers" else {})
    rows = ft.data.Examples(columns).encoded(model, targets=False)
    order = np.argsort([len(ids) for ids in rows.inputs["input_ids"]])
    assert_same(Encoded(rows.inputs, None), model, order=order)


def test_rows_that_do_not_fit():
    with pytest.raises(DataError, match="A row has 33 tokens, more than max_length=32"):
        ArrayBatches(
            Encoded({"input_ids": Feature([IDS[0], [7] * 33])}, None), model_of(), 2, ORDER, "x"
        )
    short = Feature([np.array([1])] * 3)
    with pytest.raises(DataError, match="differ in the lengths of their rows"):
        ArrayBatches(encoded(token_type_ids=short), model_of(), 2, ORDER, "x")
