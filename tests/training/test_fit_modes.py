"""Modes of `fit`: gradient accumulation, mixed precision, XLA and several devices."""

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
from finetune_tf.kernels import is_tracing
from finetune_tf.training import AdamW, WarmupLinearDecay
from finetune_tf.training.gradients import observe

TOKENS, ANSWERS = token_batch(16)
TESTS = Path(__file__).parents[1]


def weights(model):
    return np.concatenate([variable.numpy().ravel() for variable in model.weights])


@pytest.mark.slow
@pytest.mark.jax
def test_fit_drops_out_and_evaluate_does_not(tiny_bert):
    model = ft.load(tiny_bert, labels=2, dropout=0.5)
    model.compile(keras.optimizers.SGD(0.0))  # so that only dropout changes the loss
    given = {"verbose": 0, "batch_size": 16}
    fitted = model.fit(TOKENS, ANSWERS, epochs=3, **given).history["loss"]
    assert len(set(fitted)) == 3
    evaluated = [model.evaluate(TOKENS, ANSWERS, **given)[0] for _ in range(2)]
    assert evaluated[0] == evaluated[1]
    assert abs(np.mean(fitted) - evaluated[0]) > 1e-4


@pytest.mark.slow
def test_accumulated_small_batches_equal_a_large_one():
    ends = []
    for batch_size, accumulate in ((8, 2), (16, None)):
        keras.utils.set_random_seed(0)
        model = small_model()
        model.compile(AdamW(1e-5, gradient_accumulation_steps=accumulate))
        start = weights(model)
        model.fit(TOKENS, ANSWERS, batch_size=batch_size, shuffle=False, verbose=0)
        ends.append(weights(model))
    assert np.abs(ends[0] - start).max() > 5e-6
    np.testing.assert_allclose(ends[0], ends[1], atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize(
    "optimizer", ["adamw", *(pytest.param(n, marks=pytest.mark.slow) for n in ("sgd", "adam"))]
)
@pytest.mark.parametrize("validates", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_what_is_left_over_at_the_end_of_an_epoch_is_a_step(optimizer, validates, tiny_bert):
    """12 rows in batches of 4, two per step, equal a batch of 8 rows and one of 4."""
    texts = ft.data.from_arrays(
        ["a good film", "bad", "a dull story", "fine"] * 3, ["yes", "no", "no", "yes"] * 3
    )
    ends = []
    for batch_size, accumulate in ((4, 2), (8, 1)):
        keras.utils.set_random_seed(0)
        model = ft.load(tiny_bert, labels=texts.labels, dropout=0.0)
        options = {"accumulate": accumulate, "schedule": "constant", "learning_rate": 1e-5}
        model.compile(**ft.presets.cross_entropy(optimizer, **options))
        batches = texts.batches(model, batch_size)
        watched = {"validation_data": batches} if validates else {}
        start = weights(model)
        model.fit(batches, epochs=2, verbose=0, **watched)
        assert int(model.optimizer.iterations) == 4
        ends.append(weights(model) - start)
    assert np.abs(ends[0]).max() > 1e-6
    np.testing.assert_allclose(ends[0], ends[1], atol=0.02 * np.abs(ends[1]).max())


def test_accumulation_counts_batches():
    for wrong in (0, 1.5, "two"):
        with pytest.raises(ft.errors.ModelError, match="accumulate must be an integer >= 1"):
            ft.presets.cross_entropy(accumulate=wrong)


@pytest.mark.slow
def test_accumulation_with_the_schedule_of_a_preset():
    """Keras calls the schedule for each micro-batch, so the schedule counts micro-batches."""
    model = small_model()
    schedule = WarmupLinearDecay(1e-4, 0.5)
    model.compile(AdamW(schedule, gradient_accumulation_steps=2))
    rates = []
    note = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: rates.append(float(model.optimizer.learning_rate))
    )
    for _ in range(2):
        model.fit(TOKENS, ANSWERS, batch_size=4, verbose=0, callbacks=[note])
    np.testing.assert_allclose(rates, np.array([0.5, 1, 1, 1] * 2) * 1e-4, rtol=1e-5)


class Ends(keras.callbacks.Callback):
    """Notes the weights that a callback finds at the end of each epoch."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(weights(self.model))


def test_callbacks_find_the_last_step_of_an_epoch():
    """Without a validation as well, which applies what is left over in any case."""
    model, ends, eager = small_model(), Ends(), []
    model.compile(AdamW(1e-5, gradient_accumulation_steps=2))
    observe(model.optimizer, lambda *_: eager.append(not is_tracing()))
    model.fit(TOKENS[:12], ANSWERS[:12], batch_size=4, verbose=0, callbacks=[ends])
    np.testing.assert_array_equal(ends.seen[-1], weights(model))
    assert eager and not any(eager)  # an observer gets the gradients of batches only


def test_what_is_left_over_is_a_step_with_a_scaled_loss_as_well():
    ends = []
    for scale in (None, 8.0):
        keras.utils.set_random_seed(0)
        model = small_model()
        optimizer = inner = AdamW(1e-5, gradient_accumulation_steps=2)
        if scale is not None:
            optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=scale)
        model.compile(optimizer)
        model.fit(TOKENS[:12], ANSWERS[:12], batch_size=4, shuffle=False, verbose=0)
        assert int(inner.iterations) == 2
        ends.append(weights(model))
    np.testing.assert_allclose(ends[0], ends[1], atol=1e-7)


def test_float16_scales_the_loss():
    """Also if only the layers compute in float16, and not by a setting of the whole process."""
    changes = []
    for tiny in (1.0, 1e-5):  # gradients that float16 does not have
        keras.utils.set_random_seed(0)
        model = small_model()
        for layer in model.layers:
            if layer.name.startswith("block"):
                layer.dtype_policy = keras.dtype_policies.get("mixed_float16")
        model.compile(keras.optimizers.SGD(0.1 / tiny))
        assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
        block = model.get_layer("block_0").kernel
        before = np.array(block)
        given = np.full(len(TOKENS), tiny, "float32")
        model.fit(TOKENS, ANSWERS, sample_weight=given, shuffle=False, verbose=0)
        changes.append(np.array(block) - before)
    np.testing.assert_allclose(changes[1], changes[0], atol=0.1 * np.abs(changes[0]).max())
    model.compile(keras.optimizers.SGD(1e-3), auto_scale_loss=False)
    assert type(model.optimizer) is keras.optimizers.SGD


@pytest.mark.slow
def test_freezing_keeps_accumulated_slots_together():
    model = small_model()
    model.compile(AdamW(1e-5, gradient_accumulation_steps=2))
    model.fit(TOKENS, ANSWERS, batch_size=4, verbose=0)
    ft.freeze(model, ft.select.bottom(1))
    assert model.optimizer.gradient_accumulation_steps == 2
    assert int(model.optimizer.iterations) == 2
    model.fit(TOKENS, ANSWERS, batch_size=4, verbose=0)
    assert int(model.optimizer.iterations) == 4


@pytest.mark.slow
def test_mixed_precision(tiny_bert):
    model = ft.load(tiny_bert, labels=["no", "yes"], dtype="mixed_bfloat16")
    ft.train_only(model, ft.select.head() | ft.select.blocks(-1))
    before = weights(model)
    model.compile(keras.optimizers.SGD(1e-2))
    model.fit(TOKENS, ANSWERS, verbose=0)
    assert model(TOKENS).dtype == "float32"
    assert {variable.dtype for variable in model.weights} == {"float32"}
    assert not np.array_equal(before, weights(model))
    full = ft.load(tiny_bert, labels=["no", "yes"])
    full.set_weights(model.get_weights())
    np.testing.assert_allclose(model(TOKENS), full(TOKENS), atol=0.02)


@pytest.mark.slow
def test_loss_scaling_of_mixed_float16():
    """Keras wraps the optimizer; freezing and schedules have to use the inner optimizer."""
    policy = keras.dtype_policies.get("mixed_float16")
    model = small_model()
    for layer in model.layers:
        if layer.name.startswith("block"):
            layer.dtype_policy = policy
    with ft.messages.quiet():
        model.compile(**ft.presets.cross_entropy(), auto_scale_loss=False)
    inner = model.optimizer
    wrapped = keras.optimizers.LossScaleOptimizer(inner, initial_scale=8.0)
    model.compile(wrapped)
    model.fit(TOKENS, ANSWERS, batch_size=8, verbose=0)
    assert inner._learning_rate._bound
    ft.train_only(model, ft.select.head())
    assert type(model.optimizer) is keras.optimizers.LossScaleOptimizer
    assert model.optimizer.inner_optimizer._learning_rate.rate == pytest.approx(2e-3)
    before = weights(model)
    model.fit(TOKENS, ANSWERS, batch_size=8, verbose=0)
    assert (before != weights(model)).sum() <= 18


@pytest.mark.slow
def test_xla_trains_as_without(tiny_bert):
    losses = []
    for compiled in (False, True):
        keras.utils.set_random_seed(0)
        model = ft.load(tiny_bert, labels=["no", "yes"])
        model.compile(keras.optimizers.SGD(1e-2), jit_compile=compiled)
        history = model.fit(TOKENS, ANSWERS, batch_size=8, epochs=3, shuffle=False, verbose=0)
        losses.append(history.history["loss"])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


@pytest.mark.slow
def test_two_devices_train_as_one():
    """Two logical CPUs must be configured before TensorFlow starts, hence another process."""
    script = """
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, two)
        import keras
        import numpy as np
        from helpers_models import small_model, token_batch

        import finetune_tf as ft

        tokens, answers = token_batch(16)
        ends = []
        mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        for strategy in (mirrored, tf.distribute.get_strategy()):
            with strategy.scope():
                keras.utils.set_random_seed(0)
                model = small_model()
                model.compile(**ft.presets.cross_entropy(learning_rate=1e-4))
            model.fit(tokens, answers, batch_size=8, epochs=2, shuffle=False, verbose=0)
            ft.freeze(model, ft.select.bottom(1))
            model.fit(tokens, answers, batch_size=8, epochs=2, shuffle=False, verbose=0)
            ends.append(np.concatenate([v.numpy().ravel() for v in model.weights]))
        assert np.abs(ends[0] - ends[1]).max() < 1e-6
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={"PYTHONPATH": f"{TESTS}:{TESTS.parent}", "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_what_differs_inside_on_jax():
    """The same tests on JAX, where a running fit stores its state elsewhere."""
    pytest.importorskip("jax")
    which = "drops_out or (left_over and adamw) or shuffled_rows or (losses_and and bert-None)"
    names = ("fit_modes", "feature_cache", "gradient_checkpointing")
    files = [TESTS / "training" / f"test_{name}.py" for name in names]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-k", which, *files],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert run.returncode == 0, run.stdout
    assert " passed" in run.stdout and "skipped" not in run.stdout


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("call", ["fit", "train_on_batch"])
def test_variables_with_too_few_digits_are_not_trained(tiny_bert, dtype, call):
    model = ft.load(tiny_bert, labels=2, dtype=dtype)
    model.compile()
    with pytest.raises(ft.errors.ModelError, match=f"are {dtype}, such as .*'mixed_bfloat16'"):
        getattr(model, call)({"input_ids": np.array([[2, 5, 3]])}, np.array([1]))
