"""Presets: what `model.compile` takes, with the defaults that fine-tuning wants.

    model.compile(**ft.presets.cross_entropy())
    model.compile(**ft.presets.mean_squared_error(learning_rate=2e-5, weight_decay=0.0))

Every model of finetune_tf returns logits, and every loss here expects them.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, Literal

import keras
from keras import ops

from finetune_tf.base.arguments import check
from finetune_tf.base.keras_internals import set_direction
from finetune_tf.base.spelling import names_checked
from finetune_tf.errors import ModelError
from finetune_tf.tasks import IGNORED, Kind
from finetune_tf.training.gradients import give_whole_gradients
from finetune_tf.training.optimizers import AdamW
from finetune_tf.training.schedules import (
    HEAD_RATE,
    PRETRAINED_RATE,
    AutoConstant,
    WarmupLinearDecay,
    is_schedule,
)
from finetune_tf.training.similarity_loss import PairSimilarity

Rate = float | Literal["auto"] | WarmupLinearDecay | keras.optimizers.schedules.LearningRateSchedule

#: What makes the loss for each kind of outputs, where no optimizer is wanted.
LOSSES: dict[Kind, Callable[..., keras.losses.Loss]] = {
    "classes": functools.partial(
        keras.losses.SparseCategoricalCrossentropy, from_logits=True, ignore_class=IGNORED
    ),
    "several": functools.partial(keras.losses.BinaryCrossentropy, from_logits=True),
    "number": keras.losses.MeanSquaredError,
    "vectors": PairSimilarity,
}


def _optimizer_options() -> list[str]:
    """What presets take for `make_optimizer`."""
    return list(inspect.signature(make_optimizer).parameters)[2:]


@names_checked(also=_optimizer_options)
def cross_entropy(
    optimizer: str = "adamw",
    learning_rate: Rate = "auto",
    *,
    label_smoothing: float = 0.0,
    **options: Any,
) -> dict[str, Any]:
    """One label a text or a token: cross-entropy over class numbers.

    It also fits question answering, where the classes are the tokens, and fill-mask, where they
    are the words. A target of -100 counts for nothing, as in PyTorch.

    Args:
        optimizer: "adamw", "sgd" (with momentum 0.9), or another Keras optimizer's name.
        learning_rate: A number, a Keras schedule, or "auto": 5e-5 while pretrained variables
            learn, 2e-3 while only the head and other new ones do (for SGD a hundred times that).
        label_smoothing: Share of the probability spread over all classes (Szegedy et al.
            2016).
        **options: For `make_optimizer`: schedule, warmup_ratio, weight_decay, clip_norm,
            accumulate.

    Returns:
        optimizer, loss and metrics.
    """
    check(label_smoothing=label_smoothing)
    plain = LOSSES["classes"]
    loss = SmoothedCrossEntropy(label_smoothing) if label_smoothing else plain()
    return {
        "optimizer": make_optimizer(optimizer, learning_rate, **options),
        "loss": loss,
        "metrics": [Accuracy()],
    }


@keras.saving.register_keras_serializable("finetune_tf")
class Accuracy(keras.metrics.Mean):
    """Share of targets whose class has the highest logit; targets of -100 are left out.

    Args:
        name: In the history of a fit.
        **kwargs: As for every Keras metric.
    """

    def __init__(self, name: str = "accuracy", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        set_direction(self, "up")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Class numbers (…,) or rows over the classes, and logits (…, classes)."""
        if len(y_true.shape) == len(y_pred.shape):
            has_rows = y_true.shape[-1] != 1  # of 0 and 1 over the classes
            y_true = ops.argmax(y_true, -1) if has_rows else ops.squeeze(y_true, axis=-1)
        y_true = ops.cast(y_true, "int32")
        right = ops.equal(ops.cast(ops.argmax(y_pred, axis=-1), "int32"), y_true)
        counted = ops.cast(ops.not_equal(y_true, IGNORED), "float32")
        if sample_weight is not None:
            weight = ops.cast(sample_weight, "float32")
            dims = (1,) * (len(counted.shape) - len(weight.shape))
            counted = counted * ops.reshape(weight, (*ops.shape(weight), *dims))
        super().update_state(ops.cast(right, "float32"), counted)


