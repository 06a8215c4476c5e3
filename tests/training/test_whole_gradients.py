"""Optimizers receive gradients that are summed over devices and repeated tokens."""

import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers_models import small_model, token_batch

import finetune_tf as ft
from finetune_tf.errors import ModelError
from finetune_tf.training import AdamW
from finetune_tf.training.gradients import check_devices, give_whole_gradients

TESTS = Path(__file__).parents[1]
OPTIMIZERS = keras.optimizers

SCRIPT = """
    import sys
    import tensorflow as tf

    devices = int(sys.argv[1])
    cpu = tf.config.list_physical_devices("CPU")[0]
    parts = [tf.config.LogicalDeviceConfiguration()] * devices
    tf.config.set_logical_device_configuration(cpu, parts)
    import keras
    import numpy as np
    from helpers_models import small_model, token_batch

    import finetune_tf as ft
    from finetune_tf.training import AdamW

    optimizers = keras.optimizers
    preset = ft.presets.cross_entropy
    cases = {
        "adamw": lambda clip: preset("adamw", 1e-2, clip_norm=clip and 0.01),
        "sgd": lambda clip: preset("sgd", 1.0, clip_norm=clip and 0.05),
        "adam": lambda clip: {"optimizer": optimizers.Adam(1e-2, global_clipnorm=clip and 0.001)},
        "by variable": lambda clip: {"optimizer": optimizers.SGD(1.0, clipnorm=clip and 0.02)},
        "by value": lambda clip: {"optimizer": AdamW(1e-2, clipvalue=clip and 1e-4)},
        "averages": lambda clip: {"optimizer": AdamW(1e-2, 0.01, global_clipnorm=clip and 0.01,
                                                     use_ema=True)},
        "loss scale": lambda clip: {"optimizer": optimizers.LossScaleOptimizer(
            optimizers.SGD(1.0, global_clipnorm=clip and 0.05), initial_scale=8.0)},
        "several": lambda clip: {"optimizer": optimizers.MultiOptimizer(optimizers.OptimizerMap(
            optimizers.SGD(1.0, global_clipnorm=clip and 0.05),
            {"classifier/.*": optimizers.SGD(0.5, global_clipnorm=clip and 0.02)}))},
    }
    tokens, answers = token_batch(16)
    mirrored = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(devices)])

    def losses(make, strategy, clip=True):
        with strategy.scope():
            keras.utils.set_random_seed(0)
            model = small_model()
            model.compile(**make(clip or None))
        found = []
        note = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: found.append(logs["loss"])
        )
        model.fit(tokens, answers, batch_size=8, epochs=10, shuffle=False, verbose=0,
                  callbacks=[note])
        return np.array(found), np.concatenate([v.numpy().ravel() for v in model.weights])

    for name in sys.argv[2:]:
        one, weights = losses(cases[name], tf.distribute.get_strategy())
        many, mirrored_weights = losses(cases[name], mirrored)
        assert len(one) == 20
        assert np.abs(one - many).max() < 1e-5, (name, one, many)
        assert np.abs(weights - mirrored_weights).max() < 1e-4, name
        free, _ = losses(cases[name], tf.distribute.get_strategy(), clip=False)
        assert np.abs(one - free).max() > 1e-2, f"clipping does not bite: {name}"
        print(name, "done")
"""


