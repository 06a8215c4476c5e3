"""Freezing works on any Keras model, and a frozen BatchNormalization keeps its statistics."""

import keras
import numpy as np
import pytest
from keras import layers

import finetune_tf as ft
from finetune_tf import select

RANDOM = np.random.default_rng(0)


def changed(model, before):
    return {v.path for v in model.weights if not np.array_equal(before[v.path], v.numpy())}


def values(model):
    return {v.path: v.numpy() for v in model.weights}


@pytest.fixture
def network():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(4, name="a"),
            layers.BatchNormalization(name="a_norm"),
            layers.Dense(4, name="b"),
            layers.BatchNormalization(name="b_norm"),
            layers.Dense(3, name="top"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-2), loss)
    return model


def fit(model, **kwargs):
    before = values(model)
    x, y = RANDOM.normal(size=(8, *model.input_shape[1:])).astype("float32"), np.arange(8) % 3
    model.fit(x, y, verbose=0, **kwargs)
    return changed(model, before)


def test_statistics_of_a_frozen_stage_stand_still(network):
    ft.freeze(network, select.bottom(2))
    assert not {path for path in fit(network) if path.startswith("a")}
    ft.train_only(network, select.everything())
    assert "a_norm/moving_mean" in fit(network)
    ft.freeze(network, select.bottom(2))
    assert {path.split("/")[0] for path in fit(network)} == {"b", "b_norm", "top"}


def test_adam_of_keras_keeps_its_slots(network):
    fit(network)
    momentum = {
        v.path: m.numpy()
        for v, m in zip(network.trainable_variables, network.optimizer._momentums, strict=True)
    }
    ft.freeze(network, select.bottom(1))
    for variable, slot in zip(
        network.trainable_variables, network.optimizer._momentums, strict=True
    ):
        np.testing.assert_array_equal(slot.numpy(), momentum[variable.path])
    assert type(network.optimizer) is keras.optimizers.Adam
    assert fit(network).isdisjoint({"a/kernel", "a/bias"})


def test_biases_only(network):
    ft.train_only(network, select.biases())
    trainable = {v.path for v in network.trainable_variables}
    assert trainable == {"a/bias", "a_norm/beta", "b/bias", "b_norm/beta", "top/bias"}
    assert {path for path in fit(network) if "moving" not in path} <= trainable


@pytest.mark.slow
def test_resnet50():
    keras.utils.set_random_seed(0)
    resnet = keras.applications.ResNet50(
        weights=None, input_shape=(32, 32, 3), classes=3, classifier_activation=None
    )
    resnet.compile(
        keras.optimizers.SGD(1e-2), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    ft.freeze(resnet, select.bottom(16))
    still = {v.path for stage in ft.stages(resnet)[:16] for la in stage.layers for v in la.weights}
    moved = fit(resnet)
    assert len(still) == 282
    assert moved.isdisjoint(still)
    assert {path.split("_")[0] for path in moved} == {"conv5", "predictions/kernel", "predictions/bias"}
    ft.train_only(resnet, select.biases())
    assert all(v.path.endswith(("bias", "beta")) for v in resnet.trainable_variables)
    moved = {path for path in fit(resnet) if "moving" not in path}
    assert moved
    assert all(path.endswith(("bias", "beta")) for path in moved)