@keras.saving.register_keras_serializable("finetune_tf")
class SmoothedCrossEntropy(keras.losses.Loss):
    """Cross-entropy over class numbers with a part of the probability on all classes alike.

    Args:
        label_smoothing: That part, from 0 to below 1 (Szegedy et al. 2016).
        **kwargs: As for every Keras loss.
    """

    def __init__(self, label_smoothing: float = 0.1, **kwargs: Any) -> None:
        check(label_smoothing=label_smoothing)
        super().__init__(**kwargs)
        self.label_smoothing = label_smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Class numbers (…,) and logits (…, classes) to losses (…,)."""
        if len(y_true.shape) == len(y_pred.shape):
            y_true = ops.squeeze(y_true, axis=-1)
        y_true = ops.cast(y_true, "int32")
        losses = keras.losses.categorical_crossentropy(
            ops.one_hot(y_true, y_pred.shape[-1]),
            y_pred,
            from_logits=True,
            label_smoothing=self.label_smoothing,
        )
        counted = ops.cast(ops.not_equal(y_true, IGNORED), losses.dtype)
        # Keras divides by all targets; by those that count is meant.
        return losses * counted / ops.maximum(ops.mean(counted), 1e-9)

    def get_config(self) -> dict:
        """Keras config."""
        return {**super().get_config(), "label_smoothing": self.label_smoothing}


@names_checked(also=_optimizer_options)
def binary_cross_entropy(
    optimizer: str = "adamw", learning_rate: Rate = "auto", **options: Any
) -> dict[str, Any]:
    """Several labels a text: binary cross-entropy over 0/1 targets (batch, labels).

    Args:
        optimizer: As for `cross_entropy`.
        learning_rate: As for `cross_entropy`.
        **options: For `make_optimizer`.

    Returns:
        optimizer, loss and metrics; a label counts as given from a logit of 0 upwards.
    """
    return {
        "optimizer": make_optimizer(optimizer, learning_rate, **options),
        "loss": LOSSES["several"](),
        "metrics": [keras.metrics.BinaryAccuracy(threshold=0.0, name="accuracy")],
    }


@names_checked(also=_optimizer_options)
def mean_squared_error(
    optimizer: str = "adamw", learning_rate: Rate = "auto", **options: Any
) -> dict[str, Any]:
    """A number a text: mean squared error.

    Args:
        optimizer: As for `cross_entropy`.
        learning_rate: As for `cross_entropy`.
        **options: For `make_optimizer`.

    Returns:
        optimizer, loss and metrics.
    """
    return {
        "optimizer": make_optimizer(optimizer, learning_rate, **options),
        "loss": LOSSES["number"](),
        "metrics": [keras.metrics.MeanAbsoluteError(name="mae")],
    }


@names_checked(also=_optimizer_options)
def similarity(
    optimizer: str = "adamw",
    learning_rate: Rate = "auto",
    *,
    scale: float = 20.0,
    **options: Any,
) -> dict[str, Any]:
    """Pairs of texts for feature extraction: alike pairs get a high cosine; see `PairSimilarity`.

    Pairs with scores learn to be in the order of their scores, whatever the scale of these. Pairs
    without a score count as alike, and every other text of the batch as different: a batch should
    hold no text twice, and larger ones teach more.

    Args:
        optimizer: As for `cross_entropy`.
        learning_rate: As for `cross_entropy`.
        scale: Factor on the cosines; the inverse of a temperature.
        **options: For `make_optimizer`.

    Returns:
        optimizer, loss and metrics.
    """
    return {
        "optimizer": make_optimizer(optimizer, learning_rate, **options),
        "loss": LOSSES["vectors"](scale),
        "metrics": [],
    }


#: The preset for each kind of outputs.
PRESETS: dict[Kind, Callable[..., dict[str, Any]]] = {
    "classes": cross_entropy,
    "several": binary_cross_entropy,
    "number": mean_squared_error,
    "vectors": similarity,
}


@names_checked
def make_optimizer(
    name: str = "adamw",
    learning_rate: Rate = "auto",
    *,
    schedule: Literal["linear", "constant"] = "linear",
    warmup_ratio: float = 0.1,
    weight_decay: float = 0.01,
    clip_norm: float | None = 1.0,
    accumulate: int = 1,
) -> keras.optimizers.Optimizer:
    """The optimizer of the presets.

    Args:
        name: "adamw", "sgd", or the name of another Keras optimizer.
        learning_rate: A number, a Keras schedule, or "auto".
        schedule: "linear" (warm-up and decay, bound when a fit starts) or "constant".
        warmup_ratio: Share of the steps that the warm-up takes.
        weight_decay: Of AdamW; never applied to biases and normalisations.
        clip_norm: Gradients are scaled so that their joint norm is no larger; None for no
            clipping.
        accumulate: Batches whose gradients are averaged into one step: as if batches were so many
            times larger, in the memory of one. What is left over at the end of an epoch is a step
            of its own.

    Raises:
        ModelError: If there is no such optimizer or schedule, or the rate is none.
    """
    check(
        warmup_ratio=warmup_ratio,
        weight_decay=weight_decay,
        clip_norm=clip_norm,
        accumulate=accumulate,
    )
    if schedule not in ("linear", "constant"):
        raise ModelError(f"A schedule is 'linear' or 'constant', found {schedule!r}.")
    name = name.lower()
    if not is_schedule(learning_rate):
        check(learning_rate=learning_rate)
        scale = 100.0 if name == "sgd" else 1.0
        rates = {"pretrained_rate": PRETRAINED_RATE * scale, "head_rate": HEAD_RATE * scale}
        if schedule == "linear":
            learning_rate = WarmupLinearDecay(learning_rate, warmup_ratio, **rates)
        elif learning_rate == "auto":
            learning_rate = AutoConstant("auto", 0.0, **rates)
        else:
            learning_rate = float(learning_rate)
    given: dict[str, Any] = {} if clip_norm is None else {"global_clipnorm": clip_norm}
    if accumulate > 1:
        given["gradient_accumulation_steps"] = accumulate
    if name == "adamw":
        return AdamW(learning_rate, weight_decay, **given)
    if name == "sgd":
        optimizer = keras.optimizers.SGD(learning_rate, momentum=0.9, **given)
    else:
        try:
            kind = type(keras.optimizers.get(name))
        except ValueError:
            raise ModelError(
                f"There is no optimizer {name!r}; use 'adamw', 'sgd', or a Keras optimizer's name."
            ) from None
        optimizer = kind(learning_rate, **given)
    give_whole_gradients(optimizer)
    return optimizer
