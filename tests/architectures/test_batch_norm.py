"""Batch normalisation: the kernels agree, and the layer keeps float32 and its config."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from finetune_tf import kernels
from finetune_tf.architectures import BatchNorm, ConvNorm, Group, Residual, Stem
from finetune_tf.kernels import portable

RANDOM = np.random.default_rng(0)
SHAPES = [(4, 5, 3, 6), (2, 1, 1, 3), (1, 4, 4, 1)]


def values(shape, dtype="float32"):
    x = RANDOM.normal(1.0, 2.0, shape)
    gamma, beta = RANDOM.normal(size=(2, shape[-1])).astype("float32")
    return tf.cast(x, dtype), tf.constant(gamma), tf.constant(beta)


def results(function, x, gamma, beta):
    """The outputs and the gradients of a function of them that weighs each one differently."""
    weights = tf.reshape(tf.cos(tf.range(tf.size(x), dtype="float32")), x.shape)
    with tf.GradientTape() as tape:
        tape.watch([x, gamma, beta])
        out, mean, variance = function(x, gamma, beta, 1e-3)
        loss = tf.reduce_sum(tf.cast(out, "float32") * weights) + tf.reduce_sum(mean + variance)
    return [out, mean, variance, *tape.gradient(loss, [x, gamma, beta])]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_fused_operation_equals_the_portable_formula(shape):
    inputs = values(shape)
    pairs = zip(
        results(kernels.batch_norm, *inputs), results(portable.batch_norm, *inputs), strict=True
    )
    for found, expected in pairs:
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_the_fused_operation_in_bfloat16():
    inputs = values(SHAPES[0], "bfloat16")
    found, expected = (results(f, *inputs) for f in (kernels.batch_norm, portable.batch_norm))
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        one, other = (np.asarray(tf.cast(each, "float32")) for each in (one, other))
        np.testing.assert_allclose(one, other, rtol=0.02, atol=0.02)


def test_float64_keeps_its_precision():
    x, gamma, beta = values(SHAPES[0], "float64")
    inputs = x, tf.cast(gamma, "float64"), tf.cast(beta, "float64")
    out, mean, variance = kernels.batch_norm(*inputs, 1e-5)
    x = x.numpy()
    np.testing.assert_allclose(mean, x.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(variance, x.var((0, 1, 2), ddof=1), rtol=1e-12)
    assert out.dtype == "float64"


def test_a_single_value_gives_no_nan():
    x, gamma, beta = values((1, 1, 1, 3))
    for function in (kernels.batch_norm, portable.batch_norm):
        out, mean, variance = function(x, gamma, beta, 1e-5)
        np.testing.assert_allclose(out[0, 0, 0], beta, atol=1e-6)
        np.testing.assert_allclose(mean, x[0, 0, 0], rtol=1e-6)
        np.testing.assert_array_equal(variance, np.zeros(3))


def test_stored_statistics_move_by_the_momentum():
    x, *_ = values(SHAPES[0])
    layer = BatchNorm(momentum=0.25)
    layer(x, training=True)
    np.testing.assert_array_equal(layer.mean, np.zeros(6))
    layer.learns_statistics = True
    layer(x)
    np.testing.assert_array_equal(layer.mean, np.zeros(6))
    layer(x, training=True)
    x = x.numpy().astype("float64")
    np.testing.assert_allclose(layer.mean, 0.25 * x.mean((0, 1, 2)), rtol=1e-5)
    unbiased = x.var((0, 1, 2), ddof=1)
    np.testing.assert_allclose(layer.variance, 0.75 + 0.25 * unbiased, rtol=1e-5)


def test_statistics_of_a_frozen_layer_never_move():
    x, *_ = values(SHAPES[0])
    layer = BatchNorm(learns_statistics=True)
    layer.trainable = False
    np.testing.assert_array_equal(layer(x, training=True), layer(x))
    np.testing.assert_array_equal(layer.mean, np.zeros(6))


def test_bfloat16_keeps_statistics_in_float32():
    x, *_ = values(SHAPES[0])
    layer = BatchNorm(learns_statistics=True, dtype="mixed_bfloat16")
    out = layer(ops.cast(x, "bfloat16"), training=True)
    assert out.dtype == "bfloat16"
    assert {variable.dtype for variable in layer.variables} == {"float32"}
    mean = np.asarray(ops.cast(ops.cast(x, "bfloat16"), "float32")).mean((0, 1, 2))
    np.testing.assert_allclose(layer.mean, 0.1 * mean, rtol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: BatchNorm(),
        lambda: ConvNorm(3, 3),
        lambda: Stem(3),
        lambda: Group([ConvNorm(3, 3, name="first")]),
        lambda: Residual([ConvNorm(3, 3, name="first")], ConvNorm(3, 1, name="shortcut")),
    ],
    ids=["BatchNorm", "ConvNorm", "Stem", "Group", "Residual"],
)
def test_configs_keep_whether_statistics_are_learned(make):
    def norms(layer):
        return [part for part in layer._flatten_layers() if isinstance(part, BatchNorm)]

    layer = make()
    assert norms(layer) and not any(norm.learns_statistics for norm in norms(layer))
    for norm in norms(layer):
        norm.learns_statistics = True
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert len(norms(again)) == len(norms(layer))
    assert all(norm.learns_statistics for norm in norms(again))


@pytest.mark.parametrize("size", [9, 10])
def test_a_window_of_one_pixel_with_a_step_keeps_to_its_memory(size):
    """TensorFlow's own strided convolution kills the process here, on processors with AVX-512."""
    layer = ConvNorm(12, 1, strides=2)
    x = tf.constant(RANDOM.normal(size=(1, size, size, 3)), "float32")
    assert layer(x).shape == layer.compute_output_shape(x.shape) == (1, 5, 5, 12)
    kernel = layer.convolution.kernel
    for _ in range(100):
        with tf.GradientTape() as tape:
            tape.watch(x)
            found = layer.convolution(x[:, ::2, ::2])
            loss = tf.reduce_sum(layer(x) * np.sqrt(1 + 1e-5))
        gradients = tape.gradient(loss, [x, kernel.value])
    np.testing.assert_allclose(layer(x) * np.sqrt(1 + 1e-5), found, rtol=1e-5, atol=1e-6)
    selected = np.zeros((size, size), "float32")
    selected[::2, ::2] = 1
    expected = selected[..., None] * np.sum(kernel[0, 0], axis=-1)
    np.testing.assert_allclose(gradients[0][0], expected, rtol=1e-4, atol=1e-5)
    read = np.sum(x[0, ::2, ::2], axis=(0, 1))
    np.testing.assert_allclose(gradients[1][0, 0], np.repeat(read[:, None], 12, 1), rtol=1e-4)
