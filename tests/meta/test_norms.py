"""Normalizations with exact second derivatives compute the same as Keras's own."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers_meta import network

from finetune_tf.architectures import BatchNorm
from finetune_tf.base.keras_internals import all_layers
from finetune_tf.meta.norms import exact_norms, inexact_norms

X = np.random.default_rng(1).normal(size=(4, 5))
F64 = {"dtype": "float64"}
NORMS = {
    "batch": lambda: keras.layers.BatchNormalization(**F64),
    "layer": lambda: keras.layers.LayerNormalization(**F64),
    "group": lambda: keras.layers.GroupNormalization(2, **F64),
}


def outputs(model, training=True):
    return model(tf.constant(X), training=training)


@pytest.mark.parametrize("name", NORMS)
def test_outputs_and_gradients_are_those_of_keras(name):
    model = network(NORMS[name](), **F64)

    def loss_and_gradients():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(outputs(model)))
        return [loss, *tape.gradient(loss, [v.value for v in model.trainable_variables])]

    before = loss_and_gradients()
    with exact_norms(model, "batch"):
        inside = loss_and_gradients()
    for one, other in zip(before, inside, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


def curvature(model, variables, directions):
    """The second derivative of a loss along a direction, by two gradients."""
    with tf.GradientTape() as outer:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(outputs(model)))
        gradients = tape.gradient(loss, variables)
        along = sum(tf.reduce_sum(g * d) for g, d in zip(gradients, directions, strict=True))
    seconds = outer.gradient(along, variables)
    return float(sum(tf.reduce_sum(s * d) for s, d in zip(seconds, directions, strict=True)))


def measured_curvature(model, variables, directions, step=1e-4):
    """The same by differences of the loss."""
    start = [tf.identity(variable) for variable in variables]

    def loss(size):
        for variable, value, direction in zip(variables, start, directions, strict=True):
            variable.assign(value + size * direction)
        return float(tf.reduce_sum(tf.square(outputs(model))))

    result = (loss(step) - 2 * loss(0.0) + loss(-step)) / step**2
    loss(0.0)
    return result


@pytest.mark.parametrize("name", NORMS)
def test_second_derivatives_are_those_of_differences(name):
    model = network(NORMS[name](), **F64)
    variables = [variable.value for variable in model.trainable_variables]
    generator = np.random.default_rng(2)
    directions = [tf.constant(generator.normal(size=v.shape)) for v in variables]
    measured = measured_curvature(model, variables, directions)
    with exact_norms(model, "batch"):
        exact = curvature(model, variables, directions)
    assert exact == pytest.approx(measured, rel=1e-5)
    # Keras's own second derivatives are wrong, which is why these layers are replaced.
    assert curvature(model, variables, directions) != pytest.approx(measured, rel=1e-4)


def test_our_batch_normalization_reads_the_batch_inside_only():
    inputs = keras.Input((3, 3, 2))
    norm = BatchNorm(name="norm")
    model = keras.Model(inputs, norm(inputs))
    x = np.random.default_rng(0).normal(2.0, 3.0, (4, 3, 3, 2)).astype("float32")
    with exact_norms(model, "batch"):
        inside = np.asarray(model(x))
    np.testing.assert_allclose(inside.mean(axis=(0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(model(x), x, rtol=1e-4)
    assert not np.any(norm.mean)  # the stored statistics stay as they are


def test_the_block_leaves_nothing_behind():
    model = network(NORMS["batch"](), keras.layers.Dropout(0.5, **F64), **F64)
    before = [dict(vars(part)) for part in all_layers(model)]
    with pytest.raises(RuntimeError), exact_norms(model, "support"):
        assert next(p for p in all_layers(model) if isinstance(p, keras.layers.Dropout)).rate == 0
        raise RuntimeError
    assert [vars(part) for part in all_layers(model)] == before


def test_statistics_of_another_batch():
    model = network(NORMS["batch"](), **F64)
    with exact_norms(model, "support") as found:
        together = outputs(model).numpy()
    with exact_norms(model, "support", found.found):
        alone = model(tf.constant(X[:1])).numpy()
    np.testing.assert_allclose(alone, together[:1], rtol=1e-12)


class OwnNorm(keras.layers.LayerNormalization):
    """A subclass, which may compute anything."""


def test_what_cannot_be_replaced_is_found():
    model = network(
        OwnNorm(name="own"),
        keras.layers.BatchNormalization(renorm=True, name="renorm"),
        keras.layers.LayerNormalization(name="plain"),
    )
    assert [layer.name for layer in inexact_norms(model)] == ["own", "renorm"]
