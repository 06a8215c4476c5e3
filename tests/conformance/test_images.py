"""Compares every family of images with PyTorch, by the same checks as the families of texts.

Small odd models are made here, since PyTorch is installed where the slow tests run; one of each
kind is stored, with what PyTorch gives for it, for the everyday tests.
"""

import json

import numpy as np
import pytest

from conformance import harness
from conformance.harness import Case

CLASSES, FEATURES = "image-classification", "image-feature-extraction"
FAMILIES = ("vit", "deit", "dinov2", "resnet", "convnext", "swin", "mobilenet_v1", "mobilenet_v2")
STORED = ("vit", "resnet")


@pytest.fixture(scope="module", params=STORED)
def stored(request):
    return Case.stored(f"{request.param}/{CLASSES}", CLASSES)


@pytest.fixture(scope="module")
def model(stored):
    return stored.load()


def test_logits(model, stored):
    harness.check_logits(model, stored)


def test_gradients(model, stored):
    harness.check_gradients(model, stored)


def test_load_report(stored, capsys):
    harness.check_report(stored, capsys)


def test_stages(model):
    harness.check_stages(model)


def test_splits_between_all_stages(model, stored):
    harness.check_splits(model, stored)


def test_an_image_does_not_depend_on_its_batch(model, stored):
    harness.check_batch(model, stored)


def test_bfloat16(stored):
    harness.check_bfloat16(stored)


def test_saved_folder_loads(model, stored, tmp_path):
    harness.check_saved(model, stored, tmp_path)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_keras_file(model, stored, tmp_path):
    harness.check_keras_file(model, stored, tmp_path)


def test_five_training_steps(stored):
    harness.check_training(stored.load(), stored, run_eagerly=True)


@pytest.mark.slow
def test_one_compiled_graph(stored):
    harness.check_compiled(stored)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [None, *range(4)])
@pytest.mark.parametrize("task", [CLASSES, FEATURES])
@pytest.mark.parametrize("family", FAMILIES)
def test_any_configuration_against_pytorch(family, task, seed, tmp_path):
    pytest.importorskip("torch")
    from references import pytorch, pytorch_images

    config, size = pytorch_images.config_of(family, task, seed)
    torch_model = pytorch_images.make_model(family, task, config, seed or 0)
    pytorch.save(torch_model, config, tmp_path)
    pytorch_images.write_preprocessor(tmp_path, size)
    inputs = pytorch_images.make_inputs(torch_model.config, task, seed or 0, size)
    case = Case(tmp_path, task, pytorch_images.record(torch_model, task, inputs, steps=20))

    model = case.load()
    harness.check_logits(model, case)
    harness.check_gradients(model, case)
    harness.check_stages(model)
    harness.check_splits(model, case)
    saved = harness.check_saved(model, case, tmp_path)
    again = (
        pytorch_images.FAMILIES[family]
        .models[task]
        .from_pretrained(saved, attn_implementation="eager", output_loading_info=True)
    )
    report = again[1]
    missing = [name for name in report["missing_keys"] if "relative_position_index" not in name]
    assert not missing and not report["unexpected_keys"] and not report["mismatched_keys"], report
    pixels = pytorch_images.normalized(case.expected["pixel_values"])
    found = pytorch_images.outputs(again[0].eval(), task, pixels)
    harness.close(found, case.expected["logits"])
    assert json.loads((saved / "preprocessor_config.json").read_text())["image_mean"] == list(
        pytorch_images.MEAN
    )
    harness.check_training(model, case, run_eagerly=True)


def test_levels_are_normalised_in_float32(model, stored):
    """The first layer computes what an image processor of transformers does."""
    pixels = stored.expected["pixel_values"]
    layer = model.get_layer("pixels")
    mean, stddev = (np.float32(layer.get_config()[key]) for key in ("mean", "stddev"))
    expected = (pixels.astype("float32") / 255 - mean) / stddev
    np.testing.assert_allclose(np.asarray(layer(pixels)), expected, rtol=1e-6, atol=1e-6)
