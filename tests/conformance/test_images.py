"""Compares every family of images with PyTorch, by the same checks as the families of texts.

Small odd models are made here, since PyTorch is installed where the slow tests run; one of each
kind is stored, with what PyTorch gives for it, for the everyday tests.
"""

import copy
import json

import numpy as np
import pytest
from references.image_configs import DRAWS, config_of

from conformance import harness
from conformance.harness import Case
from finetune_tf.families import FAMILIES as ROWS
from finetune_tf.messages import quiet

CLASSES, FEATURES = "image-classification", "image-feature-extraction"
VIDEOS = "video-classification"
FAMILIES = ("vit", "deit", "dinov2", "resnet", "convnext", "swin", "mobilenet_v1", "mobilenet_v2")
TASKS_OF = {family: (CLASSES, FEATURES) for family in FAMILIES} | {"videomae": (VIDEOS,)}
PAIRS = [(family, task) for family, tasks in TASKS_OF.items() for task in tasks]
STORED = (("vit", CLASSES), ("resnet", CLASSES), ("videomae", VIDEOS))
SEEDS = 20  # configurations of each family and task
TRAINED = 2  # of these are also split, loaded again and trained, which takes most of the time
# Keys of which models have only one value, and those that only matter in training.
WITHOUT_EFFECT = ("num_channels", "initializer_range", "hidden_dropout_prob")
WITHOUT_EFFECT += ("attention_probs_dropout_prob", "classifier_dropout_prob")


@pytest.fixture(scope="module", params=STORED)
def stored(request):
    family, task = request.param
    return Case.stored(f"{family}/{task}", task)


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


@pytest.mark.slow
def test_five_training_steps(stored):
    harness.check_training(stored.load(), stored, run_eagerly=True)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [None, *range(SEEDS)])
@pytest.mark.parametrize(("family", "task"), PAIRS)
def test_any_configuration_against_pytorch(family, task, seed, tmp_path):
    """Logits, gradients and both directions of all configurations; some are also trained."""
    pytest.importorskip("torch")
    is_trained = seed is None or seed < TRAINED
    case = random_case(family, task, seed, tmp_path, steps=20 if is_trained else 0)
    model = case.load()
    harness.check_logits(model, case)
    harness.check_rounded_gradients(model, case)
    harness.check_stages(model)
    with quiet():
        saved = model.save_pretrained(tmp_path / "saved")
    check_opens_in_pytorch(saved, case, family)
    if is_trained:
        harness.check_splits(model, case)
        harness.check_saved(model, case, tmp_path / "again")
        harness.check_training(model, case, run_eagerly=True)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "task"), PAIRS)
def test_one_compiled_graph_and_bfloat16(family, task, tmp_path):
    """Of the fixed configuration, whose outputs the test above compares with PyTorch's."""
    pytest.importorskip("torch")
    case = random_case(family, task, None, tmp_path)
    harness.check_compiled(case)
    harness.check_bfloat16(case)


ON_JAX = """
import json, sys
from pathlib import Path
import keras, numpy as np
from conformance import harness

for folder, task in json.loads(sys.argv[1]):
    with np.load(Path(folder) / "expected.npz") as arrays:
        case = harness.Case(Path(folder), task, dict(arrays))
    model = case.load()
    harness.check_logits(model, case)
    if len(case.expected["losses"]):
        harness.check_training(model, case)
print(keras.backend.backend(), len(json.loads(sys.argv[1])))
"""


@pytest.mark.slow
def test_jax_computes_the_same(tmp_path):
    """The outputs of every family and task, and the training of a convolutional model."""
    pytest.importorskip("jax")
    pytest.importorskip("torch")
    folders = []
    for family, task in PAIRS:
        folder = tmp_path / family / task
        steps = 20 if (family, task) == ("resnet", CLASSES) else 0
        case = random_case(family, task, None, folder, steps)
        np.savez(folder / "expected.npz", **case.expected)
        folders.append((str(folder), task))
    harness.check_on_jax(ON_JAX, folders)


def random_case(family, task, seed, folder, steps=0):
    """Writes a model of PyTorch, and computes what it gives."""
    from references import pytorch, pytorch_images

    config, size = pytorch_images.config_of(family, task, seed)
    torch_model = pytorch_images.make_model(family, task, config, seed or 0)
    pytorch.save(torch_model, config, folder)
    pytorch_images.write_preprocessor(folder, size)
    inputs = pytorch_images.make_inputs(torch_model.config, task, seed or 0, size)
    exact = pytorch_images.gradients_of(copy.deepcopy(torch_model).double(), task, inputs)
    expected = pytorch_images.record(torch_model, task, inputs, steps)
    expected |= {f"float64/{name}": gradient for name, gradient in exact.items()}
    return Case(folder, task, expected)


def check_opens_in_pytorch(saved, case, family):
    """Checks that PyTorch finds every tensor in a saved folder, and computes the same outputs."""
    from references import pytorch_images

    kind = pytorch_images.FAMILIES[family].models[case.task]
    model, report = kind.from_pretrained(
        saved, attn_implementation="eager", output_loading_info=True
    )
    missing = [name for name in report["missing_keys"] if "relative_position_index" not in name]
    assert not missing and not report["unexpected_keys"] and not report["mismatched_keys"], report
    pixels = pytorch_images.normalized(case.expected["pixel_values"])
    found = pytorch_images.outputs(model.eval(), case.task, pixels)
    harness.close(found, case.expected["logits"])
    processor = json.loads((saved / "preprocessor_config.json").read_text())
    assert processor["image_mean"] == list(pytorch_images.MEAN)


@pytest.mark.parametrize("family", TASKS_OF)
def test_random_configurations_vary_every_key(family):
    """Every key that changes results has several values among the seeds."""
    configs = [config_of(family, task, s) for task in TASKS_OF[family] for s in range(SEEDS)]
    values = {}
    for config, size in configs:
        for key, value in [*config.items(), ("size", size)]:
            values.setdefault(key, set()).add(str(value))
    row = ROWS[family]
    required = set(row.defaults) - {*WITHOUT_EFFECT, *row.own_keys}
    if family in ("convnext", "mobilenet_v1", "mobilenet_v2"):
        required -= {"image_size"}  # only the size of the images themselves counts
    assert {key for key in {*required, "size"} if len(values.get(key, ())) < 2} == set()
    for key, possible in DRAWS[family].items():
        assert values[key] == set(map(str, possible)), key


def test_levels_are_normalised_in_float32(model, stored):
    """The first layer computes what an image processor of transformers does."""
    pixels = stored.expected["pixel_values"]
    layer = model.get_layer("pixels")
    mean, stddev = (np.float32(layer.get_config()[key]) for key in ("mean", "stddev"))
    expected = (pixels.astype("float32") / 255 - mean) / stddev
    np.testing.assert_allclose(np.asarray(layer(pixels)), expected, rtol=1e-6, atol=1e-6)
