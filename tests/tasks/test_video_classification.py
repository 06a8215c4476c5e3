"""Video classification from clips to predictions: what the order of frames is worth, and errors."""

import json
import os
from pathlib import Path

import keras
import numpy as np
import pytest
from conformance.harness import REFERENCES
from helpers_videos import CLASSES, gif, moving_squares, squares

import finetune_tf as ft
from finetune_tf.architectures import PIXELS
from finetune_tf.errors import (
    ArgumentError,
    CheckpointError,
    DataError,
    DataTypeError,
    ModelError,
)
from finetune_tf.families import FAMILIES
from finetune_tf.families.frames import VIDEO
from finetune_tf.messages import quiet

WEIGHTS = Path(os.environ.get("FINETUNE_TF_WEIGHTS", REFERENCES.parents[1] / "shared" / "weights"))
VIDEOMAE = REFERENCES / "videomae" / VIDEO
TEMPORAL = ("convolution", "attention", "mean", "difference", "single")
IMAGES = [name for name, family in FAMILIES.items() if "temporal" in family.own_keys]
RESNET = {
    "model_type": "resnet",
    "embedding_size": 16,
    "hidden_sizes": [16, 32],
    "depths": [1, 1],
    "layer_type": "basic",
    "small_stem": True,
}


@pytest.fixture(scope="module")
def train():
    return squares("train", pairs=60, seed=1)


@pytest.fixture(scope="module", name="test")
def clips_to_test():
    return squares("test", pairs=40, seed=2)


@pytest.fixture(scope="module")
def few():
    return squares("few", pairs=3, seed=3)


def loaded(checkpoint=RESNET, temporal="convolution", **options):
    keras.utils.set_random_seed(0)
    options = {"labels": CLASSES, "frames": 9, "temporal": temporal, **options}
    if checkpoint is RESNET:
        options["image_size"] = 32
    with quiet():
        return ft.load(checkpoint, VIDEO, **options)


def fitted(train, epochs=10, **options):
    """A model whose frozen features of frames were computed once."""
    model = loaded(**options)
    with quiet():
        ft.freeze(model, ft.select.chain("frames"))
        learner = ft.cache_features(model)
        learner.compile()
        learner.fit(train.batches(learner, 16, shuffle=True), epochs=epochs, verbose=0)
    return model


@pytest.fixture(scope="module")
def models(train):
    return {kind: fitted(train, temporal=kind) for kind in ("single", "mean", "convolution")}


@pytest.mark.slow
def test_only_heads_that_know_the_order_of_frames_see_motion(models, test):
    comparison = ft.compare(models, test)
    accuracy = {row.name: row.metrics["accuracy"] for row in comparison.rows}
    assert accuracy["convolution"] >= 0.95
    assert abs(accuracy["single"] - 0.5) < 0.15 and abs(accuracy["mean"] - 0.5) < 0.15
    intervals = {row.name: row.difference for row in comparison.rows}  # from "single"
    assert intervals["convolution"].low > 0.25
    assert intervals["mean"].low <= 0 <= intervals["mean"].high


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint", ["difference", "attention", "mobilenet_v2_100"])
def test_other_heads_and_trained_networks_see_motion(checkpoint, train, test):
    if checkpoint in TEMPORAL:
        model = fitted(train, temporal=checkpoint)
    elif (WEIGHTS / checkpoint).is_dir():
        model = fitted(train, checkpoint=WEIGHTS / checkpoint, image_size=96)
    else:
        pytest.skip(f"FINETUNE_TF_WEIGHTS: no folder {WEIGHTS / checkpoint}")
    assert ft.evaluate(model, test).metrics["accuracy"] >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize(
    ("baseline", "sees_motion"),
    [("mean-frame", False), ("middle-frame", False), ("difference", True), ("majority", False)],
)
def test_baselines_tell_whether_motion_matters(baseline, sees_motion, models, train, test):
    report = ft.evaluate(models["mean"], test, baseline=baseline, train=train)
    accuracy = report.baseline.metrics["accuracy"]
    assert accuracy > 0.9 if sees_motion else abs(accuracy - 0.5) < 0.15


