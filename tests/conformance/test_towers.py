"""Compares models of two towers with PyTorch, by the same checks as the other families.

Small odd models are made here, since PyTorch is installed where the slow tests run; one of each
family is stored, with what PyTorch gives for it, for the everyday tests.
"""

import copy
import json

import numpy as np
import pytest

from conformance import harness
from conformance.harness import Case
from finetune_tf.messages import quiet
from finetune_tf.tasks.image_pairs import logits_of

TASK = "image-text-retrieval"
FAMILIES = ("clip", "siglip", "vision-text-dual-encoder")
SEEDS = 20  # configurations of each family
TRAINED = 2  # of these are also split, loaded again and trained, which takes most of the time


@pytest.fixture(scope="module", params=FAMILIES)
def stored(request):
    return Case.stored(f"{request.param}/{TASK}", TASK)


@pytest.fixture(scope="module")
def model(stored):
    return stored.load()


@pytest.mark.slow
def test_logits(model, stored):
    harness.check_logits(model, stored)
    check_logits_per_image(model, stored)


def test_gradients(model, stored):
    harness.check_gradients(model, stored)


def test_load_report(stored, capsys):
    harness.check_report(stored, capsys)


def test_stages(model):
    harness.check_stages(model)


@pytest.mark.slow
def test_splits_between_all_stages(model, stored):
    harness.check_splits(model, stored)


def test_a_pair_does_not_depend_on_its_batch(model, stored):
    harness.check_batch(model, stored)


def test_padding_has_no_effect_except_in_siglip(model, stored):
    if model.config["model_type"] != "siglip":
        harness.check_padding(model, stored)


def test_bfloat16(stored):
    harness.check_bfloat16(stored)


@pytest.mark.slow
def test_saved_folder_loads(model, stored, tmp_path):
    harness.check_saved(model, stored, tmp_path)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_keras_file(model, stored, tmp_path):
    harness.check_keras_file(model, stored, tmp_path)


@pytest.mark.slow
def test_five_training_steps(stored):
    harness.check_training(stored.load(), stored, run_eagerly=True)


def check_logits_per_image(model, case):
    rows = np.asarray(model(case.inputs))
    harness.close(logits_of(rows[:, 0], rows[:, 1]), case.expected["logits_per_image"])


@pytest.mark.slow
@pytest.mark.parametrize("seed", [None, *range(SEEDS)])
@pytest.mark.parametrize("family", FAMILIES)
def test_any_configuration_against_pytorch(family, seed, tmp_path):
    """Logits, gradients and both directions of all configurations; some are also trained."""
    pytest.importorskip("torch")
    is_trained = seed is None or seed < TRAINED
    case = random_case(family, seed, tmp_path, steps=20 if is_trained else 0)
    model = case.load()
    harness.check_logits(model, case)
    check_logits_per_image(model, case)
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
@pytest.mark.parametrize("family", FAMILIES)
def test_one_compiled_graph(family):
    harness.check_compiled(Case.stored(f"{family}/{TASK}", TASK))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tower", "task"), [("image", "image-feature-extraction"), ("text", "feature-extraction")]
)
@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_a_tower_alone_opens_in_pytorch(family, tower, task, tmp_path):
    """Vectors before normalisation, from the folder of both towers and from one of its own."""
    torch = pytest.importorskip("torch")
    import transformers
    from references import pytorch_towers

    import finetune_tf as ft

    case = Case.stored(f"{family}/{TASK}", TASK)
    with quiet():
        model = ft.load(case.folder, task)
        saved = model.save_pretrained(tmp_path / "saved")
        again = ft.load(saved, task)
    (name,) = json.loads((saved / "config.json").read_text())["architectures"]
    assert model.stages[0].name == f"{tower}/embeddings"
    theirs = getattr(transformers, name).from_pretrained(saved).eval()
    tensors = pytorch_towers.tensors_of(theirs, case.inputs)
    names = {"image": ["pixel_values"], "text": ["input_ids", "attention_mask"]}[tower]
    with torch.no_grad():
        output = theirs(**{key: tensors[key] for key in names})
    expected = output.pooler_output if family == "siglip" else output[0]
    for each in (model, again):
        found = np.asarray(each({key: case.inputs[key] for key in names}))
        harness.close(found, expected.numpy())


ON_JAX = """
import json, sys
from conformance import harness
from conformance.harness import Case

for family in json.loads(sys.argv[1]):
    case = Case.stored(f"{family}/image-text-retrieval", "image-text-retrieval")
    model = case.load()
    harness.check_logits(model, case)
    harness.check_training(model, case)
import keras
print(keras.backend.backend(), len(json.loads(sys.argv[1])))
"""


@pytest.mark.slow
def test_jax_computes_the_same():
    pytest.importorskip("jax")
    harness.check_on_jax(ON_JAX, list(FAMILIES))


def random_case(family, seed, folder, steps=0):
    """Writes a model of PyTorch, and computes what it gives."""
    from references import pytorch, pytorch_images, pytorch_towers

    config, size = pytorch_towers.config_of(family, seed)
    torch_model = pytorch_towers.make_model(family, config, seed or 0)
    pytorch.save(torch_model, config, folder)
    pytorch_images.write_preprocessor(folder, size)
    inputs = pytorch_towers.make_inputs(torch_model.config, seed or 0, size)
    exact = pytorch_towers.gradients_of(copy.deepcopy(torch_model).double(), inputs)
    expected = pytorch_towers.record(torch_model, inputs, steps)
    expected |= {f"float64/{name}": gradient for name, gradient in exact.items()}
    return Case(folder, TASK, expected)


def check_opens_in_pytorch(saved, case, family):
    """Checks that PyTorch finds every tensor in a saved folder, and computes the same logits."""
    import transformers
    from references import pytorch_towers

    kind = getattr(transformers, pytorch_towers.CLASSES[family][1])
    model, report = kind.from_pretrained(saved, output_loading_info=True)
    missing = [name for name in report["missing_keys"] if "mask_token" not in name]
    assert not missing and not report["unexpected_keys"] and not report["mismatched_keys"], report
    _, logits = pytorch_towers.outputs(model.eval(), pytorch_towers.tensors_of(model, case.inputs))
    harness.close(logits, case.expected["logits_per_image"])
