"""Rates by group and unfreezing on two devices and on JAX give what TensorFlow gives on one."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

TESTS = Path(__file__).parents[1]

SCRIPT = """
    import contextlib
    import json
    import sys

    kind = sys.argv[1]
    strategy = None
    if kind == "two devices":
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        parts = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, parts)
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

    import keras
    import numpy as np
    from helpers_models import small_model, token_batch

    import finetune_tf as ft
    from finetune_tf import select
    from finetune_tf.callbacks import Unfreeze

    tokens, answers = token_batch(16)
    plan = {0: select.head(), 2: select.head() | select.blocks(-1), 3: select.everything()}
    seen = {}
    start = [v.numpy() for v in small_model().weights]
    shapes = [np.random.default_rng(0).normal(0, 0.3, v.shape) for v in start]

    class Change(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 3 and changes:
                self.model.optimizer.rate_factors["head()"].assign(2.0)

    def fitted(name):
        model = small_model()
        for variable, value in zip(model.weights, shapes):
            variable.assign(value)
        rates = {select.head(): 10.0, r"kernel$": 0.5}
        model.compile(**ft.presets.cross_entropy(name, 1e-4, schedule="cosine", rates=rates))
        history = model.fit(tokens, answers, batch_size=8, epochs=5, shuffle=False, verbose=0,
                            callbacks=[Unfreeze(plan), Change()])
        seen[name] = {
            "loss": history.history["loss"],
            "weights": [np.array(v.numpy()).tolist() for v in model.weights],
            "factors": [float(keras.ops.convert_to_numpy(f * 1.0))
                        for f in model.optimizer.rate_factors.values()],
            # On JAX, the values of the schedule are among them as well.
            "slots": sum("/" in variable.path for variable in model.optimizer.variables),
        }
        return model

    changes = "factor" in sys.argv
    with ft.messages.quiet():
        for name in ("adamw", "adam"):
            with strategy.scope() if strategy else contextlib.nullcontext():
                fitted(name)
    print(json.dumps(seen))
"""


def run(kind, *options, backend="tensorflow"):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(SCRIPT), kind, *options],
        env={
            "PYTHONPATH": f"{TESTS}:{TESTS.parent}",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "KERAS_BACKEND": backend,
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def compare(one, two, tolerance):
    for name, expected in one.items():
        found = two[name]
        np.testing.assert_allclose(found["loss"], expected["loss"], atol=1e-5)
        assert found["factors"] == expected["factors"]
        assert found["slots"] == expected["slots"]
        for value, other in zip(found["weights"], expected["weights"], strict=True):
            np.testing.assert_allclose(value, other, atol=tolerance)


@pytest.mark.slow
def test_two_devices():
    one = run("one device", "factor")
    assert one["adamw"]["factors"] == [2.0, 0.5]
    compare(one, run("two devices", "factor"), 1e-5)


@pytest.mark.slow
def test_jax():
    pytest.importorskip("jax")
    expected = run("one device", "factor")
    compare(expected, run("one device", "factor", backend="jax"), 1e-5)