def test_stages_of_the_frames_are_a_chain():
    model = loaded()
    assert [(stage.name, stage.role) for stage in model.stages] == [
        ("frames/embeddings", "embeddings"),
        ("frames/block_0", "block"),
        ("frames/block_1", "block"),
        ("temporal", "head"),
        ("classifier", "head"),
    ]
    with quiet():
        ft.freeze(model, ft.select.bottom(1, chain="frames"))
    assert not model.get_layer("block_0").trainable_variables
    assert model.get_layer("block_1").trainable_variables


@pytest.mark.parametrize("trained", ["head", "last block"])
def test_cached_features_give_the_same_outputs(trained, few):
    model = loaded()
    selector = ft.select.head()
    if trained == "last block":
        selector = selector | ft.select.blocks(-1, chain="frames")
    with quiet():
        ft.train_only(model, selector)
        learner = ft.cache_features(model)
        features, _ = next(iter(few.batches(learner, 4)))
        pixels, _ = next(iter(few.batches(model, 4)))
    expected = (4, 9, 2, 2, 32) if trained == "head" else (4, 9, 32, 32, 16)
    assert {name: tuple(array.shape) for name, array in features.items()} == {
        "cached_features": expected
    }
    np.testing.assert_allclose(learner(features), model(pixels), atol=1e-5)


def test_features_of_a_clip_are_stored_once(few, capsys):
    model = loaded()
    ft.train_only(model, ft.select.head())
    learner = ft.cache_features(model)
    few.batches(learner, 4)
    assert "Features of few: computed once" in capsys.readouterr().out
    few.batches(learner, 2, shuffle=True)
    assert "computed once" not in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("temporal", TEMPORAL)
def test_a_saved_model_is_loaded_with_its_frames(temporal, few, tmp_path, capsys):
    model = loaded(temporal=temporal, frames=5)
    with quiet():
        expected = ft.predict(model, few)
    folder = model.save_pretrained(tmp_path / "saved")
    assert "opens in finetune_tf.load" in capsys.readouterr().out
    config = json.loads((folder / "config.json").read_text())
    assert (config["num_frames"], config["temporal"]) == (5, temporal)
    assert config["architectures"] == ["ResNetForVideoClassification"]
    assert 'ft.predict(model, video=["clip.mp4"])' in (folder / "README.md").read_text()
    again = ft.load(folder)
    told = capsys.readouterr().out
    assert f"5 frames of a clip, combined by '{temporal}'" in told
    assert "task video-classification, by its class ResNetForVideoClassification" in told
    with quiet():
        found = ft.predict(again, few)
    assert [row.probabilities for row in found] == [row.probabilities for row in expected]
    # The frames are forgotten where the folder becomes a model of images again.
    with quiet():
        image = ft.load(folder, "image-classification", labels=CLASSES)
    assert "temporal" not in image.config and image.input_shape == (None, 32, 32, 3)


def test_a_keras_file_restores_the_model(few, tmp_path):
    model = loaded()
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    with quiet():
        pixels, _ = next(iter(few.batches(again, 4)))
    np.testing.assert_array_equal(again(pixels), model(pixels))


