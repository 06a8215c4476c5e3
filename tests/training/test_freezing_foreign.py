"""Freezing works on any Keras model, and a frozen BatchNormalization keeps its statistics."""

import keras
import numpy as np
import pytest
from keras import layers

import finetune_tf as ft
from finetune_tf import select

RANDOM = np.random.default_rng(0)


def names(variables):
    """Returns the paths without the name of the model."""
    return {variable.path.partition("/")[2] for variable in variables}


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


def fit(model):
    """Runs one step; returns the variables that changed."""
    before = [variable.numpy() for variable in model.weights]
    x = RANDOM.normal(size=(8, *model.input_shape[1:])).astype("float32")
    model.fit(x, np.arange(8) % 3, verbose=0)
    return [
        variable
        for variable, old in zip(model.weights, before, strict=True)
        if not np.array_equal(old, variable.numpy())
    ]


@pytest.mark.slow
def test_statistics_of_a_frozen_stage_stand_still(network):
    ft.freeze(network, select.bottom(2))
    assert not [name for name in names(fit(network)) if name.startswith("a")]
    ft.train_only(network, select.everything())
    assert "a_norm/moving_mean" in names(fit(network))
    ft.freeze(network, select.bottom(2))
    assert {name.split("/")[0] for name in names(fit(network))} == {"b", "b_norm", "top"}


@pytest.mark.slow
def test_adam_of_keras_keeps_its_slots(network):
    def momentum():
        pairs = zip(network.trainable_variables, network.optimizer._momentums, strict=True)
        return {variable.path: slot.numpy() for variable, slot in pairs}

    fit(network)
    before = momentum()
    ft.freeze(network, select.bottom(1))
    assert len(momentum()) == len(before) - 2
    for path, slot in momentum().items():
        np.testing.assert_array_equal(slot, before[path])
    assert type(network.optimizer) is keras.optimizers.Adam
    assert names(fit(network)).isdisjoint({"a/kernel", "a/bias"})


@pytest.mark.slow
def test_biases_only(network):
    ft.train_only(network, select.biases())
    trainable = names(network.trainable_variables)
    assert trainable == {"a/bias", "a_norm/beta", "b/bias", "b_norm/beta", "top/bias"}
    assert {name for name in names(fit(network)) if "moving" not in name} <= trainable


@pytest.mark.slow
def test_resnet50():
    keras.utils.set_random_seed(0)
    resnet = keras.applications.ResNet50(
        weights=None, input_shape=(32, 32, 3), classes=3, classifier_activation=None
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    resnet.compile(keras.optimizers.SGD(1e-2), loss)
    ft.freeze(resnet, select.bottom(16))
    moved = {variable.path.split("/")[0] for variable in fit(resnet)}
    top = [layer.name for stage in ft.stages(resnet)[16:] for layer in stage.layers]
    assert moved == set(top)
    assert top[0] == "conv5_block2_1_conv"

    ft.train_only(resnet, select.biases())
    moved = [v.path for v in fit(resnet) if "moving" not in v.path]
    assert moved
    assert all(path.endswith(("bias", "beta")) for path in moved)


@pytest.mark.slow
def test_mobilenet_v2():
    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNetV2(
        weights=None, input_shape=(32, 32, 3), classes=3, classifier_activation=None, alpha=0.35
    )
    preset = ft.presets.cross_entropy("sgd", learning_rate=1e-2, schedule="constant")
    model.compile(**preset, jit_compile=False)
    names = [stage.name for stage in ft.stages(model)]
    below = names.index("block_15") + 1
    ft.freeze(model, select.bottom(below))
    top = {layer.name for stage in ft.stages(model)[below:] for layer in stage.layers}
    assert {variable.path.split("/")[0] for variable in fit(model)} == top

    ft.train_only(model, select.head())
    assert {variable.path for variable in fit(model)} == {
        *("predictions/bias", "predictions/kernel")
    }


def test_exclusions_from_weight_decay_are_kept_when_the_optimizer_is_rebuilt(network):
    """The config of an optimizer does not have them."""
    optimizer = keras.optimizers.AdamW(1e-2, weight_decay=0.9)
    optimizer.exclude_from_weight_decay(var_names=["bias"], var_list=[network.layers[0].kernel])
    network.compile(optimizer, "mse")
    ft.train_only(network, select.head())
    network.optimizer.build(network.trainable_variables)
    ft.train_only(network, select.everything())
    assert network.optimizer is not optimizer
    decays = {
        variable.path.partition("/")[2]: network.optimizer._use_weight_decay(variable)
        for variable in network.trainable_variables
    }
    assert [name for name, decay in decays.items() if not decay] == [
        "a/kernel",
        "a/bias",
        "b/bias",
        "top/bias",
    ]
