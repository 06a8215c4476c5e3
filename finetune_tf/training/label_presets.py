"""Presets with other losses for labels and numbers; see `finetune_tf.presets`."""

from typing import Any

import keras

from finetune_tf.base.arguments import check
from finetune_tf.base.spelling import names_checked
from finetune_tf.training.classification import Accuracy
from finetune_tf.training.label_losses import FocalCrossEntropy, LabelDistance, OrdinalCrossEntropy
from finetune_tf.training.presets import (
    Rate,
    compile_arguments,
    preset_options,
)


@names_checked(also=preset_options)
def focal(
    optimizer: str = "adamw",
    learning_rate: Rate = "auto",
    *,
    gamma: float = 2.0,
    **options: Any,
) -> dict[str, Any]:
    """Focal loss over class indices (Lin et al. 2017), for labels of very different frequency.

    Targets that are predicted with confidence count less; see `FocalCrossEntropy`. The weights of
    the labels that the paper calls alpha are `class_weight` of `fit`.

    Args:
        optimizer: As for `cross_entropy`.
        learning_rate: As for `cross_entropy`.
        gamma: How much less confident predictions count; 0 is cross-entropy.
        **options: As for `cross_entropy`.

    Returns:
        A dict with optimizer, loss and metrics, and objectives if there are any, for
        `model.compile`.

    Example:
        >>> model.compile(**ft.presets.focal(gamma=2.0))
        >>> history = model.fit(train.batches(model, 5), class_weight={"bad": 3.0}, verbose=0)
    """
    check(gamma=gamma)
    return compile_arguments(
        FocalCrossEntropy(gamma), [Accuracy()], optimizer, learning_rate, **options
    )


@names_checked(also=preset_options)
def ordinal(
    optimizer: str = "adamw",
    learning_rate: Rate = "auto",
    **options: Any,
) -> dict[str, Any]:
    """Cross-entropy for labels with an order, such as one to five stars.

    The order is that of the labels of the model. A prediction costs more, the farther it is from
    the target; see `OrdinalCrossEntropy`.

    Args:
        optimizer: As for `cross_entropy`.
        learning_rate: As for `cross_entropy`.
        **options: As for `cross_entropy`.

    Returns:
        A dict with optimizer, loss and metrics, and objectives if there are any, for
        `model.compile`. The metric "mae" is the mean distance of the predicted label from the
        target, in labels.

    Example:
        >>> model = ft.load(checkpoint, labels=["1 star", "2 stars", "3 stars", "4 stars"])
        >>> model.compile(**ft.presets.ordinal())
        >>> type(model.loss).__name__
        'OrdinalCrossEntropy'
    """
    metrics = [Accuracy(), LabelDistance()]
    return compile_arguments(OrdinalCrossEntropy(), metrics, optimizer, learning_rate, **options)


@names_checked(also=preset_options)
def huber(
    optimizer: str = "adamw",
    learning_rate: Rate = "auto",
    *,
    delta: float = 1.0,
    **options: Any,
) -> dict[str, Any]:
    """Huber loss, for regressions with outliers among the targets (Huber 1964).

    Half the squared error up to `delta`, and linear beyond it.

    Args:
        optimizer: As for `cross_entropy`.
        learning_rate: As for `cross_entropy`.
        delta: The error from which on the loss is linear, in units of the targets.
        **options: As for `cross_entropy`.

    Returns:
        A dict with optimizer, loss and metrics, and objectives if there are any, for
        `model.compile`.

    Example:
        >>> model = ft.load(checkpoint, labels=["stars"])
        >>> model.compile(**ft.presets.huber(delta=0.5))
        >>> model.loss.name
        'huber_loss'
    """
    check(delta=delta)
    metrics = [keras.metrics.MeanAbsoluteError(name="mae")]
    return compile_arguments(
        keras.losses.Huber(delta), metrics, optimizer, learning_rate, **options
    )
