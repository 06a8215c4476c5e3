"""Where training starts: the output of a new regression head."""

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
    """Lets a new regression head start from the mean of the training targets.

    A new head gives numbers around 0. Where targets are far from 0, such as years or prices, most
    of a short training is spent on reaching them. With the mean as the bias of the output the
    first predictions are already as good as those of the baseline "mean".

        model = ft.load("bert-base-uncased", labels=train.labels)
        ft.start_from_mean(model, train)
        model.fit(train.batches(model, shuffle=True))

    `finetune` does this by itself. Nothing happens to a model of another kind, or to one whose
    head is trained already.

    Args:
        model: From `load`, for a regression.
        train: The training examples, with their numbers.

    Returns:
        The mean, or None if nothing was done.

    Raises:
        DataError: If a target is no number.
    """
    require_task(model)
    is_regression = model.labels is not None and model.labels.problem_type == "regression"
    if not is_regression or "classifier" not in untrained_layers(model):
        return None
    mean = float(np.mean(model.task.targets(train), dtype="float64"))
    bias = next(variable for variable in model.weights if variable.path == _BIAS)
    bias.assign(np.full(bias.shape, mean, dtype="float32"))
    remember_as_initial(model, _BIAS)
    say(f"The output starts from the mean of the training targets, {mean:.4g}.")
    return mean
