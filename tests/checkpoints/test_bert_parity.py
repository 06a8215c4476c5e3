"""BERT computes what PyTorch computes: against stored numbers, and live where torch is there.

`references/make_bert.py` made the checkpoints and the numbers.
"""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers_checkpoints import inputs_of, logits, reference, table_of

import finetune_tf as ft
from finetune_tf.training import AdamW

ROOT = Path(__file__).resolve().parents[2]
CLASSIFIERS = ("relu", "gelu_new", "gelu")


@pytest.fixture(scope="module", params=CLASSIFIERS)
def case(request):
    """A model of each stored classifier, and PyTorch's numbers."""
    folder, expected = reference(request.param)
    return ft.load(folder, dropout=0.0), expected


def test_logits(case):
    model, expected = case
    found = logits(model, inputs_of(expected))
    np.testing.assert_allclose(found, expected["logits"], rtol=0, atol=1e-5)


def test_mask_and_token_types_may_be_left_out(case):
    model, expected = case
    ids = expected["input_ids"]
    for inputs in (ids, {"input_ids": ids}):
        found = logits(model, inputs)
        np.testing.assert_allclose(found, expected["logits_ids_only"], rtol=0, atol=1e-5)


def test_gradients(case):
    model, expected = case
    assert max(gradient_errors(model, expected).values()) < 1e-4


