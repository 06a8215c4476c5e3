"""Exported models of images and texts give the model's own numbers in plain TensorFlow."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from conformance.harness import Case
from helpers_images import content
from helpers_pairs import CAPTIONS, COLORS, fused, pictures, write_clip

import finetune_tf as ft
from finetune_tf.errors import ModelError
from finetune_tf.messages import quiet

RETRIEVAL, ZERO_SHOT = "image-text-retrieval", "zero-shot-image-classification"
# Serving has TensorFlow and nothing else.
SERVE = """
import json, sys
sys.modules["keras"] = sys.modules["finetune_tf"] = None
import tensorflow as tf
served = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
given = tf.constant(json.loads(sys.argv[2]), tf.uint8)
print(json.dumps({name: rows.numpy().tolist() for name, rows in served(given).items()}))
"""


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "clip")


def served(model, folder, **options):
    """The function of an exported graph."""
    with quiet():
        loaded = tf.saved_model.load(model.export(folder / "served", **options))
    function = loaded.signatures["serving_default"]
    function.owner = loaded  # without it, the variables are gone
    return function


def tensors(inputs):
    return {name: tf.constant(rows) for name, rows in inputs.items()}


@pytest.mark.slow
@pytest.mark.parametrize("family", ["clip", slow("siglip"), slow("vision-text-dual-encoder")])
def test_both_towers_with_other_numbers_of_images_and_texts(family, tmp_path):
    case = Case.stored(f"{family}/{RETRIEVAL}", RETRIEVAL)
    model = case.load()
    function = served(model, tmp_path)
    full = {n: np.asarray(v) for n, v in model._complete_inputs(case.inputs).items()}
    found = function(**tensors({**full, "pixel_values": full["pixel_values"][1:]}))
    names = {"logits_per_image", "logits_per_text", "image_embeds", "text_embeds"}
    assert set(found) == names
    logits = case.expected["logits_per_image"][1:]
    np.testing.assert_allclose(found["logits_per_image"], logits, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found["logits_per_text"], np.transpose(found["logits_per_image"]))
    size = found["text_embeds"].shape[1]
    rows = case.expected["logits"]
    np.testing.assert_allclose(found["text_embeds"], rows[:, 1, :size], atol=1e-5)
    lengths = np.linalg.norm(rows[1:, 0, :size], axis=1, keepdims=True)
    np.testing.assert_allclose(found["image_embeds"], rows[1:, 0, :size] / lengths, atol=1e-5)


@pytest.mark.slow
def test_a_zero_shot_classifier_reads_images_alone(clip, tmp_path):
    with quiet():
        model = ft.load(clip, ZERO_SHOT, labels=COLORS, prompts=["a {} picture", "something {}"])
        folder = model.export(tmp_path / "served")
        predictions = ft.predict(model, image=pictures())
    pixels = np.stack([model.image_processor(picture) for picture in pictures()])
    done = subprocess.run(
        [sys.executable, "-c", SERVE, folder, json.dumps(pixels.tolist())],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert set(found) == {"logits", "probabilities"}
    expected = [list(prediction.probabilities.values()) for prediction in predictions]
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-6)
    stored = json.loads((folder / "config.json").read_text())
    assert stored["id2label"] == {"0": "red", "1": "blue", "2": "green"}


@pytest.mark.slow
def test_probabilities_of_siglip_are_independent(clip, tmp_path):
    case = Case.stored(f"siglip/{RETRIEVAL}", RETRIEVAL)
    with quiet():
        tokenizer = ft.load(clip, RETRIEVAL).tokenizer
        config = {"model_type": "siglip", "text_config": {**_SIGLIP, "vocab_size": 60}}
        config["vision_config"] = {**_SIGLIP, "image_size": 21, "patch_size": 7}
        model = ft.load(config, ZERO_SHOT, labels=COLORS, tokenizer=tokenizer)
        predictions = ft.predict(model, image=pictures())
    assert case.load().task.output_kind == model.task.output_kind == "independent_pairs"
    function = served(model, tmp_path)
    pixels = np.stack([model.image_processor(picture) for picture in pictures()])
    found = function(pixel_values=tf.constant(pixels))
    expected = [list(prediction.probabilities.values()) for prediction in predictions]
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-6)


_SIGLIP = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
_SIGLIP |= {"intermediate_size": 8}


@pytest.mark.slow
def test_a_zero_shot_classifier_of_files_in_less_precision(clip, tmp_path):
    options = {"labels": COLORS, "prompts": "a {} picture"}
    with quiet():
        model = ft.load(clip, ZERO_SHOT, dtype="mixed_bfloat16", **options)
        exact = ft.load(clip, ZERO_SHOT, dtype="float32", **options)
        expected = ft.predict(exact, image=pictures())
    function = served(model, tmp_path, image_bytes=True)
    assert [spec.name for spec in function.structured_input_signature[1].values()] == [
        "image_bytes"
    ]
    found = function(image_bytes=tf.constant([content(picture) for picture in pictures()]))
    probabilities = [list(prediction.probabilities.values()) for prediction in expected]
    np.testing.assert_allclose(found["probabilities"], probabilities, atol=1e-6)


@pytest.mark.slow
def test_files_with_texts(clip, tmp_path):
    with quiet():
        model = ft.load(clip, RETRIEVAL)
    texts = dict(model.tokenizer(CAPTIONS[:2], padding=True, return_tensors="tf"))
    function = served(model, tmp_path, image_bytes=True)
    found = function(image_bytes=tf.constant([content(picture) for picture in pictures()]), **texts)
    pixels = np.stack([model.image_processor(picture) for picture in pictures()])
    images = model.tower_rows("image")({"pixel_values": pixels})
    expected = np.asarray(images) @ np.transpose(model.tower_rows("text")(texts))
    np.testing.assert_allclose(found["logits_per_image"], expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "reads_files"),
    [("concatenation", False), slow("concatenation", True), slow("cross_attention", False)],
)
def test_a_classifier_of_images_with_texts(how, reads_files, tmp_path):
    model = fused(tmp_path / "bert", ["yes", "no"], how=how)
    inputs = dict(model.tokenizer(["the film was good", "bad"], padding=True, return_tensors="tf"))
    pixels = np.stack([model.image_processor(picture) for picture in pictures()[:2]])
    expected = model({**inputs, "pixel_values": pixels})
    images = {"pixel_values": tf.constant(pixels)}
    if reads_files:
        images = {"image_bytes": tf.constant([content(picture) for picture in pictures()[:2]])}
    found = served(model, tmp_path, image_bytes=reads_files)(**images, **inputs)
    assert set(found) == {"logits"}
    np.testing.assert_allclose(found["logits"], expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "output"),
    [("image-feature-extraction", "pooler_output"), ("feature-extraction", "sentence_embedding")],
)
def test_a_tower_alone(task, output, clip, tmp_path):
    with quiet():
        model = ft.load(clip, task)
        both = ft.load(clip, RETRIEVAL)
    if task == "feature-extraction":
        inputs = dict(both.tokenizer(CAPTIONS, padding=True, return_tensors="tf"))
        rows = both.tower_rows("text")(inputs)
    else:
        pixels = np.stack([both.image_processor(picture) for picture in pictures()])
        inputs = {"pixel_values": tf.constant(pixels)}
        rows = both.tower_rows("image")(inputs)
    found = served(model, tmp_path)(**inputs)
    assert set(found) == {output}
    lengths = [np.linalg.norm(each, axis=1, keepdims=True) for each in (found[output], rows)]
    np.testing.assert_allclose(found[output] / lengths[0], rows / lengths[1], atol=1e-5)


@pytest.mark.slow  # for the package openvino, which the everyday tests do without
@pytest.mark.parametrize("task", [RETRIEVAL, ZERO_SHOT])
def test_openvino_gives_the_same_numbers(task, clip, tmp_path):
    openvino = pytest.importorskip("openvino")
    with quiet():
        model = ft.load(clip, task, **({"labels": COLORS} if task == ZERO_SHOT else {}))
        folder = model.export(tmp_path / "served", format="openvino")
    engine = openvino.Core().compile_model(
        folder / "openvino_model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    pixels = np.stack([model.image_processor(picture) for picture in pictures()])
    inputs = {"pixel_values": pixels}
    if task == RETRIEVAL:
        inputs |= dict(model.tokenizer(CAPTIONS[:2], padding=True, return_tensors="np"))
        inputs = {n: v.astype("int32") if v.dtype == "int64" else v for n, v in inputs.items()}
    found = engine(inputs).to_dict()
    outputs = {name: rows for port, rows in found.items() for name in port.names}
    expected = served(model, tmp_path)(**tensors(inputs))
    assert set(outputs) == set(expected)
    for name, rows in expected.items():
        np.testing.assert_allclose(outputs[name], rows, atol=1e-5)


def test_graphs_that_cannot_read_files(clip, tmp_path):
    with quiet(), pytest.raises(ModelError, match="OpenVINO does not decode images. Export ima"):
        ft.load(clip, RETRIEVAL).export(tmp_path, "openvino", image_bytes=True)