@pytest.mark.slow
@pytest.mark.parametrize("family", IMAGES)
def test_every_family_of_images_reads_clips(family, few, tmp_path):
    """Compiled by XLA, in bfloat16, and saved, with the features of a model of single images."""
    folder = REFERENCES / family / "image-classification"
    model = loaded(folder if folder.is_dir() else None, frames=4)
    image = loaded_image(folder)
    with quiet():
        pixels = next(iter(few.batches(model, 2)))[0]["pixel_values"]
        model.compile(jit_compile=True)
    assert [stage.role for stage in model.stages[-2:]] == ["head", "head"]
    assert {stage.chain for stage in model.stages[:-2]} == {"frames"}
    found = np.asarray(model({"pixel_values": pixels}))
    np.testing.assert_allclose(model.predict(pixels, verbose=0), found, atol=1e-4)
    # The features of a frame are those that the model of images computes for it.
    layer = model.get_layer("grid").input
    features = keras.Model(model.input, layer)({PIXELS: pixels})
    states = keras.Model(image.input, image.get_layer(layer._keras_history.operation.name).output)
    np.testing.assert_allclose(features[:4], states({PIXELS: pixels[0]}), atol=1e-5)
    with quiet():
        again = ft.load(model.save_pretrained(tmp_path / "saved"))
        half = ft.load(tmp_path / "saved", dtype="mixed_bfloat16")
    np.testing.assert_array_equal(again(pixels), found)
    np.testing.assert_allclose(half(pixels), found, atol=0.1)


def loaded_image(folder):
    with quiet():
        return ft.load(folder, "image-classification")


class TestInputs:
    def test_one_clip_and_several(self, few):
        model, clips = loaded(), few.columns["video"]
        with quiet():
            one = ft.predict(model, clips[0])
            several = ft.predict(model, video=[clips[0], gif(clips[1]), list(clips[2])])
            stacked = ft.predict(model, video=np.stack(clips[:2]))
        assert one.label in CLASSES
        assert len(several) == 3 and len(stacked) == 2
        np.testing.assert_allclose(several[0].score, one.score, rtol=1e-5)

    @pytest.mark.parametrize(
        ("given", "error", "told"),
        [
            ({}, DataError, "predict for video-classification takes videos"),
            ({"image": "a.png"}, DataError, "predict for video-classification takes videos"),
            ({"video": ["no.mp4"]}, DataError, "names files that do not exist: 'no.mp4'"),
            ({"video": [np.zeros((8, 8, 3), "uint8")]}, DataTypeError, "must hold videos: paths"),
            (
                {"video": np.zeros((3, 8, 8, 3), "uint8")},
                DataError,
                "The video of row 0 of videos cannot be used: it has 3 frames, but the model reads",
            ),
            (
                {"video": [[np.zeros((8, n, 3), "uint8") for n in range(3, 12)]]},
                DataError,
                "its images differ in size, for example 8 x 3 and 8 x 4 pixels",
            ),
        ],
    )
    def test_wrong_videos(self, given, error, told):
        with quiet(), pytest.raises(error) as raised:
            ft.predict(loaded(), **given)
        assert told in str(raised.value)

    def test_a_call_needs_clips_of_the_right_shape(self):
        model = loaded()
        for shape in ((1, 32, 32, 3), (1, 4, 32, 32, 3)):
            with pytest.raises(ModelError, match=r"\(batch, frames, height, width, channels\)"):
                model(np.zeros(shape, "uint8"))

    def test_examples_of_images_are_no_videos(self):
        images = ft.data.from_arrays(
            image=[np.zeros((8, 8, 3), "uint8")] * 2, label=["left", "right"]
        )
        with pytest.raises(ModelError, match="task video-classification reads the columns video"):
            images.batches(loaded())

    def test_augmentation_is_for_images(self, few):
        with quiet(), pytest.raises(ArgumentError, match="augment= is for images, but the model"):
            few.batches(loaded(), shuffle=True, augment="flip")


