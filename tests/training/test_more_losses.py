"""Focal, ordinal and Huber losses, and their presets."""

import re

import keras
import numpy as np
import pytest
from helpers_models import small_model, token_batch
from helpers_tasks import small_task_model

import finetune_tf as ft
from finetune_tf.errors import ArgumentError, ModelError
from finetune_tf.training.label_losses import (
    FocalCrossEntropy,
    LabelDistance,
    OrdinalCrossEntropy,
)

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(0, 2, (6, 4)).astype("float32")
LABELS = np.array([0, 3, 1, 2, 2, 0], "int32")


def softmax(logits):
    powers = np.exp(logits.astype("float64") - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def focal(logits, labels, gamma):
    p = softmax(logits)[np.arange(len(labels)), labels]
    return -((1 - p) ** gamma) * np.log(p)


def ordinal(logits, labels):
    above = 1 - np.cumsum(softmax(logits), axis=-1)[:, :-1]
    is_above = labels[:, None] > np.arange(logits.shape[1] - 1)
    return -np.where(is_above, np.log(above), np.log(1 - above)).sum(-1)


def gradient(loss, labels, logits):
    variable = keras.Variable(logits)
    import tensorflow as tf

    with tf.GradientTape() as tape:
        value = loss(labels, variable.value)
    return np.asarray(tape.gradient(value, variable.value))


def numeric_gradient(function, logits, step=1e-5):
    found = np.zeros(logits.shape)
    for place in np.ndindex(*logits.shape):
        moved = [logits.astype("float64") for _ in range(2)]
        moved[0][place] += step
        moved[1][place] -= step
        found[place] = (function(moved[0]) - function(moved[1])) / (2 * step)
    return found


CASES = {
    "focal 2": (FocalCrossEntropy(2.0), lambda z: focal(z, LABELS, 2.0).mean()),
    "focal 0.5": (FocalCrossEntropy(0.5), lambda z: focal(z, LABELS, 0.5).mean()),
    "focal 0": (FocalCrossEntropy(0.0), lambda z: focal(z, LABELS, 0.0).mean()),
    "ordinal": (OrdinalCrossEntropy(), lambda z: ordinal(z, LABELS).mean()),
}


@pytest.mark.parametrize("case", CASES)
def test_a_loss_and_its_gradient_are_those_of_a_reference(case):
    loss, reference = CASES[case]
    assert float(loss(LABELS, LOGITS)) == pytest.approx(reference(LOGITS), rel=1e-5)
    expected = numeric_gradient(reference, LOGITS)
    np.testing.assert_allclose(gradient(loss, LABELS, LOGITS), expected, rtol=1e-4, atol=1e-6)


def test_focal_loss_without_gamma_is_cross_entropy():
    plain = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    assert float(FocalCrossEntropy(0.0)(LABELS, LOGITS)) == pytest.approx(
        float(plain(LABELS, LOGITS)), rel=1e-6
    )


@pytest.mark.parametrize("make", [FocalCrossEntropy, OrdinalCrossEntropy])
def test_ignored_targets_and_shares(make):
    loss = make()
    ignored = np.where(np.arange(6) < 4, LABELS, -100)
    assert float(loss(ignored, LOGITS)) == pytest.approx(float(loss(LABELS[:4], LOGITS[:4])))
    assert float(loss(np.eye(4, dtype="float32")[LABELS], LOGITS)) == pytest.approx(
        float(loss(LABELS, LOGITS)), rel=1e-6
    )


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_a_certain_prediction_has_a_finite_gradient(gamma):
    logits = np.array([[80.0, -80.0], [-80.0, 80.0]], "float32")
    found = gradient(FocalCrossEntropy(gamma), np.array([0, 0]), logits)
    assert np.isfinite(found).all()
    assert np.isfinite(gradient(OrdinalCrossEntropy(), np.array([0, 0]), logits)).all()


def test_an_ordinal_loss_grows_with_the_distance():
    certain = 4.0 * np.eye(4, dtype="float32")
    losses = [float(OrdinalCrossEntropy()(np.array([0]), certain[i : i + 1])) for i in range(4)]
    assert losses == sorted(losses)
    assert losses[3] > 2 * losses[1]


def test_the_distance_of_labels():
    distance = LabelDistance()
    distance.update_state(np.array([0, 3, -100]), 4.0 * np.eye(4, dtype="float32")[[2, 3, 0]])
    assert float(distance.result()) == 1.0
    distance.reset_state()
    distance.update_state(np.array([0, 3]), np.eye(4)[[2, 3]], sample_weight=np.array([1.0, 3.0]))
    assert float(distance.result()) == 0.5


@pytest.mark.slow
@pytest.mark.parametrize("preset", [ft.presets.focal, ft.presets.ordinal])
def test_a_preset_fits_and_is_saved(preset, tmp_path):
    ids, labels = token_batch(16)
    keras.utils.set_random_seed(0)
    model = small_model(labels=["no", "perhaps", "yes"])
    model.info.pretrained = ()  # trained from scratch, so a high rate is right
    model.compile(**preset("adamw", 3e-2))
    history = model.fit(ids, labels * 2, epochs=30, batch_size=16, verbose=0).history
    assert history["loss"][-1] < history["loss"][0] / 2
    assert ("mae" in history) == (preset is ft.presets.ordinal)
    shares = np.eye(3, dtype="float32")[labels * 2]
    losses = [model.evaluate(ids, y, verbose=0)[0] for y in (labels * 2, shares)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.loss.get_config() == model.loss.get_config()
    assert again.evaluate(ids, labels * 2, verbose=0)[0] == pytest.approx(losses[0], rel=1e-5)


def test_label_weights_of_focal_loss_are_class_weights():
    ids, labels = token_batch(16)
    model = small_model()
    model.compile(**ft.presets.focal("sgd", 1e-9))
    logits = model.predict(ids, verbose=0)
    weighted = model.evaluate(ids, labels, class_weight={"yes": 3.0}, verbose=0)[0]
    alpha = np.where(labels == 1, 3.0, 1.0)
    assert weighted == pytest.approx((alpha * focal(logits, labels, 2.0)).mean(), rel=1e-5)


def test_huber_loss_of_a_regression():
    ids, _ = token_batch(8)
    model = small_model(labels=["stars"])
    model.compile(**ft.presets.huber(delta=0.5))
    targets = np.linspace(0, 8, 8).astype("float32")
    errors = np.abs(model.predict(ids, verbose=0)[:, 0] - targets)
    expected = np.where(errors < 0.5, errors**2 / 2, 0.5 * errors - 0.125).mean()
    assert model.evaluate(ids, targets, verbose=0)[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["focal", "ordinal"])
@pytest.mark.parametrize("case", ["number", "several labels", "vectors"])
def test_a_preset_for_labels_is_refused_elsewhere(name, case):
    with pytest.raises(ModelError, match=r"CrossEntropy is for one label out of several, but"):
        small_task_model(case).compile(**getattr(ft.presets, name)())


def test_tokens_have_no_order():
    message = (
        "OrdinalCrossEntropy is for whole texts or images whose labels have an order, but the "
        "model's task is 'token-classification'. Call compile() without a loss to use that of the "
        "preset."
    )
    with pytest.raises(ModelError, match=re.escape(message)):
        small_task_model("tokens").compile(**ft.presets.ordinal())
    small_task_model("tokens").compile(**ft.presets.focal())


def test_arguments_are_checked():
    with pytest.raises(ArgumentError, match="gamma must be a number >= 0, found -1"):
        ft.presets.focal(gamma=-1)
    with pytest.raises(ArgumentError, match="delta must be a number > 0, found 0"):
        ft.presets.huber(delta=0)
