"""Data of unknown length: the step that finds the end of the data changes nothing."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers_models import small_model, token_batch

import finetune_tf as ft
from finetune_tf.errors import DataError
from finetune_tf.training.fit_errors import check_length

pytestmark = [
    # The random models here have no pretrained weights that a high rate could ruin.
    pytest.mark.filterwarnings("ignore:A learning rate of"),
    # So Keras says that the length was not known; the next epoch begins nevertheless.
    pytest.mark.filterwarnings("ignore:Your input ran out of data"),
]
CONSTANT = {"schedule": "constant"}  # the others depend on the length

BATCHES, ROWS = 3, 4


def data(known):
    """The same batches, of known or unknown length."""
    tokens, labels = token_batch(BATCHES * ROWS)
    rows = tf.data.Dataset.from_tensor_slices((tokens, labels)).batch(ROWS, drop_remainder=True)
    return rows if known else rows.filter(lambda *_: tf.constant(True))


def fitted(batches, optimizer):
    keras.utils.set_random_seed(0)
    model = small_model()
    model.compile(optimizer(), objectives=[ft.objectives.NEFTune(5.0)])  # draws random numbers
    losses = model.fit(batches, epochs=4, verbose=0).history["loss"]
    model.evaluate(batches, verbose=0)
    return model, losses


OPTIMIZERS = {
    "preset": lambda: ft.presets.make_optimizer("adamw", 1e-2, **CONSTANT, weight_decay=0.3),
    "several rates": lambda: ft.presets.make_optimizer(
        "adamw", 1e-2, **CONSTANT, rates={"embeddings": 0.5}
    ),
    "Keras": lambda: keras.optimizers.AdamW(1e-2, weight_decay=0.3),
    "accumulation": lambda: ft.presets.make_optimizer("adamw", 1e-2, **CONSTANT, accumulate=2),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_numbers_are_those_of_known_length(name):
    expected, losses = fitted(data(known=True), OPTIMIZERS[name])
    found, found_losses = fitted(data(known=False), OPTIMIZERS[name])
    assert found_losses == losses
    pairs = zip(
        [*expected.variables, *expected.optimizer.variables],
        [*found.variables, *found.optimizer.variables],
        strict=True,
    )
    for one, other in pairs:
        np.testing.assert_array_equal(one.numpy(), other.numpy(), err_msg=one.path)


def test_a_strategy_of_one_device():
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        model, _ = fitted(data(known=False), OPTIMIZERS["preset"])
    assert int(model.optimizer.iterations.numpy()) == 4 * BATCHES


def test_a_foreign_model():
    """The optimizer alone keeps its step counter and its weight decay, whatever the model is."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="dense")])
    model.compile(ft.presets.make_optimizer("adamw", 1e-2, **CONSTANT, weight_decay=0.3), "mse")
    rows = tf.data.Dataset.from_tensor_slices((np.ones((6, 2)), np.ones((6, 3)))).batch(2)
    unknown = rows.filter(lambda *_: tf.constant(True))
    model.fit(unknown, epochs=4, shuffle=False, verbose=0)
    assert int(model.optimizer.iterations) == 4 * 3


def test_several_devices_need_a_known_length():
    check_length(data(known=True), 2, None)
    check_length(data(known=False), 1, None)
    check_length(data(known=False).repeat(), 2, 3)
    check_length(data(known=True).repeat(), 2, 3)
    for unknown in (data(known=False), iter([token_batch()])):
        with pytest.raises(DataError, match="fit needs data of known length.*assert_cardinality"):
            check_length(unknown, 2, None)
