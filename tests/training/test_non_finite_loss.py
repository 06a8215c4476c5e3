"""A NaN or infinite loss stops a fit with an error that says where it occurred and what to do."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers_models import small_model, token_batch

import finetune_tf as ft
from finetune_tf.errors import ModelError

TOKENS, ANSWERS = token_batch(16)
SCORES = ANSWERS.astype("float32")


def with_nan_at(row):
    scores = SCORES.copy()
    scores[row] = np.nan
    return scores


def squared_error(targets, outputs):
    """A custom loss, whose targets are not checked."""
    return keras.ops.mean(keras.ops.square(targets[:, None] - outputs))


def regressor(**compiled):
    model = small_model(["stars"])
    model.compile(loss=squared_error, **compiled)
    return model


def dataset(targets, batch_size=2):
    return tf.data.Dataset.from_tensor_slices((TOKENS, targets)).batch(batch_size)


def fit(model, targets, batch_size=2, **options):
    return model.fit(dataset(targets, batch_size), **{"epochs": 2, "verbose": 0, **options})


@pytest.mark.parametrize("verbose", [0, 2])
def test_the_step_and_the_rate_are_said(verbose):
    message = (
        "The loss is nan at step 7 of epoch 1, with a learning rate of 3.125e-05, so the fit was "
        "stopped. 9 of the 9 trainable variables now contain NaN or infinity, for example "
        "embeddings/embeddings: load the model again. Lower the learning rate (1e-5 to "
        "5e-5 is usual), or check that labels, sample weights and the weights of the model are "
        "finite numbers."
    )
    with pytest.raises(ModelError, match=re.escape(message)):
        fit(regressor(), with_nan_at(13), verbose=verbose)


def test_at_the_first_step_no_rate_is_to_blame():
    with pytest.raises(ModelError, match=r"at step 1 of epoch 1, .*rate has had no effect yet"):
        fit(regressor(), with_nan_at(0))


def test_with_a_callback_that_sees_each_step():
    seen = []
    note = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(batch))
    with pytest.raises(ModelError, match="at step 3 of epoch 1"):
        fit(regressor(), with_nan_at(5), callbacks=[note])
    assert seen == [0, 1, 2]


def test_several_steps_in_one_call():
    with pytest.raises(ModelError, match="at one of the steps 5 to 8 of epoch 1"):
        fit(regressor(steps_per_execution=4), with_nan_at(13))


def test_a_rate_that_is_far_too_high():
    model = small_model()
    model.compile(keras.optimizers.SGD(1e38))
    with pytest.raises(ModelError, match=r"The loss is (inf|nan) .* learning rate of 1e\+38"):
        fit(model, ANSWERS)


def test_the_last_step_is_seen_by_no_loss():
    model = small_model()
    optimizer = keras.optimizers.SGD(0.1)
    model.compile(optimizer)
    optimizer.learning_rate.assign(float("inf"))
    with pytest.raises(
        ModelError, match="The last step of the fit made weights NaN or infinite, with"
    ):
        fit(model, ANSWERS, batch_size=16, epochs=1)


def test_validation_data():
    message = r"The validation loss is nan after epoch 1, .*The weights are finite"
    with pytest.raises(ModelError, match=message):
        fit(regressor(), SCORES, validation_data=dataset(with_nan_at(0)))


@pytest.mark.parametrize("method", ["evaluate", "train_on_batch", "test_on_batch"])
@pytest.mark.filterwarnings("ignore:The schedule does not know")
def test_outside_of_a_fit(method):
    model = regressor()
    kernel = model.get_layer("block_0").weights[0]
    kernel.assign(np.full(kernel.shape, np.nan))
    options = {"verbose": 0} if method == "evaluate" else {}
    for form in ({}, {"return_dict": True}):
        with pytest.raises(ModelError, match=f"The loss computed by {method} is nan"):
            getattr(model, method)(TOKENS, SCORES, **form, **options)


def test_keras_own_callback_stops_without_an_error():
    history = fit(regressor(), with_nan_at(5), callbacks=[keras.callbacks.TerminateOnNaN()])
    assert len(history.history["loss"]) == 1


@pytest.mark.slow
def test_steps_that_loss_scaling_skips_are_none():
    """A loss scale so high that gradients overflow at first, while the loss is finite."""
    model = small_model()
    inner = keras.optimizers.SGD(0.1)
    model.compile(keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0**127))
    fit(model, ANSWERS, epochs=3)
    assert float(model.optimizer.dynamic_scale) < 2.0**127
    assert all(np.isfinite(value).all() for value in model.get_weights())


@pytest.mark.slow
def test_float16_gets_advice_of_its_own(tiny_bert):
    model = ft.load(tiny_bert, labels=2, dtype="mixed_float16")
    model.compile(keras.optimizers.SGD(1.0))
    kernel = model.get_layer("classifier").weights[0]
    kernel.assign(np.full(kernel.shape, np.nan))
    with pytest.raises(ModelError, match=r"bfloat16 instead of float16: ft\.load\(…, dtype='mixed"):
        model.fit(TOKENS, ANSWERS, verbose=0)
