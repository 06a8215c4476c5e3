"""Tests of image-text retrieval: contrastive training on pairs, and search among all of them."""

import json

import keras
import numpy as np
import pytest
from helpers_images import levels, write_image
from helpers_towers import write_towers

import finetune_tf as ft
from finetune_tf.errors import CheckpointError, DataError, ModelError
from finetune_tf.messages import quiet
from finetune_tf.serving.predictor import Predictor
from finetune_tf.tasks.image_pairs import matching_groups
from finetune_tf.tasks.image_text_retrieval import found_within

TASK = "image-text-retrieval"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_towers(tmp_path_factory.mktemp("towers") / "clip")


@pytest.fixture(scope="module")
def model(folder):
    with quiet():
        return ft.load(folder, TASK)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Two captions for each of six images."""
    images = tmp_path_factory.mktemp("images")
    rows = []
    for color in ("red", "blue", "green"):
        for seed in (0, 1):
            path = str(write_image(images / f"{color}{seed}.png", color, seed))
            rows += [(path, f"a {color} square {'.' * seed}"), (path, f"this is {color} {seed}")]
    paths, texts = zip(*rows, strict=True)
    return ft.data.from_arrays(text=list(texts), image=list(paths))


@pytest.mark.slow
def test_vectors_of_images_and_of_texts(model):
    image, text = levels("red"), "a red square"
    image_row, text_row = ft.predict(model, image=image), ft.predict(model, text)
    assert np.linalg.norm(text_row) == pytest.approx(1.0, rel=1e-5)
    logit = ft.predict(model, [text], image=[image])[0]
    assert logit == pytest.approx(float(image_row @ text_row), rel=1e-5)


@pytest.mark.slow
def test_the_encoder_of_texts_alone(tmp_path):
    """SigLIP was trained on texts of full length, and pools their last token."""
    folder, texts = write_towers(tmp_path / "siglip", "siglip"), ["a red square", "this is blue"]
    with quiet():
        both, alone = ft.load(folder, TASK), ft.load(folder, "feature-extraction")
    rows, vectors = np.asarray(ft.predict(both, texts)), ft.predict(alone, texts)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors, rows[:, :-1], atol=1e-5)  # the last feature is a 1
    for cut in (
        lambda: ft.load(folder, TASK, max_length=5),
        lambda: ft.data.from_arrays(texts).encoded(alone, max_length=5),
        lambda: Predictor(alone, max_length=5),
    ):
        with pytest.raises(ModelError, match="max_length=5 would change the vectors of all texts"):
            cut()
    with pytest.raises(ModelError, match="siglip reads texts with padding to the maximum length"):
        alone.export(tmp_path / "served", strings=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:A learning rate of 0.02 usually ruins")
def test_contrastive_training(folder, pairs):
    keras.utils.set_random_seed(0)
    with quiet():
        model = ft.load(folder, TASK)
        before = ft.evaluate(model, pairs)
        model.compile(**ft.presets.contrastive(learning_rate=2e-2))
        history = model.fit(pairs.batches(model, 12, shuffle=True), epochs=60, verbose=0)
        after = ft.evaluate(model, pairs, baseline="chance", train=pairs)
    losses = history.history["loss"]
    assert losses[-1] < losses[0]
    assert after.metrics["text_to_image_recall@5"] >= before.metrics["text_to_image_recall@5"]
    assert after.difference.low <= after.difference.value <= after.difference.high
    assert [d.metric for d in after.further_differences] == [
        "image_to_text_recall@5",
        "text_to_image_recall@1",
        "text_to_image_recall@5",
    ]


def test_chance_is_the_share_of_matches(model, pairs):
    report = ft.evaluate(model, pairs, baseline="chance", train=pairs)
    chance = report.baseline.metrics
    # Twelve texts, two of which match an image; six images, one of which matches a text.
    assert chance["image_to_text_recall@1"] == pytest.approx(2 / 12)
    assert chance["text_to_image_recall@1"] == pytest.approx(1 / 6)
    assert chance["text_to_image_recall@5"] == pytest.approx(5 / 6)
    missed = np.prod([(10 - i) / (12 - i) for i in range(5)])
    assert chance["image_to_text_recall@5"] == pytest.approx(1 - missed)


def test_recall_by_hand():
    images = np.eye(3)[[0, 0, 1, 2]]  # the first image has two texts
    texts = np.array([[0.9, 0.1, 0.0], [0.0, 0.2, 0.9], [0.1, 0.8, 0.0], [0.0, 0.3, 0.7]])
    groups = matching_groups(["1", "1", "2", "3"], ["a", "b", "c", "d"])
    rows = np.stack([images, texts], axis=1)
    found = found_within(rows, groups, np.array([0, 0, 1, 2]), np.arange(4))
    assert found[:, 0].tolist() == [1, 1, 1, 0]  # the second text fits the last image better
    assert found[:, 2].tolist() == [1, 0, 1, 1]
    assert found[:, [1, 3]].all()


def test_an_equal_wrong_candidate_counts_as_better():
    same = np.ones((2, 2, 4))
    found = found_within(same, np.arange(2), np.arange(2), np.arange(2))
    assert not found[:, [0, 2]].any()
    assert found[:, [1, 3]].all()  # but a match is not lost, because another one has its vector


def test_an_image_is_one_candidate_though_its_vectors_differ_in_their_last_digits():
    """Rows of batches of different sizes are not equal bit by bit."""
    random = np.random.default_rng(0)
    vectors = np.eye(3)[np.repeat(np.arange(3), 4)]  # three images with four texts each
    images = vectors + random.uniform(0, 1e-7, vectors.shape)
    texts = images[:, [1, 2, 0]]  # the texts of an image fit the next image best
    numbers = np.repeat(np.arange(3), 4)
    found = found_within(np.stack([images, texts], axis=1), numbers, numbers, np.arange(12))
    assert found[:, 3].all() and not found[:, 2].any()  # there are only three images


@pytest.mark.parametrize("bad", [{"image": None}, {"text": None}])
def test_measures_need_both(model, pairs, bad):
    columns = {k: v for k, v in pairs.columns.items() if k not in bad}
    with pytest.raises(DataError, match="has no text|is measured on images with texts"):
        ft.evaluate(model, ft.data.Examples(columns))


def test_images_alone_are_nothing_to_train_on(model, pairs):
    images = ft.data.Examples({"image": pairs.columns["image"]})
    with quiet():
        model.compile()
    with pytest.raises((ModelError, DataError), match="text"):
        model.fit(images.batches(model, 4), verbose=0)


def test_a_call_needs_images_and_texts(model):
    with pytest.raises(ModelError, match="expects the inputs pixel_values and input_ids"):
        model({"input_ids": np.array([[1, 7]])})


def test_a_caption_without_a_picture():
    with pytest.raises(DataError, match="has rows without an image"):
        ft.data.from_arrays(text=["a red square", "blue"], image=[levels("red"), None])


def test_a_picture_without_a_caption():
    with pytest.raises(DataError, match="text"):
        ft.data.from_arrays(text=["a red square", ""], image=[levels("red"), levels("blue")])


def test_towers_of_other_widths(tmp_path):
    folder = write_towers(tmp_path / "siglip", "siglip")
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["text_config"]["projection_size"] = 5
    path.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="texts have 5 features .* those of images 8"):
        ft.load(folder, TASK)


@pytest.mark.parametrize("tower", ["vision_config", "text_config"])
def test_an_unknown_encoder(tower, tmp_path):
    folder = write_towers(tmp_path / "dual", "vision-text-dual-encoder")
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config[tower]["model_type"] = "resnext"
    path.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=f"'{tower}' has the model_type 'resnext'"):
        ft.load(folder, TASK)


def test_settings_of_a_processor_in_one_file(tmp_path):
    """transformers 5 writes those of images and of texts together."""
    folder = write_towers(tmp_path / "clip")
    path = folder / "preprocessor_config.json"
    content = json.loads(path.read_text())
    path.unlink()
    both = {"image_processor": content, "processor_class": "CLIPProcessor"}
    (folder / "processor_config.json").write_text(json.dumps(both))
    with quiet():
        model = ft.load(folder, TASK)
    assert model.image_processor.output_size == (21, 21)
    assert list(model.image_processor.values["image_mean"]) == content["image_mean"]


@pytest.mark.slow
def test_values_of_an_encoder_under_its_early_key(tmp_path):
    folder = write_towers(tmp_path / "clip")
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["text_config_dict"], config["text_config"] = config["text_config"], {"hidden_size": 5}
    path.write_text(json.dumps(config))
    with quiet():
        model = ft.load(folder, TASK)
    assert model.config.text_config["hidden_size"] == 12


def test_a_config_of_an_encoder_that_is_a_list(tmp_path):
    folder = write_towers(tmp_path / "clip")
    path = folder / "config.json"
    config = json.loads(path.read_text()) | {"text_config": [12]}
    path.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="'text_config' has to be the config of an encoder"):
        ft.load(folder, TASK)


def test_the_path_of_an_image_is_no_text(model, tmp_path):
    path = str(write_image(tmp_path / "1.png"))
    with pytest.raises(DataError, match="is given as a text, but is the path of a file"):
        ft.predict(model, [path])


def test_metrics_of_classifiers_do_not_fit(model):
    with pytest.raises(ModelError, match="does not fit the model, which returns rows of pairs"):
        model.compile(metrics=["accuracy"])


def test_a_loss_of_classifiers_does_not_fit(model):
    with pytest.raises(ModelError, match=r"presets.contrastive\(\)"):
        model.compile(loss="sparse_categorical_crossentropy")


def test_a_clip_becomes_a_retriever_without_labels_and_a_classifier_with_them(folder):
    with quiet():
        assert ft.load(folder).task.name == TASK
        assert ft.load(folder, labels=["a", "b"]).task.name == "zero-shot-image-classification"
