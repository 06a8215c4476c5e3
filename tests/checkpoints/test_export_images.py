"""Exported image models take levels of pixels and are served by TensorFlow alone."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from helpers_images import TINY_VIT, content

import finetune_tf as ft
from finetune_tf.errors import ModelError
from finetune_tf.messages import quiet

CONFIG = {"model_type": "resnet", "embedding_size": 4, "hidden_sizes": [8], "depths": [1]}
PIXELS = np.random.default_rng(0).integers(0, 256, (2, 33, 33, 3)).astype("uint8")
# Serving has TensorFlow and nothing else.
SERVE = """
import json, sys
sys.modules["keras"] = sys.modules["finetune_tf"] = None
import tensorflow as tf
served = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
given = tf.constant(json.loads(sys.argv[2]), tf.uint8)
print(json.dumps({name: rows.numpy().tolist() for name, rows in served(given).items()}))
"""


def resnet(task, **options):
    with quiet():
        return ft.load(CONFIG, task, image_size=33, **options)


@pytest.mark.slow
def test_tensorflow_serves_a_classifier_alone(tmp_path):
    model = resnet("image-classification", labels=["cat", "dog"])
    with quiet():
        folder = model.export(tmp_path / "served")
    done = subprocess.run(
        [sys.executable, "-c", SERVE, folder, json.dumps(PIXELS.tolist())],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert set(found) == {"logits"}
    np.testing.assert_allclose(found["logits"], model(PIXELS), atol=1e-6)
    assert json.loads((folder / "config.json").read_text())["id2label"] == {"0": "cat", "1": "dog"}
    stored = json.loads((folder / "preprocessor_config.json").read_text())
    assert stored == model.info.image_processor


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_features_are_served_in_float32_for_any_number_of_images(dtype, tmp_path):
    model = resnet("image-feature-extraction", dtype=dtype)
    exact = resnet("image-feature-extraction", dtype="float32")
    exact.set_weights(model.get_weights())
    with quiet():
        served = tf.saved_model.load(model.export(tmp_path / "served"))
    served = served.signatures["serving_default"]
    (spec,) = served.structured_input_signature[1].values()
    assert spec.dtype == tf.uint8 and spec.shape.as_list() == [None, 33, 33, 3]
    for pixels in (PIXELS, PIXELS[:1]):
        found = served(pixel_values=tf.constant(pixels))
        assert set(found) == {"pooler_output"}
        np.testing.assert_allclose(found["pooler_output"], exact(pixels), atol=1e-6)


@pytest.mark.slow
def test_a_graph_that_reads_files(tmp_path):
    """It decodes and prepares images as the model's own processor does, several at once."""
    with quiet():
        model = ft.load(TINY_VIT)
        folder = model.export(tmp_path / "served", image_bytes=True)
    served = tf.saved_model.load(folder).signatures["serving_default"]
    (spec,) = served.structured_input_signature[1].values()
    assert (spec.name, spec.dtype, spec.shape.as_list()) == ("image_bytes", tf.string, [None])
    photo = np.random.default_rng(0).integers(0, 256, (9, 5, 3)).astype("uint8").repeat(9, 0)
    files = [content(photo), content(photo.repeat(3, 1), "JPEG"), content(photo[:, :1])]
    found = served(image_bytes=tf.constant(files))["logits"]
    pixels = np.stack([model.image_processor(file) for file in files])
    np.testing.assert_allclose(found, model(pixels), atol=1e-6)
    assert served(image_bytes=tf.constant([], tf.string))["logits"].shape == (0, 3)


def test_graphs_that_cannot_read_files(tiny_bert, tmp_path):
    with quiet():
        with pytest.raises(ModelError, match="The model reads texts, since bert is no family"):
            ft.load(tiny_bert).export(tmp_path, image_bytes=True)
        with pytest.raises(ModelError, match="OpenVINO does not decode images. Export image_byte"):
            ft.load(TINY_VIT).export(tmp_path, "openvino", image_bytes=True)
    assert not list(tmp_path.iterdir())
