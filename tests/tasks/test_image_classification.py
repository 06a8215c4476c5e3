"""Image classification from files to predictions: learning, freezing, measures, and errors."""

import json

import keras
import numpy as np
import pytest
from conformance.harness import REFERENCES
from PIL import Image

import finetune_tf as ft
from finetune_tf.errors import CheckpointError, DataError, ModelError
from finetune_tf.messages import quiet

COLORS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}
TASK = "image-classification"
# These small models are random, so that they learn with a rate that would ruin trained ones.
pytestmark = pytest.mark.filterwarnings("ignore:A learning rate of 0.01 usually ruins")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folders of noisy images of one colour each."""
    root, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name, color in COLORS.items():
        (root / name).mkdir()
        for i in range(8):
            levels = np.array(color) + random.integers(-40, 40, (30, 26, 3))
            image = Image.fromarray(levels.clip(0, 255).astype("uint8"))
            image.save(root / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def photos(folder):
    return ft.data.from_image_folder(folder)


def loaded(photos, family="resnet", **options):
    keras.utils.set_random_seed(0)
    with quiet():
        return ft.load(
            REFERENCES / family / TASK, TASK, labels=photos.labels, new_head=True, **options
        )


def fitted(model, photos, epochs=8, rate=1e-2):
    model.compile(optimizer=keras.optimizers.Adam(rate))
    history = model.fit(photos.batches(model, 8, shuffle=True), epochs=epochs, verbose=0)
    return history.history["loss"]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["resnet", "vit"])
def test_a_model_learns_and_is_measured(family, photos):
    model = loaded(photos, family)
    losses = fitted(model, photos)
    assert losses[-1] < 0.5 * losses[0]
    report = ft.evaluate(model, photos, baseline="auto", train=photos)
    assert report.metrics["accuracy"] > 0.9
    assert report.baseline.name == "colors" and report.baseline.metrics["accuracy"] == 1.0
    assert report.unit == "images" and "24 images" in str(report)
    assert report.confusion.shape == (3, 3)


@pytest.mark.slow
def test_predictions(photos, folder):
    model = loaded(photos)
    path = folder / "red" / "0.png"
    array = np.asarray(Image.open(path))
    with quiet():
        (expected,) = ft.predict(model, [path])
        for image in (path, str(path), path.read_bytes(), array, Image.open(path)):
            found = ft.predict(model, image)
            assert found.probabilities == pytest.approx(expected.probabilities, abs=1e-6)
        assert len(ft.predict(model, image=[path, array])) == 2
        assert len(ft.predict(model, photos)) == len(photos)


def test_batches_hold_levels(photos):
    model = loaded(photos)
    inputs, targets = next(iter(photos.batches(model, 5)))
    assert inputs["pixel_values"].shape == (5, 37, 37, 3)
    assert inputs["pixel_values"].dtype == "uint8"
    assert targets.numpy().tolist() == [0] * 5  # sorted by path: blue comes first
    expected = model.image_processor(photos.columns["image"][0])
    np.testing.assert_array_equal(inputs["pixel_values"][0], expected)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["resnet", "vit"])
def test_frozen_features_are_computed_once(family, photos):
    whole, model = loaded(photos, family), loaded(photos, family)
    for each in (whole, model):
        with quiet():
            ft.train_only(each, ft.select.head())
    with quiet():
        upper = ft.cache_features(model)
    batches = [each.batches(m, 8) for each, m in ((photos, whole), (photos, upper))]
    assert "pixel_values" not in batches[1].element_spec[0]
    losses = []
    for m, data in zip((whole, upper), batches, strict=True):
        m.compile(optimizer=keras.optimizers.SGD(0.1))
        losses.append(m.fit(data, epochs=2, verbose=0).history["loss"])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def test_stages_of_a_convolutional_network_are_groups(photos):
    model = loaded(photos)
    frozen = ft.select.embeddings() | ft.select.bottom(1)
    with quiet():
        ft.freeze(model, frozen)
    trainable = {stage.name for stage in model.stages if any(v.trainable for v in stage.variables)}
    assert trainable == {"block_1", "classifier"}


@pytest.mark.slow
def test_batch_statistics_stay_as_they_are(photos):
    model = loaded(photos)
    statistics = [v for v in model.weights if v.path.endswith(("/mean", "/variance"))]
    before = [v.numpy() for v in statistics]
    fitted(model, photos, epochs=1)
    assert statistics
    for variable, value in zip(statistics, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


@pytest.mark.slow
def test_levels_of_a_traced_call_do_not_wrap_around(photos):
    import tensorflow as tf

    model = loaded(photos)
    call = tf.function(model, input_signature=[tf.TensorSpec((None, 37, 37, 3), tf.int32)])
    for level, nearest in ((300, 255), (-1, 0)):
        found = call(np.full((1, 37, 37, 3), level, "int32"))
        expected = model(np.full((1, 37, 37, 3), nearest, "uint8"))
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_another_size(photos, tmp_path):
    for family in ("vit", "resnet"):
        model = loaded(photos, family, image_size=48)
        assert model.inputs[0].shape == (None, 48, 48, 3)
        with quiet():
            saved = model.save_pretrained(tmp_path / family)
            again = ft.load(saved, TASK)
        size = json.loads((saved / "preprocessor_config.json").read_text())["size"]
        assert size == {"height": 48, "width": 48}
        pixels = photos[:3].encoded(model).inputs["pixel_values"].rows.batch(np.arange(3))
        np.testing.assert_array_equal(np.asarray(again(pixels)), np.asarray(model(pixels)))


def test_a_model_from_a_config():
    config = json.loads((REFERENCES / "vit" / TASK / "config.json").read_text())
    with quiet():
        model = ft.load(config, TASK, labels=["no", "yes"])
    assert model.image_processor.kind == "ViTImageProcessor"
    assert model.image_processor.output_size == (21, 21)


def test_vectors_of_images(photos):
    with quiet():
        model = ft.load(REFERENCES / "resnet" / TASK, "image-feature-extraction")
        vectors = ft.predict(model, photos.columns["image"][:2])
    assert vectors.shape == (2, 12)
    with pytest.raises(ModelError, match="image-feature-extraction cannot be measured"):
        ft.evaluate(model, photos)


class TestErrors:
    @pytest.mark.parametrize(
        ("inputs", "message"),
        [
            (np.zeros((1, 37, 37, 3), "float32"), "must be levels from 0 to 255 as integers"),
            (np.full((1, 37, 37, 3), 300), "must be levels from 0 to 255, found 300"),
            (np.full((1, 37, 37, 3), -1), "must be levels from 0 to 255, found -1"),
            (np.zeros((1, 3, 37, 37), "uint8"), r"must have the shape .*here \(batch, 37, 37, 3\)"),
            (np.zeros((37, 37, 3), "uint8"), r"must have the shape .*found \(37, 37, 3\)"),
            ({"input_ids": np.array([[1]])}, "These are inputs of a model of texts"),
            (["photo.png"], "expects pixel_values .* found a list"),
        ],
    )
    def test_inputs(self, photos, inputs, message):
        with pytest.raises(ModelError, match=message):
            loaded(photos)(inputs)

    def test_texts_for_a_model_of_images(self, photos):
        texts = ft.data.from_arrays(["a film"], ["red"], labels=photos.labels)
        with pytest.raises(ModelError, match="reads the columns image, label, but arrays has text"):
            texts.batches(loaded(photos))

    def test_images_for_a_model_of_texts(self, photos, tiny_bert):
        with quiet():
            model = ft.load(tiny_bert, labels=photos.labels)
        with pytest.raises(ModelError, match="reads the columns text, text_pair, label"):
            photos.batches(model)
        with pytest.raises(ModelError, match="The model reads texts"):
            model.image_processor  # noqa: B018

    def test_predictions_for_the_other_kind_of_input(self, photos, tiny_bert):
        images = photos.columns["image"][:2]
        with quiet():
            texts = ft.load(tiny_bert, labels=photos.labels)
            with pytest.raises(DataError, match="takes texts and text_pair, found image"):
                ft.predict(texts, image=images)
            with pytest.raises(DataError, match="files that do not exist: 'a good film' .row 0."):
                ft.predict(loaded(photos), ["a good film"])
        with pytest.raises(ModelError, match="unknown: pixel_values. pixel_values belong to a mod"):
            texts({"pixel_values": np.zeros((1, 37, 37, 3), "uint8")})

    def test_a_length_for_images(self, photos):
        with pytest.raises(ModelError, match="max_length= is for texts"):
            photos.batches(loaded(photos), max_length=8)

    def test_a_size_for_texts(self, tiny_bert):
        with pytest.raises(CheckpointError, match="image_size= is for image models, but bert"):
            ft.load(tiny_bert, image_size=32)
