"""Frozen stages are computed once for rows with equal inputs, such as questions about an image."""

from dataclasses import dataclass, field, replace

import keras
import numpy as np
import pytest
from helpers_images import TINY_VIT, levels
from keras import ops

import finetune_tf as ft
from finetune_tf.data.rows import StoredRows
from finetune_tf.graph.splitting import independent_parts
from finetune_tf.messages import quiet
from finetune_tf.model.inference import rows_of

TEXTS = ["a good film", "the actor was great", "a good film", "a dull story", "a dull story", "a"]
IMAGES = [levels(color, (21, 21)) for color in ("red", "blue", "green")]
#: The image of each row.
NUMBERS = [2, 0, 0, 0, 2, 1]
EXAMPLES = ft.data.from_arrays(
    image=[IMAGES[i] for i in NUMBERS], text=TEXTS, label=list("aabbab"), name="questions"
)


@dataclass(frozen=True, eq=False)
class RecordedRows(StoredRows):
    """Rows that record which of them are read."""

    read: list = field(default_factory=list)

    def batch(self, rows, dtype):
        self.read.extend(rows.tolist())
        return super().batch(rows, dtype)


@pytest.fixture(scope="module", params=["concatenation", "cross_attention"])
def model(request, tiny_bert):
    with quiet():
        images = ft.load(TINY_VIT, "image-feature-extraction")
        texts = ft.load(tiny_bert, "feature-extraction")
        return ft.fuse(images, texts, labels=EXAMPLES.labels, how=request.param, size=8)


@pytest.mark.slow
def test_each_image_is_computed_once(model):
    learner = ft.cache_features(model)
    encoded = EXAMPLES.encoded(model)
    pixels = encoded.inputs["pixel_values"]
    recorded = RecordedRows(np.stack(list(pixels.rows)))
    inputs = encoded.inputs | {"pixel_values": replace(pixels, rows=recorded)}
    with quiet():
        learner.cached_features(replace(encoded, inputs=inputs), "questions")
    assert sorted(recorded.read) == [0, 1, 5]  # the first row of each image


@pytest.mark.slow
def test_the_features_are_those_of_the_whole_model(model):
    learner = ft.cache_features(model)
    with quiet():
        inputs, _ = next(iter(EXAMPLES.batches(learner, 6)))
        whole, _ = next(iter(EXAMPLES.batches(model, 6)))
    np.testing.assert_allclose(learner(inputs), model(whole), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_equal_texts_and_equal_images_have_equal_features(model):
    learner = ft.cache_features(model)
    with quiet():
        found = learner.cached_features(EXAMPLES.encoded(model), "questions").values()
    firsts = [
        [next(i for i in range(6) if np.array_equal(rows[i], row)) for row in rows]
        for rows in found
    ]
    of_images = [NUMBERS.index(number) for number in NUMBERS]
    of_texts = [TEXTS.index(text) for text in TEXTS]
    assert sorted(firsts) == sorted([of_images, of_texts])


@pytest.mark.slow
def test_other_rows_have_other_features(model):
    """Features are stored under a hash of all rows, also if the same rows come in another order."""
    learner = ft.cache_features(model)
    with quiet():
        one = learner.cached_features(EXAMPLES.encoded(model), "questions")
        other = learner.cached_features(EXAMPLES[[1, 0, 2, 3, 4, 5]].encoded(model), "swapped")
    for name, feature in one.items():
        np.testing.assert_array_equal(feature[0], other[name][1])
        np.testing.assert_array_equal(feature[5], other[name][5])


@pytest.mark.slow
def test_only_some_rows_are_run(model):
    encoded = replace(EXAMPLES.encoded(model), targets=None)
    some = list(rows_of(model, encoded, 2, lambda outputs, targets: outputs, only=np.array([4, 1])))
    lengths = encoded.lengths["tokens"]
    assert [row for row, _ in some] == sorted([4, 1], key=lambda row: lengths[row])
    every = dict(rows_of(model, encoded, 2, lambda outputs, targets: outputs))
    for row, logits in some:
        np.testing.assert_allclose(logits, every[row], rtol=1e-5, atol=1e-6)


def test_parts_of_a_model_without_a_common_input():
    inputs = {name: keras.Input((3,), name=name) for name in "abcd"}
    outputs = {
        "ab": keras.layers.Dense(2)(inputs["a"]) + keras.layers.Dense(2)(inputs["b"]),
        "c": keras.layers.Dense(2)(inputs["c"]),
        "b": ops.tanh(inputs["b"]),
        "d": ops.tanh(inputs["d"]),
    }
    model = keras.Model(inputs, outputs)
    parts = independent_parts(model)
    read = [{tensor.name for tensor in part.inputs} for part in parts]
    assert sorted(map(sorted, read)) == [["a", "b"], ["c"], ["d"]]
    values = {name: np.full((2, 3), i, "float32") for i, name in enumerate("abcd")}
    found = {}
    for part, names in zip(parts, read, strict=True):
        found |= part({name: values[name] for name in names})
    for name, value in model(values).items():
        np.testing.assert_array_equal(found[name], value)
    (joined,) = independent_parts(
        keras.Model(inputs, {"all": ops.add(outputs["ab"], outputs["c"])})
    )
    assert {tensor.name for tensor in joined.inputs} == set("abcd")
