"""Initialization of the output bias of a new regression head."""

from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_tf.base.spelling import names_checked
from finetune_tf.graph.stages import require_task
from finetune_tf.messages import say
from finetune_tf.training.untrained import remember_as_initial, untrained_layers

if TYPE_CHECKING:
    from finetune_tf.data import Examples

_BIAS = "classifier/dense/bias"


@names_checked
def start_from_mean(model: Any, train: "Examples") -> float | None:
    """Sets the output bias of a new regression head to the mean of the training targets.

    A new head predicts values around 0. If the targets are far from 0, such as years or prices, a
    short training would mostly learn their mean. With the mean as the output bias, the first
    predictions are already as good as those of the baseline "mean".

    `finetune` calls this function. It does nothing if the model is not a regression model or its
    head is trained already.

    Args:
        model: A regression model from `load`.
        train: The training examples, with numbers as labels.

    Returns:
        The mean, or None if nothing was done.

    Raises:
        DataError: If a target is not a number.

    Example:
        >>> train = ft.data.from_arrays(["a long film", "a short film"], [120.5, 90.5])
        >>> model = ft.load(checkpoint, labels=train.labels)
        >>> ft.start_from_mean(model, train)
        105.5
    """
    require_task(model)
    is_regression = model.labels is not None and model.labels.problem_type == "regression"
    if not is_regression or "classifier" not in untrained_layers(model):
        return None
    mean = float(np.mean(model.task.targets(train), dtype="float64"))
    bias = next(variable for variable in model.weights if variable.path == _BIAS)
    bias.assign(np.full(bias.shape, mean, dtype="float32"))
    remember_as_initial(model, _BIAS)
    say(f"The output bias is set to the mean of the training targets, {mean:.4g}.")
    return mean
