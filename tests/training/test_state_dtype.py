"""AdamW with moments in bfloat16: stochastic rounding, memory, files, and what is refused."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from helpers_resume import broken_and_resumed, on_arrays, outcome, preset
from keras import ops

import finetune_tf as ft
from finetune_tf.errors import ArgumentError, ModelError
from finetune_tf.kernels.adamw import stochastically_rounded
from finetune_tf.training import AdamW, optimizers

SHAPE = (64, 80)  # more than 4096 elements


def moments(optimizer) -> list[keras.Variable]:
    return [v for v in optimizer.variables if v.path.endswith(("_momentum", "_velocity"))]


def trained(state_dtype, steps, gradient_of_step, start=0.5, path="kernel", **options):
    """Returns a variable after some steps, and its moments in float32."""
    variable = keras.Variable(np.full(SHAPE, start, "float32"), name=path)
    adamw = AdamW(1e-3, state_dtype=state_dtype, **options)
    adamw.build([variable])

    def step(gradient):
        adamw.apply([gradient], [variable])

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        step = tf.function(step, autograph=False)
    for i in range(steps):
        step(ops.convert_to_tensor(gradient_of_step(i), "float32"))
    return variable.numpy(), [ops.convert_to_numpy(ops.cast(m, "float32")) for m in moments(adamw)]


def test_rounding_is_unbiased_and_to_a_neighbour():
    random = np.random.default_rng(0)
    pair = random.normal(size=2000).astype("float32"), random.lognormal(size=2000).astype("float32")
    seeds = [ops.convert_to_tensor(np.uint32(i)) for i in range(300)]
    drawn = [stochastically_rounded(*map(ops.convert_to_tensor, pair), seed) for seed in seeds]
    changes = []
    for x, rounded in zip(pair, zip(*drawn, strict=True), strict=True):
        assert rounded[0].dtype == "bfloat16"
        rounded = np.stack([ops.convert_to_numpy(ops.cast(each, "float32")) for each in rounded])
        assert np.abs(rounded / x - 1).max() < 2**-7
        assert {len(np.unique(column)) for column in rounded.T} <= {1, 2}
        np.testing.assert_allclose(rounded.mean(axis=0), x, rtol=2e-3)
        assert abs((rounded / x - 1).mean()) < 1e-5
        changes.append((rounded / x - 1).ravel())
    assert abs(np.corrcoef(*changes)[0, 1]) < 0.01
    zeros = stochastically_rounded(*[ops.zeros(3, "float32")] * 2, seeds[7])
    assert not ops.convert_to_numpy(ops.stack(zeros)).any()


@pytest.mark.slow
def test_the_second_moment_follows_gradients_where_rounding_to_the_nearest_stalls():
    """With gradients of 0.5, v after t steps is 0.25 (1 - 0.999ᵗ)."""
    steps, expected, nearest = 1200, 0.25 * (1 - 0.999**1200), np.float32(0)
    bfloat16 = ops.convert_to_numpy(ops.zeros(1, "bfloat16")).dtype
    for _ in range(steps):
        moved = nearest + np.float32(0.001) * (np.float32(0.25) - nearest)
        nearest = np.float32(moved.astype(bfloat16))
    assert nearest < 0.6 * expected  # stalled: each step is less than half of the next distance

    noise = np.random.default_rng(0).normal(0, 1e-3, SHAPE)  # so that elements differ
    _, (mean, square) = trained("bfloat16", steps, lambda i: 0.5 + noise)
    assert mean.mean() == pytest.approx(0.5, rel=1e-3)
    assert square.mean() == pytest.approx(expected, rel=0.01)
    assert np.sqrt(square).std() < 0.04 * np.sqrt(expected)


@pytest.mark.parametrize("options", [{}, {"global_clipnorm": 1.0}])
def test_weights_move_as_with_moments_in_float32(options):
    random = np.random.default_rng(3)
    gradients = [random.normal(0.3, 1.0, SHAPE) for _ in range(60)]
    found, _ = trained("bfloat16", 60, gradients.__getitem__, **options)
    expected, _ = trained(None, 60, gradients.__getitem__, **options)
    moved = np.abs(expected - 0.5).mean()
    assert moved > 0.01
    assert np.abs(found - expected).mean() < 0.01 * moved
    assert abs((found - expected).mean()) < 1e-3 * moved


def test_large_moments_take_half_of_the_memory_and_small_ones_are_left():
    variables = [
        keras.Variable(np.zeros(SHAPE, "float32"), name="kernel"),
        keras.Variable(np.zeros(80, "float32"), name="bias"),
    ]
    adamw = ft.presets.make_optimizer("adamw", 1e-4, state_dtype="bfloat16")
    adamw.build(variables)
    assert [v.dtype for v in moments(adamw)] == ["bfloat16"] * 2 + ["float32"] * 2
    others = AdamW(1e-4, state_dtype="float32")
    others.build(variables)
    assert [v.dtype for v in moments(others)] == ["float32"] * 4


@pytest.mark.slow
def test_a_fit_with_accumulation_can_be_saved_and_continues_as_it_would_have(tmp_path):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((64,))
    hidden = keras.layers.Dense(80, "tanh", name="hidden")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, name="top")(hidden))
    options = {"learning_rate": 1e-3, "schedule": "constant", "accumulate": 2}
    model.compile(**ft.presets.cross_entropy(state_dtype="bfloat16", **options))
    random = np.random.default_rng(0)
    x, y = random.normal(size=(32, 64)), random.integers(0, 2, 32)
    first = model.fit(x, y, batch_size=8, epochs=3, shuffle=False, verbose=0).history["loss"]
    assert first[-1] < first[0]
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.optimizer.state_dtype == "bfloat16"
    assert [v.dtype for v in again.optimizer.variables] == [
        v.dtype for v in model.optimizer.variables
    ]
    for network in (model, again):
        network.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    for one, other in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:A learning rate of")
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="Resume needs TensorFlow")
def test_a_resumed_fit_rounds_as_one_without_a_break(tmp_path, monkeypatch):
    monkeypatch.setattr(optimizers, "SMALLEST_NARROW", 16)

    def make():
        return on_arrays(preset(state_dtype="bfloat16"))

    model, _ = make()
    model.optimizer.build(model.trainable_variables)
    assert "bfloat16" in {v.dtype for v in model.optimizer.variables}
    broken_and_resumed(make, tmp_path, (0, 3), (1, 0)).require_same(outcome(make))


def test_what_is_refused():
    with pytest.raises(ArgumentError, match="state_dtype must be 'float32' or 'bfloat16', found"):
        AdamW(1e-4, state_dtype="float16")
    with pytest.raises(
        ModelError, match="state_dtype is for the moments of 'adamw', not for 'sgd'"
    ):
        ft.presets.cross_entropy("sgd", state_dtype="bfloat16")


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow has sparse tables")
def test_large_tables_and_compiled_blocks(monkeypatch):
    """Both move as with moments in float32; rows without a gradient decay."""
    import tensorflow as tf

    from finetune_tf.kernels import tensorflow_updates

    monkeypatch.setattr(tensorflow_updates, "_WORTH_COMPILING", 1 << 16)
    random = np.random.default_rng(0)
    table, kernel = random.normal(size=(5000, 3)), random.normal(size=(300, 256))
    values = tf.constant(random.normal(size=(3, 3)), "float32")
    rows = tf.IndexedSlices(values, tf.constant([7, 7, 4999]), tf.constant([5000, 3]))
    slope = tf.constant(random.normal(size=(300, 256)), "float32")

    def moved(dtype):
        with keras.name_scope("block_0"):
            block = keras.Variable(kernel.astype("float32"), name="kernel")
        variables = [keras.Variable(table.astype("float32"), name="table"), block]
        adamw = AdamW(1e-2, 0.1, global_clipnorm=1.0, state_dtype=dtype)
        adamw.build(variables)
        run = tf.function(lambda: adamw.apply([rows, slope], variables), autograph=False)
        for _ in range(5):
            run()
        types = [each.type for each in run.get_concrete_function().graph.get_operations()]
        assert "ResourceApplyAdam" not in types
        return [v.numpy() for v in variables]

    results = {dtype: moved(dtype) for dtype in ("float32", "bfloat16")}
    for found, expected, start in zip(*results.values(), (table, kernel), strict=True):
        assert np.abs(found - expected).max() < 0.02 * np.abs(expected - start).max()
    np.testing.assert_allclose(results["bfloat16"][0][1], table[1] * 0.999**5, rtol=1e-5)


@pytest.mark.slow
def test_on_jax():
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            __file__,
            "-m",
            "not slow",
        ],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
