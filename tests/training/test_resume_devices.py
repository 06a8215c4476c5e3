"""A fit on two devices, which are logical ones of the CPU, continues exactly as well."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

SCRIPT = """
    import sys
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    parts = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, parts)
    import keras
    import numpy as np
    from helpers_models import token_batch
    from helpers_resume import broken_and_resumed, on_arrays, outcome

    import finetune_tf as ft
    from finetune_tf.errors import DataError

    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    tokens, answers = token_batch(20)

    def ours():
        with strategy.scope():
            return on_arrays()

    def with_dropout():
        with strategy.scope():
            model = keras.Sequential([
                keras.Input((6,)), keras.layers.Dense(8, "relu"), keras.layers.BatchNormalization(),
                keras.layers.Dropout(0.3), keras.layers.Dense(1),
            ])
            model.compile("adam", "mse", metrics=["mae"])
        x, y = tokens.astype("float32"), answers.astype("float32")
        return model, {"x": x, "y": y, "batch_size": 4, "epochs": 3, "shuffle": False,
                       "validation_data": (x[:8], y[:8])}

    for name, make in {"ours": ours, "dropout": with_dropout}.items():
        expected = outcome(make)
        places = (0, 3), (1, "validation"), (2, 1)
        broken_and_resumed(make, sys.argv[1] + name, *places).require_same(expected)
        print(name, "done")

    model, fit = with_dropout()
    data = tf.data.Dataset.from_tensor_slices((fit["x"], fit["y"])).shuffle(20, seed=1).batch(4)
    try:
        model.fit(data, callbacks=[ft.callbacks.Resume(sys.argv[1] + "refused")], verbose=0)
    except DataError as error:
        print(error)
"""


@pytest.mark.slow
def test_two_devices(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(SCRIPT), f"{tmp_path}/"],
        env={**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "ours done" in done.stdout and "dropout done" in done.stdout
    assert (
        "Resume cannot continue a fit on 2 devices on a tf.data.Dataset with shuffle(). Make the "
        "batches with examples.batches(model, shuffle=True, seed=0)"
    ) in done.stdout