def test_loss_curve_and_logits_after_it(case):
    folder = case[0].info.checkpoint
    # Tracing takes most of the time, so one of the models stands for all.
    traced = Path(folder).name == "gelu_new"
    losses, after = train(ft.load(folder, dropout=0.0), case[1], run_eagerly=not traced)
    np.testing.assert_allclose(losses, case[1]["losses"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(after, case[1]["logits_after"], rtol=0, atol=1e-4)


def test_hidden_states_of_a_bare_model():
    folder, expected = reference("base")
    model = ft.load(folder)
    inner = keras.Model(
        model.inputs, [model.get_layer("block_1").output, model.get_layer("pooler").output]
    )
    hidden, pooled = inner([expected[tensor.name] for tensor in model.inputs])
    np.testing.assert_allclose(hidden, expected["last_hidden_state"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(pooled, expected["pooler_output"], rtol=0, atol=1e-5)


def test_padding_does_not_matter(case):
    model, expected = case
    inputs = inputs_of(expected)
    room = model.config["max_position_embeddings"] - inputs["input_ids"].shape[1]
    padded = {name: np.pad(array, ((0, 0), (0, room))) for name, array in inputs.items()}
    np.testing.assert_allclose(logits(model, padded), expected["logits"], rtol=0, atol=1e-5)
    # What stands in a masked place does not matter either.
    noise = {name: np.where(inputs["attention_mask"], array, 1) for name, array in inputs.items()}
    noise["attention_mask"] = inputs["attention_mask"]
    noise["token_type_ids"] = inputs["token_type_ids"]
    assert (noise["input_ids"] != inputs["input_ids"]).any()
    np.testing.assert_allclose(logits(model, noise), expected["logits"], rtol=0, atol=1e-5)


def test_a_row_does_not_depend_on_its_batch(case):
    model, expected = case
    inputs = inputs_of(expected)
    for row, lonely in enumerate(expected["logits"]):
        alone = logits(model, {name: array[row : row + 1] for name, array in inputs.items()})
        np.testing.assert_allclose(alone[0], lonely, rtol=0, atol=1e-5)
    turned = logits(model, {name: array[::-1] for name, array in inputs.items()})
    np.testing.assert_allclose(turned[::-1], expected["logits"], rtol=0, atol=1e-5)


def test_one_compiled_graph_with_fixed_shapes_gives_the_same():
    folder, expected = reference("gelu_new")
    model = ft.load(folder)
    with ft.messages.quiet():
        model.compile(jit_compile=True)
    found = model.predict(inputs_of(expected), verbose=0)
    np.testing.assert_allclose(found, expected["logits"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_bfloat16_keeps_logits_in_float32_and_near(name):
    folder, expected = reference(name)
    model = ft.load(folder, dtype="mixed_bfloat16")
    assert model.get_layer("block_0").compute_dtype == "bfloat16"
    assert {variable.dtype for variable in model.weights} == {"float32"}
    found = model(inputs_of(expected))
    assert found.dtype == "float32"
    # bfloat16 has 8 bits of mantissa, so one rounding is off by up to 0.4%.
    np.testing.assert_allclose(found, expected["logits"], rtol=0, atol=0.03)


ON_JAX = """
import json, sys
import numpy as np
import finetune_tf as ft
from helpers_checkpoints import inputs_of, reference
import keras
from finetune_tf.training import AdamW

errors = {}
for name in sys.argv[1:]:
    folder, expected = reference(name)
    model = ft.load(folder, dropout=0.0)
    errors[name] = float(np.abs(model(inputs_of(expected)) - expected["logits"]).max())

# The last one also learns as PyTorch does.
model.compile(AdamW(1e-3, weight_decay=0.01), loss=ft.presets.cross_entropy()["loss"])
steps, rows = len(expected["losses"]), len(expected["labels"])
fit = model.fit(inputs_of(expected), expected["labels"], batch_size=rows, epochs=steps, verbose=0)
errors["losses"] = float(np.abs(fit.history["loss"] - expected["losses"]).max())
print(json.dumps({"backend": keras.backend.backend(), "errors": errors}))
"""


def test_jax_computes_the_same():
    pytest.importorskip("jax")
    run = subprocess.run(
        [sys.executable, "-c", ON_JAX, *CLASSIFIERS],
        env={**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT}/tests"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["backend"] == "jax"
    assert max(found["errors"].values()) < 1e-5, found


def random_config(seed: int) -> dict:
    choose = random.Random(seed).choice
    heads = choose([1, 2, 3, 5])
    problem = choose([None, "regression", "multi_label_classification"])
    return {
        "hidden_act": choose(
            ["gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "quick_gelu", "relu", "relu6"]
            + ["silu", "tanh", "sigmoid", "leaky_relu", "mish", "relu2", "linear"]
        ),
        "layer_norm_eps": choose([1e-12, 1e-7, 1e-5, 1e-2]),
        "type_vocab_size": choose([1, 2, 4]),
        "vocab_size": choose([7, 40, 101]),
        "hidden_size": heads * choose([4, 7, 8]),
        "num_attention_heads": heads,
        "num_hidden_layers": choose([1, 2, 3]),
        "intermediate_size": choose([5, 16, 33]),
        "max_position_embeddings": choose([11, 12, 40]),
        "hidden_dropout_prob": choose([0.0, 0.1, 0.5]),
        "classifier_dropout": choose([None, 0.0, 0.4]),
        "problem_type": problem,
        "num_labels": 1 if problem == "regression" else choose([2, 3, 7]),
    }


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_any_configuration_against_pytorch(seed, tmp_path):
    pytest.importorskip("torch")
    from references.make_bert import make_inputs, make_model, record
    from transformers import BertForSequenceClassification

    theirs = make_model(random_config(seed), seed, BertForSequenceClassification)
    theirs.save_pretrained(tmp_path)
    expected = record(theirs, make_inputs(theirs.config, seed))

    model = ft.load(tmp_path, dropout=0.0)
    found = logits(model, inputs_of(expected))
    np.testing.assert_allclose(found, expected["logits"], rtol=1e-5, atol=1e-5)
    ids_only = logits(model, expected["input_ids"])
    np.testing.assert_allclose(ids_only, expected["logits_ids_only"], rtol=1e-5, atol=1e-5)
    assert max(gradient_errors(model, expected).values()) < 1e-4
    losses, after = train(model, expected, run_eagerly=True)
    np.testing.assert_allclose(losses, expected["losses"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(after, expected["logits_after"], rtol=1e-3, atol=1e-3)


def preset_of(model) -> dict:
    return getattr(ft.presets, model.task.preset(model.labels))()


def gradient_errors(model, expected) -> dict[str, float]:
    """Norm of the difference over the norm of PyTorch's gradient, by PyTorch's name."""
    import tensorflow as tf

    loss = preset_of(model)["loss"]
    with tf.GradientTape() as tape:
        value = loss(expected["labels"], model(inputs_of(expected), training=True))
    gradients = tape.gradient(value, [v.value for v in model.trainable_variables])
    rows = table_of(model)
    largest = max(np.linalg.norm(v) for k, v in expected.items() if k.startswith("gradient/"))
    errors = {}
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        row = rows[variable.path]
        theirs = expected[f"gradient/{row.tensor}"]
        ours = np.asarray(tf.convert_to_tensor(gradient))
        difference = np.linalg.norm((ours.T if row.transposed else ours) - theirs)
        # Softmax cancels the bias of the keys: its gradient is rounding noise on both sides.
        scale = largest if row.tensor.endswith("key.bias") else np.linalg.norm(theirs)
        errors[row.tensor] = float(difference / scale) if scale else float(difference)
    assert errors.keys() == {k[9:] for k in expected if k.startswith("gradient/")}
    return errors


def train(model, expected, run_eagerly) -> tuple[list[float], np.ndarray]:
    """The steps that `make_bert.py` takes; a loss is the one before its step."""
    optimizer = AdamW(1e-3, weight_decay=0.01)
    with pytest.warns(UserWarning, match="learning rate of 0.001 usually ruins"):
        model.compile(optimizer, loss=preset_of(model)["loss"], run_eagerly=run_eagerly)
    inputs, steps = inputs_of(expected), len(expected["losses"])
    rows = len(expected["labels"])
    history = model.fit(inputs, expected["labels"], batch_size=rows, epochs=steps, verbose=0)
    return history.history["loss"], logits(model, inputs)
