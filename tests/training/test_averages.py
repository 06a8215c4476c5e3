"""Averaged weights: compared with NumPy step by step, and with what else changes a fit."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers_models import small_model, token_batch

import finetune_tf as ft
from finetune_tf import select
from finetune_tf.callbacks import EMA, AverageLast
from finetune_tf.errors import ArgumentError, ModelError
from finetune_tf.messages import quiet
from finetune_tf.training import AdamW

TESTS = Path(__file__).parents[1]
TOKENS, ANSWERS = token_batch(16)
pytestmark = pytest.mark.filterwarnings("ignore:A learning rate of 0.01")


class Steps(keras.callbacks.Callback):
    """Records the weights after each step, and at the end of each epoch."""

    def __init__(self):
        super().__init__()
        self.steps, self.ends, self.begins = [], [], []

    def on_epoch_begin(self, epoch, logs=None):
        self.begins.append(values(self.model))

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append(values(self.model))

    def on_epoch_end(self, epoch, logs=None):
        self.ends.append(values(self.model))


def values(model):
    return [np.array(v.numpy(), "float64") for v in model.weights]


def model_of(optimizer=None, **compiled):
    keras.utils.set_random_seed(0)
    model = small_model()
    with quiet():
        model.compile(optimizer or AdamW(1e-2, global_clipnorm=1.0), **compiled)
    return model


def fit(model, *callbacks, epochs=3, batch_size=4, **options):
    options = {"shuffle": False, "validation_data": (TOKENS, ANSWERS), "verbose": 0} | options
    with quiet():
        return model.fit(
            TOKENS,
            ANSWERS,
            batch_size=batch_size,
            epochs=epochs,
            callbacks=list(callbacks),
            **options,
        ).history


def exponential(start, steps, decay, warmup=True):
    """The averages after each step."""
    averages, found = start, []
    for t, weights in enumerate(steps, 1):
        share = 1 - (min(decay, (1 + t) / (10 + t)) if warmup else decay)
        averages = [a + share * (w - a) for a, w in zip(averages, weights, strict=True)]
        found.append(averages)
    return found


def assert_close(found, expected, **tolerance):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, **({"rtol": 0, "atol": 1e-6} | tolerance))


@pytest.mark.slow
@pytest.mark.parametrize("warmup", [True, False])
@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: AdamW(1e-2, global_clipnorm=1.0),
        lambda: keras.optimizers.SGD(0.5),
        lambda: keras.optimizers.LossScaleOptimizer(AdamW(1e-2), initial_scale=8.0),
    ],
)
def test_the_averages_are_those_of_numpy(optimizer, warmup):
    model, steps = model_of(optimizer()), Steps()
    start = values(model)
    fit(model, steps, EMA(0.8, warmup=warmup))
    expected = exponential(start, steps.steps, 0.8, warmup)
    assert len(expected) == 12
    assert_close(steps.ends[0], expected[3])
    assert_close(steps.ends[1], expected[7])
    assert_close(values(model), expected[11])
    assert np.abs(values(model)[0] - steps.steps[-1][0]).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [4, 5])
def test_accumulated_gradients_count_as_one_step(batch_size):
    """With batches of 5, an epoch ends with a partial step."""
    model, steps = model_of(AdamW(1e-2, gradient_accumulation_steps=3)), Steps()
    start = values(model)
    fit(model, steps, EMA(0.8), batch_size=batch_size, epochs=2)
    # The last step of an epoch is applied after its last batch, so it is not among the records.
    plain = model_of(AdamW(1e-2, gradient_accumulation_steps=3))
    ends = Steps()
    fit(plain, ends, batch_size=batch_size, epochs=2)
    of_epoch = [[steps.steps[2], ends.ends[0]], [steps.steps[6], ends.ends[1]]]
    expected = exponential(start, of_epoch[0] + of_epoch[1], 0.8)
    assert_close(steps.ends[0], expected[1])
    assert_close(values(model), expected[3])


@pytest.mark.slow
def test_the_validation_reads_averages_and_the_training_does_not():
    plain, model, steps, own = model_of(), model_of(), Steps(), Steps()
    expected = fit(plain, own)
    history = fit(model, steps, EMA(0.8))
    assert history["loss"] == expected["loss"]  # the same steps, to the bit
    for one, other in zip(steps.steps, own.steps, strict=True):
        assert_close(one, other, atol=0)
    with quiet():
        loss, _ = model.evaluate(TOKENS, ANSWERS, verbose=0)
    assert history["val_loss"][-1] == pytest.approx(loss, abs=1e-6)
    assert abs(loss - expected["val_loss"][-1]) > 1e-4
    assert_close(steps.begins[1], steps.steps[3], atol=0)


@pytest.mark.jax
def test_without_a_validation_the_weights_are_averaged_too():
    model, steps = model_of(), Steps()
    start = values(model)
    fit(model, EMA(0.8), steps, validation_data=None)
    assert_close(values(model), exponential(start, steps.steps, 0.8)[-1])


@pytest.mark.slow
def test_the_end_of_the_last_epochs():
    model, steps = model_of(), Steps()
    fit(model, steps, AverageLast(epochs=2), epochs=4)
    trained = steps.steps[3::4]
    assert_close(steps.ends[0], trained[0])
    for epoch in (1, 2, 3):
        mean = [(a + b) / 2 for a, b in zip(trained[epoch - 1], trained[epoch], strict=True)]
        assert_close(steps.ends[epoch], mean)
    assert_close(values(model), steps.ends[3])


class Unfreeze(keras.callbacks.Callback):
    """Changes the flags of a layer in the middle of the second epoch."""

    def __init__(self, trainable):
        super().__init__()
        self.trainable, self.epoch = trainable, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if (self.epoch, batch) == (1, 1):
            self.model.get_layer("block_1").trainable = self.trainable


@pytest.mark.slow
@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize("make", [lambda: EMA(0.8), lambda: AverageLast(2)])
def test_variables_that_are_unfrozen_or_frozen_in_the_fit(make, trainable):
    """They were, or stay, constant; so nothing but that has to be known of them."""
    keras.utils.set_random_seed(0)
    model, steps = small_model(), Steps()
    with quiet():
        ft.train_only(model, select.head() if trainable else select.everything())
        model.compile(AdamW(1e-2))
    start = values(model)
    callback = make()
    fit(model, callback, Unfreeze(trainable), steps)
    if isinstance(callback, EMA):
        expected = exponential(start, steps.steps, 0.8)[-1]
    else:
        pairs = zip(steps.steps[7], steps.steps[11], strict=True)
        expected = [(a + b) / 2 for a, b in pairs]
    assert_close(values(model), expected)
    names = [v.path.split("/")[0] for v in model.weights]
    changed = {n for n, a, b in zip(names, start, expected, strict=True) if np.any(a != b)}
    assert ("block_1" in changed) and ("block_0" in changed) is not trainable


@pytest.mark.slow
@pytest.mark.jax
def test_early_stopping_judges_and_restores_averages():
    model, steps = model_of(keras.optimizers.SGD(8.0)), Steps()
    stop = keras.callbacks.EarlyStopping("val_loss", patience=2, restore_best_weights=True)
    history = fit(model, stop, steps, EMA(0.5), epochs=12)
    best = int(np.argmin(history["val_loss"]))
    assert best < len(history["val_loss"]) - 1  # otherwise nothing is restored
    assert_close(values(model), steps.ends[best], atol=0)
    with quiet():
        assert model.evaluate(TOKENS, ANSWERS, verbose=0)[0] == pytest.approx(
            min(history["val_loss"]), abs=1e-6
        )


@pytest.mark.slow
def test_a_second_fit_begins_with_new_averages():
    model, ema, steps = model_of(), EMA(0.8), Steps()
    fit(model, ema, epochs=1)
    start = values(model)
    fit(model, ema, steps, epochs=1)
    assert_close(values(model), exponential(start, steps.steps, 0.8)[-1])


class Interrupt(keras.callbacks.Callback):
    """Stores all of a fit at its end, or after two steps of the second epoch, and ends it."""

    def __init__(self, averages, within_epoch):
        super().__init__()
        self.averages, self.within_epoch, self.epoch = averages, within_epoch, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.within_epoch and (self.epoch, batch) == (1, 1):
            self.store()

    def on_epoch_end(self, epoch, logs=None):
        if not self.within_epoch and epoch == 1:
            self.store()

    def store(self):
        optimizer = [v.numpy() for v in self.model.optimizer.variables]
        self.stored = self.model.get_weights(), optimizer, self.averages.state_dict()
        raise KeyboardInterrupt


class Restore(keras.callbacks.Callback):
    """Restores what was stored at the beginning of a fit, after other callbacks."""

    def __init__(self, averages, stored):
        super().__init__()
        self.averages, self.stored = averages, stored

    def on_train_begin(self, logs=None):
        weights, optimizer, state = self.stored
        self.model.set_weights(weights)
        for variable, value in zip(self.model.optimizer.variables, optimizer, strict=True):
            variable.assign(value)
        self.averages.load_state_dict(state)


@pytest.mark.slow
@pytest.mark.parametrize("within_epoch", [False, True])
@pytest.mark.parametrize("make", [lambda: EMA(0.8), lambda: AverageLast(2)])
def test_a_resumed_fit_has_the_same_averages(make, within_epoch):
    """Weights, optimizer and the state of the callback are all that is stored."""
    whole, first, again = (model_of(AdamW(1e-2)) for _ in range(3))
    epochs = 2 if within_epoch else 3
    fit(whole, make(), epochs=epochs)
    averages = make()
    interrupt = Interrupt(averages, within_epoch)
    with pytest.raises(KeyboardInterrupt):
        fit(first, averages, interrupt)
    state = interrupt.stored[2]
    assert all(isinstance(v, np.ndarray | int | list) for v in state.values())
    assert any(name.startswith("trained/") for name in state) is not within_epoch
    averages = make()
    restore = Restore(averages, interrupt.stored)
    done = 8 if within_epoch else 0  # rows of the epoch
    with quiet():
        again.fit(
            TOKENS[done:],
            ANSWERS[done:],
            batch_size=4,
            initial_epoch=1 if within_epoch else 2,
            epochs=epochs,
            shuffle=False,
            callbacks=[averages, restore],
            verbose=0,
        )
    assert_close(values(again), values(whole), atol=0)


@pytest.mark.slow
def test_mixed_precision(tiny_bert):
    texts = ft.data.from_arrays(["a good film", "bad"] * 8, ["yes", "no"] * 8)
    with quiet():
        model = ft.load(tiny_bert, labels=texts.labels, dtype="mixed_bfloat16")
        model.compile(keras.optimizers.SGD(0.05))
        start, steps = values(model), Steps()
        model.fit(texts.batches(model, 4), epochs=2, callbacks=[steps, EMA(0.9)], verbose=0)
    assert_close(values(model), exponential(start, steps.steps, 0.9)[-1])


def test_averages_of_bfloat16_are_float32():
    """In bfloat16, 0.999 of a number is mostly that number, so its average would never move."""
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, dtype="bfloat16")])
    network.compile(keras.optimizers.SGD(0.01), "mse")
    x = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
    start, steps = values(network), Steps()
    callbacks = [EMA(0.99, warmup=False), steps]
    network.fit(x, x[:, :2], batch_size=4, epochs=5, callbacks=callbacks, verbose=0)
    expected = exponential(start, steps.steps, 0.99, False)[-1]
    assert_close(values(network), expected, rtol=2**-8, atol=1e-4)
    assert np.abs(expected[0] - start[0]).max() > 2**-7


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "deberta/text-classification",
        "modernbert/text-classification",
        "llama/text-classification",
        "vit/image-classification",
    ],
)
def test_every_kind_of_model(name):
    folder = TESTS / "references" / name
    expected = dict(np.load(folder / "expected.npz"))
    with quiet():
        model = ft.load(folder, dropout=0.0)
        model.compile(keras.optimizers.SGD(0.01))
    inputs = {tensor.name: expected[tensor.name] for tensor in model.inputs}
    rows = len(next(iter(inputs.values())))
    targets = np.arange(rows) % len(model.labels)
    start, steps = values(model), Steps()
    with quiet():
        model.fit(
            inputs, targets, epochs=3, batch_size=rows, callbacks=[steps, EMA(0.7)], verbose=0
        )
    assert_close(values(model), exponential(start, steps.steps, 0.7)[-1], atol=1e-5)


@pytest.mark.slow
def test_cached_features(tiny_bert):
    texts = ft.data.from_arrays(["a good film", "bad"] * 8, ["yes", "no"] * 8)
    with quiet():
        model = ft.load(tiny_bert, labels=texts.labels)
        ft.train_only(model, select.head() | select.blocks(-1))
        learner = ft.cache_features(model)
        learner.compile(AdamW(1e-2))
        start, steps = values(model), Steps()
        record = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: steps.steps.append(values(model))
        )
        learner.fit(texts.batches(learner, 4), epochs=2, callbacks=[record, EMA(0.8)], verbose=0)
    assert_close(values(model), exponential(start, steps.steps, 0.8)[-1])


@pytest.mark.parametrize("make", [lambda: EMA(0.8), lambda: AverageLast(2)])
def test_statistics_of_batch_normalization_are_averaged(make, capsys):
    inputs = keras.Input((4,))
    hidden = keras.layers.BatchNormalization(momentum=0.5, name="norm")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1)(hidden))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    x = np.random.default_rng(0).normal(1, 2, (16, 4)).astype("float32")
    start, steps, callback = values(model), Steps(), make()
    model.fit(x, x[:, :1], batch_size=4, epochs=2, verbose=0, callbacks=[callback, steps])
    if isinstance(callback, EMA):
        expected = exponential(start, steps.steps, 0.8)[-1]
    else:
        pairs = zip(steps.steps[3], steps.steps[7], strict=True)
        expected = [(a + b) / 2 for a, b in pairs]
    assert_close(values(model), expected, rtol=1e-5)
    assert np.abs(model.get_layer("norm").moving_mean.numpy()).max() > 0.1
    assert "averages the moving statistics of 1 batch normalizations" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("callbacks", "compiled", "message"),
    [
        ([EMA(), AverageLast()], {}, "One callback at most can average .*, found EMA and AverageL"),
        ([EMA(), keras.callbacks.SwapEMAWeights()], {}, "found EMA and SwapEMAWeights"),
        ([EMA()], {"optimizer": AdamW(use_ema=True)}, "so does the optimizer.*use_ema=True"),
        ([EMA()], {"steps_per_execution": 2}, "Compile with steps_per_execution=1"),
        (
            [AverageLast(), keras.callbacks.BackupAndRestore("backup")],
            {},
            "BackupAndRestore would store the averages of AverageLast as the weights",
        ),
    ],
)
def test_what_contradicts_averages(callbacks, compiled, message):
    model = model_of(**compiled)
    with pytest.raises(ModelError, match=message):
        fit(model, *callbacks)


@pytest.mark.parametrize("decay", [1.0, -0.1, "0.9", None])
def test_a_decay_out_of_range(decay):
    with pytest.raises(ArgumentError, match="decay must be a number >= 0 and < 1, found"):
        EMA(decay)


TWO_DEVICES = """
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    import keras
    import numpy as np
    from helpers_models import small_model, token_batch

    import finetune_tf as ft

    tokens, answers = token_batch(16)

    def fitted(strategy, make):
        with strategy.scope():
            keras.utils.set_random_seed(0)
            model = small_model()
            model.compile(**ft.presets.cross_entropy("adamw", 1e-2))
        history = model.fit(tokens, answers, batch_size=8, epochs=3, shuffle=False, verbose=0,
                            validation_data=(tokens, answers), callbacks=[make()])
        return history.history["val_loss"], [v.numpy() for v in model.weights]

    for make in (lambda: ft.callbacks.EMA(0.7), lambda: ft.callbacks.AverageLast(2)):
        one, weights = fitted(tf.distribute.get_strategy(), make)
        many, mirrored = fitted(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]), make)
        np.testing.assert_allclose(one, many, atol=1e-5)
        for a, b in zip(weights, mirrored):
            np.testing.assert_allclose(a, b, atol=1e-4)
    print("done")
