"""Norms of the gradients of each stage, computed inside of the training step."""

from typing import Any

import keras
import numpy as np
from keras import ops

from finetune_tf import kernels
from finetune_tf.graph.stages import stages
from finetune_tf.training.freezing import strategy_scope


class GradientNorms:
    """Computes the norm of the gradient of each stage in each step.

    `gradients.observe` makes an optimizer call it with the gradients of a step, before they are
    clipped. They are the gradients of the loss, without the factor of a LossScaleOptimizer; with
    gradient accumulation, those of a batch. The norms are in a variable, so that nothing waits for
    a step; reading it does.

    Args:
        model: The model, whose stages are measured.

    Attributes:
        names: The names of the stages.
    """

    def __init__(self, model: keras.Model) -> None:
        found = stages(model)
        self.names = [stage.name for stage in found]
        self._places = {id(v): i for i, stage in enumerate(found) for v in stage.variables}
        with strategy_scope(model):
            self._norms = keras.Variable(
                np.zeros(len(found), "float32"),
                dtype="float32",
                trainable=False,
                aggregation="only_first_replica",
            )

    def __call__(self, optimizer: Any, gradients: list[Any], variables: list[Any]) -> None:
        """Stores the norms of a step; the step contains it where it is traced."""
        groups: list[list[Any]] = [[] for _ in self.names]
        for gradient, variable in zip(gradients, variables, strict=True):
            place = self._places.get(id(variable))
            if gradient is not None and place is not None:
                groups[place].append(gradient)
        zero = ops.zeros((), "float32")
        norms = [kernels.global_norm(group) if group else zero for group in groups]
        scale = ops.cast(optimizer.scale_loss(ops.ones((), "float32")), "float32")
        self._norms.assign(ops.stack(norms) / scale)

    def read(self) -> dict[str, float]:
        """Returns the norm of each stage in the last step, and that of all stages as "all"."""
        values = ops.convert_to_numpy(ops.multiply(self._norms, 1.0)).astype("float64")
        named = dict(zip(self.names, values.tolist(), strict=True))
        return {"all": float(np.sqrt(np.square(values).sum())), **named}
