"""XLA-compiled kernels of training steps against the portable ones, forward and backward."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from finetune_tf.kernels import portable
from finetune_tf.kernels import tensorflow as compiled

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(0, 2, (3, 5, 8))
RESIDUAL = RANDOM.normal(0, 1, (3, 5, 8))
GAMMA, BETA = RANDOM.normal(1, 0.3, (8,)), RANDOM.normal(0, 0.3, (8,))
SCORES = RANDOM.normal(0, 3, (3, 2, 5, 5))
MASK = np.asarray([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]], "int32")


def in_a_graph(kernel, inputs, upstream):
    """Returns value and gradients of a traced training step; the batch size is unknown."""

    def step(*tensors):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            value = kernel(*tensors)
        return value, tape.gradient(value, tensors, tf.cast(upstream, value.dtype))

    specs = [tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype) for tensor in inputs]
    value, gradients = tf.function(step, input_signature=specs)(*inputs)
    return [np.asarray(tf.cast(tensor, tf.float64)) for tensor in (value, *gradients)]


def assert_agrees(kernel, reference, inputs, dtypes, tolerance, upstream_shape=None):
    """Compares `kernel` in the given dtypes with `reference` in float64 on the rounded inputs."""
    rounded = [tf.cast(array, dtype) for array, dtype in zip(inputs, dtypes, strict=True)]
    # Each call has its own generator, so that a test does not depend on the tests before it.
    sampled = np.random.default_rng(1).normal(0, 1, upstream_shape or inputs[0].shape)
    upstream = tf.cast(tf.cast(sampled, dtypes[0]), tf.float64)
    found = in_a_graph(kernel, rounded, upstream)
    wide = [tf.cast(tensor, tf.float64) for tensor in rounded]
    expected = in_a_graph(reference, wide, upstream)
    for actual, desired in zip(found, expected, strict=True):
        np.testing.assert_allclose(actual, desired, rtol=tolerance, atol=tolerance)


# bfloat16 has 8 bits of precision; sums of 15 rounded values are off by a few units of the last.
PRECISIONS = [("float32", 2e-6), ("bfloat16", 2**-6)]


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("name", sorted({*portable.ACTIVATIONS} - {"gelu_fast", "swish"}))
def test_activation_of_a_layer(name, dtype, tolerance):
    if name in ("gelu_new", "gelu_pytorch_tanh") and dtype == "float32":
        tolerance = 5e-6  # 1 - tanh² cancels; the portable kernel has an error of 3e-6 as well
    assert_agrees(
        lambda x: compiled.activated(lambda x: x + 1, x, name, training=True),
        lambda x: portable.activated(lambda x: x + 1, x, name),
        [X],
        [dtype],
        tolerance,
    )


class PlainDense:
    """What `activated` needs of a Dense layer whose bias it may fuse with the activation."""

    def __init__(self, kernels, kernel, bias, is_plain):
        self.kernels, self.kernel, self.bias, self.is_plain = kernels, kernel, bias, is_plain

    def __call__(self, x):
        return self.kernels.dense(x, self.kernel, self.bias)


@pytest.mark.parametrize("is_plain", [True, False], ids=["plain", "wrapped"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("name", ["gelu", "linear"])
def test_dense(name, bias, training, is_plain):
    def layer(kernels, x, kernel, *bias):
        product = PlainDense(kernels, kernel, bias[0] if bias else None, is_plain)
        return kernels.activated(product, x, name, training=training)

    random = np.random.default_rng(2)
    inputs = [X, random.normal(0, 0.5, (8, 6)), random.normal(0, 1, (6,))][: 3 if bias else 2]
    assert_agrees(
        lambda *given: layer(compiled, *given),
        lambda *given: layer(portable, *given),
        inputs,
        ["float32"] * len(inputs),
        5e-6,
        upstream_shape=(3, 5, 6),
    )


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_residual_and_layer_norm(dtype, tolerance):
    dropout = keras.layers.Dropout(0.0, dtype=dtype)
    assert_agrees(
        lambda *inputs: compiled.add_norm(*inputs, 1e-3, dropout, training=True),
        lambda *inputs: portable.add_norm(*inputs, 1e-3, lambda x, training: x),
        [X, RESIDUAL, GAMMA, BETA],
        [dtype, dtype, "float32", "float32"],
        tolerance,
    )


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("pairs", [False, True], ids=["keys", "pairs"])
def test_softmax(pairs, dtype, tolerance):
    mask = MASK[:, None, None, :] == 1
    mask = mask & np.tril(np.ones((5, 5), "bool")) if pairs else mask
    dropout = keras.layers.Dropout(0.0)
    assert_agrees(
        lambda scores: compiled.masked_softmax(scores, mask, dropout, training=True),
        lambda scores: portable.masked_softmax(scores, mask),
        [SCORES],
        [dtype],
        tolerance,
    )


def dropped_softmax(rate, seed=1):
    dropout = keras.layers.Dropout(rate, seed=seed)
    dropout.build(None)
    scores = tf.zeros((4, 8, 64, 64))

    @tf.function
    def step(scores):
        with tf.GradientTape() as tape:
            tape.watch(scores)
            mask = tf.ones((4, 1, 1, 64), tf.bool)
            value = compiled.masked_softmax(scores, mask, dropout, training=True)
        return value * 64, tape.gradient(value, scores, tf.range(64.0) * tf.ones_like(value))

    return [step(scores) for _ in range(2)]


@pytest.mark.slow
def test_dropout_rate_and_scale():
    for rate in (0.1, 0.5):
        (value, _), _ = dropped_softmax(rate)
        kept = value.numpy() != 0
        # With 131,072 samples, the rate is within five standard deviations.
        assert abs(kept.mean() - (1 - rate)) < 5 * np.sqrt(rate * (1 - rate) / kept.size)
        np.testing.assert_allclose(value.numpy()[kept], 1 / (1 - rate), rtol=1e-6)
        for axis in range(4):  # the rate is the same in each row, column, head and text
            shares = kept.mean(axis=tuple({0, 1, 2, 3} - {axis}))
            count = kept.size / kept.shape[axis]
            assert np.abs(shares - (1 - rate)).max() < 5 * np.sqrt(rate * (1 - rate) / count)


def test_the_gradient_uses_the_same_dropout_mask():
    (value, gradient), _ = dropped_softmax(0.25)
    weights, upstream = 1 / 64, np.arange(64) * value.numpy()
    expected = weights * (upstream - (upstream * weights).sum(-1, keepdims=True))
    np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-4, atol=1e-6)


def test_dropout_is_repeatable_and_differs_by_step_and_seed():
    (first, _), (second, _) = dropped_softmax(0.5)
    (again, _), _ = dropped_softmax(0.5)
    (other, _), _ = dropped_softmax(0.5, seed=2)
    np.testing.assert_array_equal(first, again)
    for masks in ((first, second), (first, other)):
        a, b = (mask.numpy().ravel() != 0 for mask in masks)
        assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(a.size)
        # The masks are not shifted copies of each other either.
        correlation = np.fft.irfft(np.fft.rfft(a - 0.5) * np.conj(np.fft.rfft(b - 0.5)))
        assert np.abs(correlation).max() / (0.25 * a.size) < 7 / np.sqrt(a.size)


def gelu_of_dense(kernels, x, training):
    """Applies GELU to a product with a bias, as a feed-forward layer does."""
    bias, one = tf.cast(BETA, tf.float32), tf.eye(8)
    return kernels.activated(lambda x: kernels.dense(x, one, bias), x, "gelu", training)


def test_eager_calls_and_inference_compile_nothing():
    x = tf.cast(X, tf.float32)
    eager = gelu_of_dense(compiled, x, training=True)
    np.testing.assert_allclose(eager, gelu_of_dense(portable, x, training=True), rtol=1e-6)
    graph = tf.function(lambda: gelu_of_dense(compiled, x, training=False))
    operations = {op.type for op in graph.get_concrete_function().graph.get_operations()}
    assert not any("Call" in name for name in operations), operations


def test_inside_a_graph_that_xla_compiles_as_a_whole():
    x = tf.cast(X, tf.float32)
    whole = tf.function(lambda: gelu_of_dense(compiled, x, training=True), jit_compile=True)
    expected = gelu_of_dense(portable, x, training=True)
    np.testing.assert_allclose(whole(), expected, rtol=1e-5, atol=1e-6)
    assert ops.shape(whole()) == X.shape