"""

JAX = """
    import keras
    import numpy as np
    from helpers_models import small_model, token_batch

    import finetune_tf as ft

    tokens, answers = token_batch(16)

    def fitted(*callbacks):
        keras.utils.set_random_seed(0)
        model = small_model()
        model.compile(keras.optimizers.SGD(0.5))
        history = model.fit(tokens, answers, batch_size=4, epochs=3, shuffle=False, verbose=0,
                            validation_data=(tokens, answers), callbacks=list(callbacks))
        return model, history.history

    steps = []
    class Steps(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.jax_state_sync()
            steps.append([np.array(v) for v in self.model.weights])

    keras.utils.set_random_seed(0)
    average = [np.array(v) for v in small_model().weights]
    _, plain = fitted(Steps())
    model, history = fitted(ft.callbacks.EMA(0.7))
    np.testing.assert_allclose(plain["loss"], history["loss"], atol=1e-6)
    for t, weights in enumerate(steps, 1):
        share = 1 - min(0.7, (1 + t) / (10 + t))
        average = [a + share * (w - a) for a, w in zip(average, weights)]
    for one, other in zip(model.weights, average):
        np.testing.assert_allclose(np.array(one), other, atol=1e-5)
    model, _ = fitted(ft.callbacks.AverageLast(2))
    for one, a, b in zip(model.weights, steps[7], steps[11]):
        np.testing.assert_allclose(np.array(one), (a + b) / 2, atol=1e-5)
    print("done")
"""


def run(script, **environment):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)],
        env={**os.environ, "PYTHONPATH": f"{TESTS}:{TESTS.parent}", **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("done\n")


@pytest.mark.slow
def test_two_devices_average_as_one():
    run(TWO_DEVICES)


@pytest.mark.slow
def test_averages_with_jax():
    pytest.importorskip("jax")
    run(JAX, KERAS_BACKEND="jax")
