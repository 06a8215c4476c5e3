"""Objectives on other families, in bfloat16, on two devices, and with JAX."""

import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers_images import TINY_VIT
from helpers_text_to_text import T5_PARAMS, write_t5

import finetune_tf as ft
from finetune_tf import objectives

TESTS = Path(__file__).resolve().parents[1]
REFERENCES = TESTS / "references"


def batch_of(model, rows=4):
    random = np.random.default_rng(0)
    labels = random.integers(0, len(model.labels), rows).astype("int32")
    if model.reads_images:
        shape = (rows, *model.inputs[0].shape[1:])
        return {"pixel_values": random.integers(0, 256, shape).astype("uint8")}, labels
    ids = random.integers(4, model.config.vocab_size - 1, (rows, 6)).astype("int32")
    mask = np.ones_like(ids)
    mask[1, 4:] = mask[2, 3:] = 0
    return {"input_ids": ids, "attention_mask": mask}, labels


FAMILIES = {
    "deberta-v2": REFERENCES / "deberta-v2" / "text-classification",
    "modernbert": REFERENCES / "modernbert" / "text-classification",
    "gpt2": REFERENCES / "gpt2" / "text-classification",
    "vit": TINY_VIT,
    "resnet": REFERENCES / "resnet" / "image-classification",
}
TEXTS = ("deberta-v2", "modernbert", "gpt2")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_families(family, dtype):
    keras.utils.set_random_seed(0)
    options = {"dtype": dtype} if family == "resnet" else {"dtype": dtype, "dropout": 0.1}
    model = ft.load(FAMILIES[family], **options)
    teacher = ft.load(FAMILIES[family], dtype=dtype)
    batch, labels = batch_of(model)
    at = "head" if family == "gpt2" else "embeddings"
    mixed = [
        objectives.Mixup(at=at),
        objectives.L2SP(),
        *([objectives.NEFTune()] if family in TEXTS else []),
    ]
    compared = [
        objectives.SupervisedContrastive(0.3),
        objectives.Distillation(teacher, hidden="all"),
        objectives.L2SP(),
    ]
    if family != "resnet":
        mixed, compared = [objectives.RDrop(), *mixed], [objectives.RDrop(), *compared]
    for given in (mixed, compared):
        model.compile(keras.optimizers.SGD(0.01), objectives=given)
        before = model.evaluate(batch, labels, verbose=0)[0]
        history = model.fit(batch, labels, epochs=2, verbose=0).history
        assert np.isfinite(history["loss"]).all()
        assert history["loss"][0] < 3 * before + 3


@pytest.mark.slow
def test_an_encoder_decoder(tmp_path):
    model = ft.load(write_t5(tmp_path / "t5", task_specific_params=T5_PARAMS), dropout=0.1)
    teacher = ft.load(tmp_path / "t5")
    sources = ["a good film", "the story was dull"]
    data = ft.data.from_arrays(source=sources * 2, target=sources * 2)
    hidden = {"encoder/block_0": "encoder/block_0", "decoder/block_0": "decoder/block_0"}
    for given in (
        [objectives.RDrop(), objectives.NEFTune()],
        [objectives.Distillation(teacher, hidden=hidden)],
    ):
        model.compile(objectives=given)
        history = model.fit(data.batches(model, 2), verbose=0).history
        assert np.isfinite(history["loss"]).all()
    with pytest.raises(ft.errors.ModelError, match="it mixes whole examples"):
        model.compile(objectives=[objectives.Mixup()])


DEVICES = """
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    import keras
    import numpy as np
    import sys

    import finetune_tf as ft
    from helpers_models import small_model, token_batch

    O = ft.objectives
    tokens, answers = token_batch(16)
    teacher = small_model()

    def losses(strategy, *given):
        with strategy.scope():
            keras.utils.set_random_seed(0)
            model = small_model()
            model.set_weights([w + 0.1 for w in teacher.get_weights()])
            model.compile(keras.optimizers.SGD(0.1), objectives=list(given))
        options = {"batch_size": 8, "epochs": 3, "shuffle": False, "verbose": 0}
        found = model.fit(tokens, answers, **options).history["loss"]
        return found, np.concatenate([w.ravel() for w in model.get_weights()])

    mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    one = tf.distribute.get_strategy()
    given = O.L2SP(0.5), O.Distillation(teacher, hidden="last")
    (first, weights), (second, others) = losses(one, *given), losses(mirrored, *given)
    np.testing.assert_allclose(first, second, rtol=1e-4)
    np.testing.assert_allclose(weights, others, atol=1e-4)
    found, _ = losses(mirrored, O.RDrop(), O.NEFTune())  # whose random numbers differ
    plain, _ = losses(one)
    assert np.isfinite(found).all()
    assert abs(found[0] - plain[0]) < 3
    print("done")
"""

JAX = """
    import os
    import keras
    import numpy as np

    import finetune_tf as ft
    from helpers_models import small_model, token_batch

    assert keras.backend.backend() == "jax"
    O = ft.objectives
    tokens, answers = token_batch(16)
    teacher = small_model()
    for given in (
        [O.RDrop(), O.NEFTune(20.0), O.Mixup(), O.L2SP()],
        [O.SupervisedContrastive(), O.Distillation(teacher, hidden="last")],
    ):
        model = small_model()
        model.compile(keras.optimizers.SGD(0.1), objectives=given)
        history = model.fit(tokens, answers, batch_size=8, epochs=3, verbose=0).history
        assert np.isfinite(history["loss"]).all()
        assert len(set(history["loss"])) == 3
    for preset in (ft.presets.focal(), ft.presets.ordinal()):
        model.compile(**preset)
        assert np.isfinite(model.evaluate(tokens, answers, verbose=0)).all()
    print("done")
"""


def run(script, **environment):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)],
        env={"PYTHONPATH": f"{TESTS}:{TESTS.parent}", "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("done\n")


@pytest.mark.slow
def test_two_devices_train_as_one():
    run(DEVICES)


@pytest.mark.slow
def test_jax():
    pytest.importorskip("jax")
    run(JAX, KERAS_BACKEND="jax", JAX_PLATFORMS="cpu")
