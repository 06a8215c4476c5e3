"""The content of presets, and that each one fits the outputs of its task."""

import re

import keras
import numpy as np
import pytest

from finetune_tf import presets
from finetune_tf.errors import ModelError
from finetune_tf.training import AdamW, WarmupLinearDecay
from finetune_tf.training.presets import make_optimizer
from finetune_tf.training.schedules import AutoConstant


def test_cross_entropy():
    preset = presets.cross_entropy()
    assert list(preset) == ["optimizer", "loss", "metrics"]
    assert type(preset["loss"]) is keras.losses.SparseCategoricalCrossentropy
    assert preset["loss"].get_config()["from_logits"] is True
    assert [metric.name for metric in preset["metrics"]] == ["accuracy"]
    optimizer = preset["optimizer"]
    assert type(optimizer) is AdamW
    assert optimizer.decay == 0.01
    assert optimizer.global_clipnorm == 1.0
    assert optimizer.epsilon == 1e-8
    assert optimizer._learning_rate.get_config() == {
        "peak": "auto",
        "warmup_ratio": 0.1,
        "pretrained_rate": 5e-5,
        "head_rate": 2e-3,
    }


def test_label_smoothing_takes_class_numbers_and_is_keras_one_hot_loss():
    logits = np.array([[2.0, -1.0, 0.5], [0.1, 0.2, 0.3]], "float32")
    loss = presets.cross_entropy(label_smoothing=0.1)["loss"]
    one_hot = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    expected = float(one_hot(np.eye(3, dtype="float32")[[0, 2]], logits))

    assert float(loss(np.array([0, 2]), logits)) == pytest.approx(expected, rel=1e-6)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert float(again(np.array([0, 2]), logits)) == pytest.approx(expected, rel=1e-6)


def test_binary_cross_entropy_counts_from_logit_zero():
    preset = presets.binary_cross_entropy()
    assert preset["loss"].get_config()["from_logits"] is True
    metric = preset["metrics"][0]
    metric.update_state([[1.0, 0.0]], [[0.2, -0.2]])
    assert float(metric.result()) == 1.0


def test_mean_squared_error():
    preset = presets.mean_squared_error()
    assert type(preset["loss"]) is keras.losses.MeanSquaredError
    assert preset["metrics"][0].name == "mae"


@pytest.mark.parametrize(
    "make", [presets.cross_entropy, presets.binary_cross_entropy, presets.mean_squared_error]
)
def test_options_reach_the_optimizer(make):
    optimizer = make("adamw", 2e-5, weight_decay=0.2, clip_norm=None, warmup_ratio=0.5)["optimizer"]
    assert optimizer.decay == 0.2
    assert optimizer.global_clipnorm is None
    assert optimizer._learning_rate.peak == 2e-5
    assert optimizer._learning_rate.warmup_ratio == 0.5


def test_sgd_has_momentum_and_larger_automatic_rates():
    sgd = make_optimizer("SGD")
    assert sgd.momentum == 0.9
    assert sgd._learning_rate.pretrained_rate == pytest.approx(5e-3)
    assert sgd._learning_rate.head_rate == pytest.approx(0.2)


def test_other_optimizers_by_name():
    assert type(make_optimizer("rmsprop")) is keras.optimizers.RMSprop
    assert type(make_optimizer("Lion", 1e-5)) is keras.optimizers.Lion


def test_schedules_and_rates():
    assert type(make_optimizer()._learning_rate) is WarmupLinearDecay
    assert type(make_optimizer(schedule="constant")._learning_rate) is AutoConstant
    assert float(make_optimizer("adamw", 2e-5, schedule="constant").learning_rate) == pytest.approx(
        2e-5
    )
    cosine = keras.optimizers.schedules.CosineDecay(1e-4, 10)
    assert make_optimizer("adamw", cosine)._learning_rate is cosine


def test_mistakes_are_named():
    with pytest.raises(ModelError, match=re.escape("There is no optimizer 'adamv'; use 'adamw'")):
        presets.cross_entropy("adamv")
    message = (
        "The schedule must be 'linear', 'cosine', 'one-cycle', 'polynomial' or 'constant', found "
        "'sine'."
    )
    with pytest.raises(ModelError, match=re.escape(message)):
        presets.cross_entropy(schedule="sine")
    with pytest.raises(ModelError, match="warmup_ratio must be a number >= 0 and < 1, found 1"):
        presets.cross_entropy(warmup_ratio=1)


@pytest.mark.parametrize("schedule", ["linear", "constant"])
@pytest.mark.parametrize("rate", ["fast", 0, -1, None])
def test_a_rate_is_a_number_above_zero(schedule, rate):
    with pytest.raises(
        ModelError, match=f"learning_rate must be a number > 0 or 'auto', found {rate!r}"
    ):
        presets.cross_entropy(learning_rate=rate, schedule=schedule)


def test_a_rate_may_be_a_whole_number():
    assert float(make_optimizer("sgd", 1, schedule="constant").learning_rate) == 1.0
