"""Resolves the arguments of `model.compile`: presets by task, and corrections for logits."""

from typing import Any

import keras

from finetune_tf.base.arguments import check, shown
from finetune_tf.base.keras_internals import all_layers, inner_optimizer, rate_of
from finetune_tf.errors import ModelError
from finetune_tf.messages import say, warn
from finetune_tf.tasks import Task
from finetune_tf.training.contrastive_loss import ContrastiveLoss
from finetune_tf.training.gradients import leaves
from finetune_tf.training.metrics import fitting_metrics
from finetune_tf.training.outputs import fitting_loss, kind_of
from finetune_tf.training.preset_table import PRESETS
from finetune_tf.training.presets import make_optimizer
from finetune_tf.training.pretrained import is_from_scratch, learning_pretrained
from finetune_tf.training.rates import has_rates, highest_factor, resolve_groups
from finetune_tf.training.schedules import schedule_of
from finetune_tf.training.similarity_loss import PairSimilarity

# The highest safe learning rate for fine-tuning pretrained weights with an adaptive optimizer.
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
    """Completes and corrects the arguments of `compile` and prints what it decides.

    Args:
        model: The model, whose learning rate is checked.
        task: The task of the model; its preset provides the missing arguments.
        optimizer: As in Keras, or None for that of the preset. If a name is given, the learning
            rate is "auto".
        loss: As in Keras, or None for that of the preset. If a name is given, the loss is
            computed from logits.
        metrics: As in Keras, or a single metric. If neither loss nor metrics are given, those of
            the preset are used.
        weighted_metrics: As `metrics`.

    Returns:
        The arguments optimizer, loss, metrics and weighted_metrics for Keras's `compile`.

    Raises:
        ModelError: If the loss or a metric does not fit the labels of the model, or the optimizer
            belongs to Keras 2.
    """
    preset_function = PRESETS[task.output_kind]
    preset = preset_function()
    if "tf_keras" in type(optimizer).__module__:
        raise ModelError(
            "The optimizer belongs to tf_keras (Keras 2), but the model is a Keras 3 model. Unset "
            "TF_USE_LEGACY_KERAS and write keras.optimizers.Adam(2e-5)."
        )
    if optimizer is None:
        optimizer = preset["optimizer"]
    elif isinstance(optimizer, str):
        rate = "rate 'auto' with warm-up and linear decay"
        say(f"compile: optimizer {optimizer!r} gets the {rate}, not Keras's default rate.")
        optimizer = make_optimizer(optimizer, clip_norm=None)
    else:
        try:
            optimizer = keras.optimizers.get(optimizer)
        except (KeyError, TypeError, ValueError):
            raise ModelError(
                "The optimizer must be a name such as 'adamw' or an object of keras.optimizers, "
                f"found {shown(optimizer)}. Leave it out to use that of the preset."
            ) from None
    check_numbers(optimizer)
    if loss is None:
        loss = preset["loss"]
        metrics = preset["metrics"] if metrics is None else metrics
        say(f"compile: loss and metrics of the preset {preset_function.__name__}.")
    loss = fitting_loss(loss, task)
    if kind_of(task, loss) == "yes_no":
        say(
            "compile: with this loss, the single output of the model is a logit, above 0 for yes. "
            "ft.predict and ft.evaluate read it as the number of a regression; for probabilities "
            "and an accuracy, load the model with two labels: labels=['no', 'yes']."
        )
    resolve_groups(optimizer, model)
    model._warned_of_rate = None
    check_rate(model, optimizer)
    return {
        "optimizer": optimizer,
        "loss": loss,
        "metrics": fitting_metrics(metrics, task, loss),
        "weighted_metrics": fitting_metrics(weighted_metrics, task, loss),
    }


def say_what_is_accumulated(model: keras.Model) -> None:
    """Says that accumulated batches are not one large batch, where rows are compared.

    Args:
        model: A compiled model.
    """
    found = [getattr(leaf, "gradient_accumulation_steps", None) for leaf in leaves(model.optimizer)]
    steps = max(each or 1 for each in found)
    comparing = [part for part in (model.loss, *model.objectives) if _compares_rows(part)]
    if steps > 1 and comparing:
        say(
            f"compile: {type(comparing[0]).__name__} compares the rows of a batch with each other. "
            f"Accumulating {steps} batches averages their gradients, but no row is compared with "
            "those of the other batches, as in a batch that is larger."
        )


def _compares_rows(part: Any) -> bool:
    return isinstance(part, PairSimilarity | ContrastiveLoss) or getattr(
        part, "compares_rows", False
    )


def computes_in_float16(model: keras.Model) -> bool:
    """Returns whether layers compute in float16 with variables of float32."""
    return any(layer.dtype_policy.name == "mixed_float16" for layer in all_layers(model))


def with_loss_scale(model: keras.Model, optimizer: Any) -> Any:
    """Returns an optimizer that scales the loss if the model computes in float16.

    The smallest number of float16 is 6e-8, and many gradients are below it. Keras looks at the
    policy of the model itself, which is that of its layers only if the process has it as well.

    Args:
        model: The model.
        optimizer: An optimizer of Keras.
    """
    is_scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    if is_scaled or not computes_in_float16(model):
        return optimizer
    say("compile: the loss is scaled, because gradients in float16 would often be 0 otherwise.")
    return keras.optimizers.LossScaleOptimizer(optimizer, name="loss_scale_optimizer")


def check_numbers(optimizer: keras.optimizers.Optimizer) -> None:
    """Checks hyperparameters that Keras's optimizers accept without a check.

    Raises:
        ArgumentError: If the learning rate or the weight decay is negative or not finite, or a
            clipping threshold is not positive.
    """
    for leaf in leaves(optimizer):
        for name in ("clipnorm", "global_clipnorm", "clipvalue", "weight_decay"):
            if (number := getattr(leaf, name, None)) is not None and number is not False:
                check(**{name: number})
        rate = rate_of(leaf)
        if isinstance(rate, keras.Variable):
            check(**{"AdamW.learning_rate": _as_float(rate)})


def check_rate(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
    """Warns if the rate is too high for pretrained weights, once per rate and compiled model."""
    optimizer = inner_optimizer(optimizer)
    schedule = schedule_of(optimizer)
    if schedule is not None and schedule.is_automatic and not has_rates(optimizer):
        return
    if not any(name in type(optimizer).__name__ for name in _ADAPTIVE):
        return
    if schedule is not None and schedule.is_automatic:
        schedule.resolve(model, optimizer)
    rate = schedule.in_force if schedule else _highest_rate(optimizer)
    learning = learning_pretrained(model)
    rate *= highest_factor(optimizer, learning)
    if rate > HIGHEST_SAFE_RATE and learning and not is_from_scratch(model):
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
    return _as_float(rate)


def _as_float(rate: Any) -> float:
    # A distributed variable has to be read through an operation.
    return float(keras.ops.multiply(rate, 1.0))
