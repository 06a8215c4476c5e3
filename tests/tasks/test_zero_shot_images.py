"""Tests of zero-shot image classification: labels as texts."""

import json

import keras
import numpy as np
import pytest
from helpers_images import levels, write_classes, write_image
from helpers_towers import write_towers

import finetune_tf as ft
from finetune_tf.errors import ArgumentError, CheckpointError, DataError, ModelError
from finetune_tf.messages import quiet

TASK = "zero-shot-image-classification"
LABELS = ["red", "blue", "green square"]
IMAGES = [levels("red"), levels("blue", seed=1), levels("green", seed=2)]


@pytest.fixture(scope="module", params=["clip", "siglip"])
def folder(request, tmp_path_factory):
    return write_towers(tmp_path_factory.mktemp("towers") / request.param, request.param)


@pytest.fixture(scope="module")
def model(folder):
    with quiet():
        return ft.load(folder, TASK, labels=LABELS)


def logits_by_hand(model, images, texts):
    """The logits of the complete model, which reads as many images as texts."""
    examples = ft.data.from_arrays(text=texts, image=images)
    with quiet():
        pairs = ft.load(model.info.checkpoint, "image-text-retrieval")
    (inputs, _) = next(iter(examples.batches(pairs, len(texts))))
    rows = np.asarray(pairs(inputs))
    return rows[:, 0] @ rows[:, 1].T


@pytest.mark.slow
def test_scores_are_those_of_the_complete_model(model):
    texts = [f"This is a photo of {label}." for label in LABELS]
    logits = logits_by_hand(model, IMAGES, texts)
    for image, row in zip(IMAGES, logits, strict=True):
        found = ft.predict(model, image)
        if model.config.model_type == "siglip":
            expected = 1 / (1 + np.exp(-row))
        else:
            expected = np.exp(row) / np.exp(row).sum()
        np.testing.assert_allclose(list(found.probabilities.values()), expected, rtol=1e-5)
        assert found.label == LABELS[row.argmax()]


@pytest.mark.slow
def test_several_prompts_are_averaged(folder):
    prompts = ["a photo of {}", "a {} picture"]
    with quiet():
        model = ft.load(folder, TASK, labels=LABELS, prompts=prompts)
    (found,) = ft.predict(model, [IMAGES[0]])
    vectors = []
    for prompt in prompts:
        with quiet():
            single = ft.load(folder, "image-text-retrieval")
        texts = [prompt.format(label) for label in LABELS]
        vectors.append(np.array(ft.predict(single, texts)))
    image = np.array(ft.predict(single, image=[IMAGES[0]])[0])
    means = (vectors[0] + vectors[1]) / 2
    if model.config.model_type == "siglip":
        means[:, :-1] /= np.linalg.norm(means[:, :-1], axis=1, keepdims=True)
        expected = 1 / (1 + np.exp(-(means @ image)))
    else:
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        exponents = np.exp(means @ image)
        expected = exponents / exponents.sum()
    np.testing.assert_allclose(list(found.probabilities.values()), expected, rtol=1e-4)


@pytest.mark.slow
def test_labels_and_prompts_are_saved(model, folder, tmp_path):
    with quiet():
        model = ft.load(folder, TASK, labels=LABELS, prompts="a {}")
        again = ft.load(model.save_pretrained(tmp_path / "saved"))
    assert again.task.name == TASK and tuple(again.labels) == tuple(LABELS)
    assert again.task.prompts == ("a {}",)
    expected = ft.predict(model, IMAGES[0]).probabilities
    assert ft.predict(again, IMAGES[0]).probabilities == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:A learning rate of 0.01 usually ruins")
def test_training_on_labelled_images(folder, tmp_path):
    keras.utils.set_random_seed(0)
    train = ft.data.from_image_folder(write_classes(tmp_path / "images", count=8))
    with quiet():
        model = ft.load(folder, TASK, labels=train.labels)
        model.compile(**ft.presets.PRESETS[model.task.output_kind](learning_rate=1e-2))
        history = model.fit(train.batches(model, 4, shuffle=True), epochs=12, verbose=0)
        report = ft.evaluate(model, train)
    assert history.history["loss"][-1] < history.history["loss"][0]
    assert report.metrics["accuracy"] == 1.0


@pytest.mark.slow
def test_frozen_towers_are_computed_once(folder, tmp_path):
    train = ft.data.from_image_folder(write_classes(tmp_path / "images", count=4))
    with quiet():
        model = ft.load(folder, TASK, labels=train.labels)
        ft.train_only(model, ft.select.head())
        learner = ft.cache_features(model)
        inputs, groups = next(iter(train.batches(learner, 8)))
        whole = model(next(iter(train.batches(model, 8)))[0])
    assert all("pixel" not in name and name != "input_ids" for name in inputs)
    np.testing.assert_allclose(learner(inputs), whole, rtol=1e-5, atol=1e-5)
    assert sorted(np.unique(groups)) == [0, 1]
    rows = ft.predict(learner, train), ft.predict(model, train)
    assert [each.label for each in rows[0]] == [each.label for each in rows[1]]


