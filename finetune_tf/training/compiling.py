"""What `model.compile` understands: presets by task, and old scripts that would not learn."""

from typing import Any

import keras

from finetune_tf.base.arguments import check, shown
from finetune_tf.base.keras_internals import inner_optimizer, rate_of
from finetune_tf.errors import ModelError
from finetune_tf.messages import say, warn
from finetune_tf.tasks import Task
from finetune_tf.training import presets
from finetune_tf.training.gradients import leaves
from finetune_tf.training.metrics import fitting_metrics
from finetune_tf.training.outputs import fitting_loss
from finetune_tf.training.pretrained import learns_pretrained
from finetune_tf.training.schedules import schedule_of

# Highest rate at which pretrained weights survive an optimizer that divides by gradient size.
HIGHEST_SAFE_RATE = 1e-4
_ADAPTIVE = ("Adam", "RMSprop", "Adagrad", "Adadelta", "Ftrl", "Lion", "Lamb")


def resolve(
    model: keras.Model,
    task: Task,
    optimizer: Any,
    loss: Any,
    metrics: Any,
    weighted_metrics: Any = None,
) -> dict[str, Any]:
    """Completes and corrects the arguments of `compile`, saying so.

    Args:
        model: Whose rates are judged.
        task: Of the model; its preset fills in what is missing.
        optimizer: As for Keras, or None for the preset's. A name gets the "auto" rate.
        loss: As for Keras, or None for the preset's. A name means the loss on logits.
        metrics: As for Keras, or a single one; with no loss given, the preset's.
        weighted_metrics: As `metrics`.

    Returns:
        optimizer, loss, metrics and weighted_metrics for Keras.

    Raises:
        ModelError: If the loss or a metric cannot fit the model's labels, or the optimizer is of
            Keras 2.
    """
    make = presets.PRESETS[task.output_kind]
    preset = make()
    if "tf_keras" in type(optimizer).__module__:
        raise ModelError(
            "The optimizer is one of tf_keras (Keras 2), the model is one of Keras 3: unset "
            "TF_USE_LEGACY_KERAS and write keras.optimizers.Adam(2e-5)."
        )
    if optimizer is None:
        optimizer = preset["optimizer"]
    elif isinstance(optimizer, str):
        rate = "rate 'auto' with warm-up and linear decay"
        say(f"compile: optimizer {optimizer!r} gets the {rate}, not Keras's default rate.")
        optimizer = presets.make_optimizer(optimizer, clip_norm=None)
    else:
        try:
            optimizer = keras.optimizers.get(optimizer)
        except (KeyError, TypeError, ValueError):
            raise ModelError(
                "An optimizer is a name such as 'adamw', one of keras.optimizers, or left out for "
                f"the preset's; found {shown(optimizer)}."
            ) from None
    check_numbers(optimizer)
    if loss is None:
        loss = preset["loss"]
        metrics = preset["metrics"] if metrics is None else metrics
        say(f"compile: loss and metrics of the preset {make.__name__}.")
    loss = fitting_loss(loss, task)
    model._warned_of_rate = None
    check_rate(model, optimizer)
    return {
        "optimizer": optimizer,
        "loss": loss,
        "metrics": fitting_metrics(metrics, task, loss),
        "weighted_metrics": fitting_metrics(weighted_metrics, task, loss),
    }


def check_numbers(optimizer: keras.optimizers.Optimizer) -> None:
    """Checks the numbers that Keras's optimizers take as they are, and may train uphill with.

    Raises:
        ArgumentError: If a rate or a weight decay is negative or not finite, or gradients are to be
            clipped to nothing or less.
    """
    for leaf in leaves(optimizer):
        for name in ("clipnorm", "global_clipnorm", "clipvalue", "weight_decay"):
            if (number := getattr(leaf, name, None)) is not None and number is not False:
                check(**{name: number})
        rate = rate_of(leaf)
        if isinstance(rate, keras.Variable):
            check(**{"AdamW.learning_rate": _value_of(rate)})


def check_rate(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
    """Warns of a rate that would ruin pretrained weights, once for a rate of a compiled model."""
    optimizer = inner_optimizer(optimizer)
    schedule = schedule_of(optimizer)
    if schedule is not None and schedule.is_automatic:
        return
    if not any(name in type(optimizer).__name__ for name in _ADAPTIVE):
        return
    rate = schedule.in_force if schedule else _highest_rate(optimizer)
    if rate > HIGHEST_SAFE_RATE and learns_pretrained(model):
        if getattr(model, "_warned_of_rate", None) == rate:
            return
        model._warned_of_rate = rate
        warn(
            f"A learning rate of {rate:g} usually ruins pretrained weights: use 1e-5 to 1e-4, "
            "learning_rate='auto', or train only the head: "
            "ft.train_only(model, ft.select.head()).",
        )


def _highest_rate(optimizer: keras.optimizers.Optimizer) -> float:
    rate = getattr(optimizer, "_learning_rate", 0.0)
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        return max(float(rate(step)) for step in (0, 10, 100, 1_000, 10_000))
    if callable(rate) and not isinstance(rate, keras.Variable):
        return float(rate())
    return _value_of(rate)


def _value_of(rate: Any) -> float:
    # A variable of several devices is no number before it is read.
    return float(keras.ops.multiply(rate, 1.0))
