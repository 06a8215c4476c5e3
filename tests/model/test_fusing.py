"""Tests of `fuse`: any encoder of images and any encoder of texts in one model."""

import keras
import numpy as np
import pytest
from helpers_checkpoints import TESTS
from helpers_images import levels
from helpers_towers import write_towers

import finetune_tf as ft
from finetune_tf.errors import ArgumentError, ModelError
from finetune_tf.messages import quiet

REFERENCES = TESTS / "references"


@pytest.fixture(scope="module")
def image_model():
    with quiet():
        return ft.load(REFERENCES / "resnet" / "image-classification")


@pytest.fixture(scope="module")
def text_model(tiny_bert):
    with quiet():
        return ft.load(tiny_bert, "feature-extraction")


@pytest.fixture(scope="module")
def examples():
    """The color of the image and a word of the text decide the label together."""
    rows = [(c, w) for c in ("red", "blue") for w in ("good", "bad") for _ in range(4)]
    return ft.data.from_arrays(
        text=[f"the film was {word}" for _, word in rows],
        image=[levels(color, seed=i) for i, (color, _) in enumerate(rows)],
        label=["same" if (c == "red") == (w == "good") else "other" for c, w in rows],
    )


def test_the_stages_of_both_models_and_a_new_head(image_model, text_model):
    with quiet():
        model = ft.fuse(image_model, text_model, labels=["yes", "no"])
    names = [stage.name for stage in model.stages]
    blocks = [s.name for s in image_model.stages if s.role in ("embeddings", "block", "norm")]
    assert names[: len(blocks)] == [f"image/{name}" for name in blocks]
    assert names[-5:] == ["text/embeddings", "text/block_0", "text/block_1", "fusion", "classifier"]
    assert {v.path.split("/")[0] for v in model.trainable_variables} == {"fusion", "classifier"}


@pytest.mark.slow
@pytest.mark.parametrize("family", ["vit", "resnet", "mobilenet_v2"])
def test_the_towers_compute_what_the_models_compute(family, text_model, examples):
    with quiet():
        folder = REFERENCES / family / "image-classification"
        images = ft.load(folder, "image-feature-extraction")
        model = ft.fuse(images, text_model, labels=["yes", "no"])
    texts = ft.data.Examples({"text": examples.columns["text"][:3]})
    inputs = next(iter(texts.batches(text_model, 3)))
    pixels = next(iter(ft.data.Examples({"image": examples.columns["image"][:3]}).batches(images)))
    tower = keras.Model(model.inputs, [model.get_layer(n).output for n in ("image", "text")])
    found = tower(model._complete_inputs({**inputs, **pixels}))
    for vectors, expected in zip(found, (images(pixels), text_model(inputs)), strict=True):
        np.testing.assert_allclose(vectors, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["concatenation", "gate", "cross_attention"])
def test_what_neither_tells_alone_is_learned(how, image_model, text_model, examples):
    keras.utils.set_random_seed(1)
    with quiet():
        model = ft.fuse(image_model, text_model, labels=examples.labels, how=how, size=16)
        learner = ft.cache_features(model)
        learner.compile(**ft.presets.cross_entropy(learning_rate=1e-2, schedule="constant"))
        batches = examples.batches(learner, 16, shuffle=True).repeat()
        learner.fit(batches, steps_per_epoch=400, verbose=0)
        report = ft.evaluate(model, examples)
    assert report.metrics["accuracy"] == 1.0


@pytest.mark.slow
def test_any_stage_can_be_trained(text_model, examples):
    with quiet():
        images = ft.load(REFERENCES / "vit" / "image-classification")
        model = ft.fuse(images, text_model, labels=examples.labels)
        selector = ft.select.head() | ft.select.blocks(-1, chain="text")
        ft.train_only(model, selector)
        learner = ft.cache_features(model)
        model.compile()
        model.fit(examples.batches(model, 8, shuffle=True), verbose=0)
        inputs = next(iter(examples.batches(learner, 8)))[0]
    assert len([name for name in inputs if "cached" in name]) == 2  # one of each tower
    assert {s.name for s in model.stages if s.variables[0].trainable} == {
        "text/block_1",
        "fusion",
        "classifier",
    }


@pytest.mark.slow
def test_the_models_remain_as_they_are(image_model, text_model, examples):
    before = [variable.numpy() for variable in text_model.weights]
    with quiet():
        model = ft.fuse(image_model, text_model, labels=examples.labels)
        ft.train_only(model, ft.select.everything())
        model.compile()
        model.fit(examples.batches(model, 8, shuffle=True), verbose=0)
    for variable, value in zip(text_model.weights, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


@pytest.mark.slow
def test_without_labels_it_is_for_retrieval(image_model, text_model):
    with quiet():
        model = ft.fuse(image_model, text_model, size=8)
    assert model.task.name == "image-text-retrieval"
    assert model.output.shape == (None, 2, 8)
    heads = [stage.name for stage in model.stages if stage.role == "head"]
    assert heads == ["image/projection", "text/projection", "image_rows"]


def test_models_in_the_wrong_order(image_model, text_model):
    with pytest.raises(ModelError, match="needs an encoder of images as its image_model, found a"):
        ft.fuse(text_model, image_model, labels=["yes", "no"])


def test_models_of_other_libraries(text_model):
    with pytest.raises(ModelError, match=r"joins two models from ft.load"):
        ft.fuse(keras.Sequential([keras.layers.Dense(2)]), text_model, labels=["yes", "no"])


@pytest.mark.slow
def test_a_model_of_two_towers_is_no_tower(text_model, tmp_path):
    with quiet():
        clip = ft.load(write_towers(tmp_path / "clip"), "image-text-retrieval")
    with pytest.raises(ModelError, match="needs an encoder of images"):
        ft.fuse(clip, text_model, labels=["yes", "no"])


def test_an_unknown_way_to_join(image_model, text_model):
    with pytest.raises(ArgumentError, match="how= is one of concatenation, gate, cross_att"):
        ft.fuse(image_model, text_model, labels=["yes", "no"], how="sum")


def test_a_size_below_one(image_model, text_model):
    with pytest.raises(ArgumentError, match="size"):
        ft.fuse(image_model, text_model, labels=["yes", "no"], size=0)