@pytest.mark.slow
def test_other_labels_on_the_same_layers(folder, model):
    other = model.with_labels(["green square", "red"], prompts="a {}")
    with quiet():
        loaded = ft.load(folder, TASK, labels=["green square", "red"], prompts="a {}")
    found, expected = (ft.predict(each, IMAGES[0]).probabilities for each in (other, loaded))
    assert found == pytest.approx(expected, rel=1e-6)
    assert tuple(model.labels) == tuple(LABELS) and model.task.prompts != other.task.prompts
    assert other.get_layer("image") is model.get_layer("image")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:A learning rate of 0.01 usually ruins")
def test_what_fine_tuning_costs_on_other_labels(folder, tmp_path):
    keras.utils.set_random_seed(0)
    new = ft.data.from_image_folder(write_classes(tmp_path / "new", count=6))
    colors = ("red", "green", "blue")
    old = ft.data.from_image_folder(write_classes(tmp_path / "old", count=3, colors=colors))
    with quiet():
        before, after = (ft.load(folder, TASK, labels=new.labels) for _ in range(2))
        after.compile(**ft.presets.PRESETS[after.task.output_kind](learning_rate=1e-2))
        after.fit(new.batches(after, 4, shuffle=True), epochs=10, verbose=0)
        curve = ft.interpolation_curve(before, after, {"new": new, "old": old}, shares=[0.5])
        middle = ft.interpolate(before, after, 0.5).with_labels(old.labels)
        report = ft.evaluate(middle, old)
    points = {(point.name, point.share): point.metrics for point in curve.points}
    assert points["new", 1.0]["accuracy"] == 1.0
    assert points["old", 0.5]["accuracy"] == report.metrics["accuracy"]


def test_a_trained_head_fixes_the_labels(tiny_bert):
    with quiet():
        classifier = ft.load(tiny_bert, labels=["bad", "good"])
    with pytest.raises(ModelError, match="are those of its head"):
        classifier.with_labels(["yes", "no"])


def test_a_prompt_needs_a_place_for_the_label(folder):
    with pytest.raises(ArgumentError, match="with {} in the place of the label"):
        ft.load(folder, TASK, labels=LABELS, prompts=["a photo of {}", "a photo"])
    with pytest.raises(CheckpointError, match="'prompts' has the value"):
        ft.load(folder, TASK, labels=LABELS, config={"prompts": ["a photo"]})


def test_prompts_are_for_labels_that_are_texts(folder):
    with pytest.raises(ArgumentError, match="prompts= is for the task 'zero-shot"):
        ft.load(folder, "image-text-retrieval", prompts="a {}")


@pytest.mark.parametrize("labels", [None, 3, ["cat"]])
def test_labels_have_names(folder, labels):
    with pytest.raises(ModelError, match="needs the names of at least two labels"):
        ft.load(folder, TASK, labels=labels)


def test_texts_are_no_images(model):
    with pytest.raises(DataError, match="names files that do not exist"):
        ft.predict(model, ["a red square"])


def test_a_label_that_the_model_lacks(model, tmp_path):
    image = write_image(tmp_path / "1.png")
    examples = ft.data.from_arrays(image=[str(image), str(image)], label=["red", "pink"])
    with pytest.raises(DataError, match="pink"):
        examples.batches(model, 2)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_pipeline_of_transformers(family, tmp_path):
    """The scores of the pipeline for the same files."""
    pytest.importorskip("torch")
    import transformers
    from PIL import Image
    from references import pytorch, pytorch_towers

    folder = write_towers(tmp_path / family, family)
    if family == "siglip":  # the pipeline pads texts to 64 tokens
        config, _ = pytorch_towers.config_of(family, None)
        config["text_config"]["max_position_embeddings"] = 64
        pytorch.save(pytorch_towers.make_model(family, config, 5), config, folder)
    content = json.loads((folder / "preprocessor_config.json").read_text())
    processor = transformers.ViTImageProcessor(**content)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, model_max_length=64)
    tokenizer.save_pretrained(folder)
    theirs = transformers.AutoModel.from_pretrained(folder).eval()
    pipeline = transformers.pipeline(
        TASK, model=theirs, tokenizer=tokenizer, image_processor=processor
    )
    with quiet():
        model = ft.load(folder, TASK, labels=LABELS)
    for image in IMAGES:
        expected = pipeline(Image.fromarray(image), candidate_labels=LABELS)
        found = ft.predict(model, image).probabilities
        assert found == pytest.approx({row["label"]: row["score"] for row in expected}, abs=1e-5)