def run_on(devices, *cases):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(SCRIPT), str(devices), *cases],
        env={"PYTHONPATH": f"{TESTS}:{TESTS.parent}", "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("done") == len(cases)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["adam", "by variable", "by value", "averages", "loss scale"])
def test_two_devices_clip_as_one(case):
    run_on(2, case)


@pytest.mark.slow
def test_two_devices_clip_as_one_with_presets_and_several_optimizers():
    run_on(2, "adamw", "sgd", "several")


@pytest.mark.slow
def test_four_devices_clip_as_one():
    run_on(4, "adamw", "sgd", "loss scale")


def step(optimizer, gradient):
    """Returns an embedding table of three rows after one step."""
    table = keras.Variable(np.zeros((3, 2), "float32"), name="table")
    optimizer.build([table])
    optimizer.apply([gradient], [table])
    return table.numpy()


REPEATED = tf.IndexedSlices(
    tf.constant([[1.0, 0.0], [2.0, 0.0], [0.0, 4.0]]), tf.constant([0, 0, 2]), tf.constant([3, 2])
)
SUMMED = np.array([[3.0, 0.0], [0.0, 0.0], [0.0, 4.0]], "float32")  # a token occurs twice


@pytest.mark.parametrize(
    "make",
    [
        lambda: OPTIMIZERS.SGD(1.0, global_clipnorm=1.0),
        lambda: OPTIMIZERS.SGD(1.0, clipnorm=1.0),
        lambda: OPTIMIZERS.SGD(1.0, clipvalue=1.5),
        lambda: OPTIMIZERS.SGD(1.0, momentum=0.9),
        lambda: OPTIMIZERS.Adam(0.1),
        lambda: OPTIMIZERS.RMSprop(0.1),
        lambda: AdamW(0.1, global_clipnorm=1.0),
        lambda: AdamW(0.1, clipnorm=1.0),
        lambda: OPTIMIZERS.LossScaleOptimizer(OPTIMIZERS.SGD(1.0, clipnorm=1.0), initial_scale=2.0),
    ],
)
def test_a_token_that_stands_twice_has_one_gradient(make):
    optimizers = [make(), make()]
    for optimizer in optimizers:
        give_whole_gradients(optimizer)
    sparse, dense = (
        step(optimizer, gradient)
        for optimizer, gradient in zip(optimizers, (REPEATED, tf.constant(SUMMED)), strict=True)
    )
    np.testing.assert_allclose(sparse, dense, atol=1e-6)
    assert np.abs(dense).max() > 0


def test_the_norm_is_that_of_the_summed_gradient():
    optimizer = OPTIMIZERS.SGD(1.0, global_clipnorm=1.0)
    give_whole_gradients(optimizer)
    np.testing.assert_allclose(step(optimizer, REPEATED), -SUMMED / 5, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adamw", "sgd", "adam"])
def test_optimizers_of_presets_and_of_models_have_it(name):
    model = small_model()
    model.compile(**ft.presets.cross_entropy(name))
    assert "apply" in vars(model.optimizer)
    model.compile(OPTIMIZERS.SGD(0.1))
    assert "apply" in vars(model.optimizer)
    tokens, answers = token_batch(8)
    model.fit(tokens, answers, verbose=0)
    ft.train_only(model, ft.select.head())  # rebuilds the optimizer
    assert "apply" in vars(model.optimizer)
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2), keras.layers.Dense(2)])
    network.compile(**ft.presets.cross_entropy(name, 1e-4, schedule="constant"))
    network.fit(np.ones((4, 2)), np.ones(4), verbose=0)
    ft.train_only(network, ft.select.head())
    assert "apply" in vars(network.optimizer)


def test_an_optimizer_inside_of_another_leaves_it_to_that():
    inner = AdamW()
    outer = OPTIMIZERS.LossScaleOptimizer(inner)
    give_whole_gradients(outer)
    give_whole_gradients(outer)
    assert "apply" in vars(outer)
    assert "apply" not in vars(inner)


@pytest.mark.parametrize(
    ("make", "compiled", "what"),
    [
        (lambda: ft.presets.cross_entropy(accumulate=2)["optimizer"], {}, "accumulate"),
        (lambda: AdamW(use_ema=True, ema_overwrite_frequency=2), {}, "ema_overwrite_frequency"),
        (lambda: OPTIMIZERS.LossScaleOptimizer(AdamW(gradient_accumulation_steps=2)), {}, "accum"),
        (AdamW, {"steps_per_execution": 2}, "steps_per_execution"),
        (AdamW, {"jit_compile": True}, "jit_compile=True"),
    ],
)
def test_what_works_on_one_device_only(make, compiled, what):
    check_devices(make(), 1, **compiled)
    with pytest.raises(ModelError, match=f"Keras supports {what}.* on one device only.* for 2 dev"):
        check_devices(make(), 2, **compiled)


def test_configs_do_not_know_of_it():
    optimizer = ft.presets.cross_entropy("sgd")["optimizer"]
    again = type(optimizer).from_config(optimizer.get_config())
    assert type(again) is OPTIMIZERS.SGD
    assert again.get_config()["global_clipnorm"] == 1.0


BATCHES = """
    import sys
    from pathlib import Path
    import keras
    import numpy as np
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

    import finetune_tf as ft
    from helpers_models import write_checkpoint

    folder = write_checkpoint(Path(sys.argv[1]) / "bert", blocks=1)
    texts = ["a good film", "a dull story", "the actor was great", "a bad film"] * 8
    examples = ft.data.from_arrays(texts, ["yes", "no"] * 16)

    def losses(strategy):
        with strategy.scope():
            keras.utils.set_random_seed(0)
            model = ft.load(folder, labels=examples.labels, dtype="float32")
            model.compile(**ft.presets.cross_entropy())
        batches = examples.batches(model, 8)
        fitted = model.fit(batches, epochs=1, verbose=0).history["loss"]
        return [*fitted, *model.evaluate(batches, verbose=0), len(ft.predict(model, texts))]

    one = losses(tf.distribute.get_strategy())
    many = losses(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
    np.testing.assert_allclose(one, many, atol=1e-5)
    print("done")
"""


@pytest.mark.slow
def test_two_devices_take_the_batches_of_one(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(BATCHES), str(tmp_path)],
        env={"PYTHONPATH": f"{TESTS}:{TESTS.parent}", "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("done\n")