class TestLoading:
    @pytest.mark.parametrize(
        ("options", "error", "told"),
        [
            ({"temporal": "sum"}, CheckpointError, "'temporal' has the value 'sum'"),
            ({"frames": 0}, ArgumentError, "frames must be an integer >= 1"),
            ({"frames": 2}, CheckpointError, "at least 3 for temporal='convolution'"),
            (
                {"frames": 1, "temporal": "difference"},
                CheckpointError,
                "at least 2 for temporal='difference'",
            ),
        ],
    )
    def test_wrong_options(self, options, error, told):
        with pytest.raises(error) as raised:
            loaded(**options)
        assert told in str(raised.value)

    def test_options_of_clips_are_for_models_of_videos(self):
        with pytest.raises(CheckpointError, match="frames= and temporal= are for models of videos"):
            ft.load(RESNET, "image-classification", labels=CLASSES, frames=9)
        with pytest.raises(CheckpointError, match="videomae models read complete clips"):
            ft.load(VIDEOMAE, temporal="mean")

    def test_defaults(self):
        with quiet():
            model = ft.load(RESNET, VIDEO, labels=CLASSES, image_size=32)
        assert (model.config.num_frames, model.config.temporal) == (9, "convolution")


# This small model is random, so that it learns with a rate that would ruin a trained one.
@pytest.mark.filterwarnings("ignore:A learning rate of 0.001 usually ruins")
class TestVideoMAE:
    @pytest.mark.slow
    def test_it_learns(self):
        """It reads clips of six frames in tubelets of three."""
        train = squares("train", pairs=20, seed=1, frames=6, size=20)
        with quiet():
            model = ft.load(VIDEOMAE, VIDEO, labels=CLASSES, new_head=True)
            model.compile(keras.optimizers.Adam(1e-3))
            history = model.fit(train.batches(model, 10, shuffle=True), epochs=8, verbose=0)
        assert history.history["loss"][-1] < history.history["loss"][0]

    def test_another_number_of_frames(self):
        with quiet():
            model = ft.load(VIDEOMAE, frames=9)
        assert model.input_shape == (None, 9, 20, 20, 3)
        with pytest.raises(CheckpointError, match="multiples of the tubelet_size, 3"):
            ft.load(VIDEOMAE, frames=4)

    def test_another_size_needs_other_positions(self):
        with pytest.raises(
            CheckpointError, match="30 x 30 pixels, but the config key 'image_size'"
        ):
            ft.load(VIDEOMAE, image_size=30)
        with quiet():
            model = ft.load(VIDEOMAE, image_size=30, config={"image_size": [30, 30]})
        assert model.input_shape == (None, 6, 30, 30, 3)

    def test_biases_are_found_under_both_names(self, tmp_path):
        """Files of transformers have q_bias; a file with query.bias gives the same model."""
        from safetensors.numpy import load_file, save_file

        for path in VIDEOMAE.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        tensors = load_file(VIDEOMAE / "model.safetensors")
        assert "videomae.encoder.layer.0.attention.attention.q_bias" in tensors
        named = {
            name.replace("q_bias", "query.bias").replace("v_bias", "value.bias"): tensor
            for name, tensor in tensors.items()
        }
        save_file(named, tmp_path / "model.safetensors", {"format": "pt"})
        clips = np.stack(moving_squares(2, seed=0, frames=6, size=20)[0])
        with quiet():
            one, other = ft.load(VIDEOMAE), ft.load(tmp_path)
        assert np.abs(one.get_layer("block_0").attention.query.bias).max() > 0.1
        np.testing.assert_array_equal(one(clips), other(clips))

    @pytest.mark.slow
    def test_the_backbone_is_that_of_the_bare_model(self, tmp_path):
        torch = pytest.importorskip("torch")
        import transformers
        from references import pytorch_images

        bare = transformers.VideoMAEModel.from_pretrained(VIDEOMAE).eval()
        bare.save_pretrained(tmp_path)
        pytorch_images.write_preprocessor(tmp_path, (20, 20))
        with quiet():
            model = ft.load(tmp_path, VIDEO, labels=CLASSES)
        clips = np.stack(moving_squares(2, seed=0, frames=6, size=20)[0])
        with torch.no_grad():
            expected = bare(pytorch_images.normalized(clips)).last_hidden_state.numpy()
        hidden = keras.Model(model.input, model.get_layer("pooling").input)({PIXELS: clips})
        np.testing.assert_allclose(hidden, expected, atol=1e-5, rtol=1e-5)
