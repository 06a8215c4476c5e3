"""AdamW with PyTorch's arithmetic and a serializable list of variables without weight decay."""

import re
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from finetune_tf import kernels
from finetune_tf.base.arguments import check, check_known
from finetune_tf.training.gradients import give_whole_gradients

NO_DECAY = (r"(^|/|_)bias$", r"(^|/)(gamma|beta)$")  # biases and normalization layers


@keras.saving.register_keras_serializable("finetune_tf")
class AdamW(keras.optimizers.Optimizer):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019).

    Differs from `keras.optimizers.AdamW` in three ways: epsilon is added where PyTorch adds it;
    the patterns of variables without weight decay are part of the config, so they survive saving
    and loading; and gradients are summed over devices and repeated tokens before clipping.

    Args:
        learning_rate: A number or a schedule.
        weight_decay: Coefficient of the decoupled weight decay; each step subtracts
            `learning_rate * weight_decay * weight`.
        beta_1: Exponential decay rate of the first moment (mean of the gradients).
        beta_2: Exponential decay rate of the second moment (mean of the squared gradients).
        epsilon: Added to the square root of the second moment.
        no_decay: Regular expressions. A variable whose path matches one of them has no weight
            decay; by default biases and the parameters of normalization layers.
        **kwargs: Arguments of every Keras optimizer, such as `global_clipnorm`.

    Example:
        >>> from finetune_tf.training import AdamW
        >>> model.compile(AdamW(3e-5, weight_decay=0.1, global_clipnorm=1.0))
        >>> type(model.optimizer).__name__
        'AdamW'
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 5e-5,
        weight_decay: float = 0.01,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        no_decay: Sequence[str] = NO_DECAY,
        **kwargs: Any,
    ) -> None:
        check(weight_decay=weight_decay, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon)
        check_known(**kwargs)
        if not callable(learning_rate):
            check(**{"AdamW.learning_rate": learning_rate})
            learning_rate = float(learning_rate)
        # If Keras knew the weight decay, it would apply it in a separate pass.
        super().__init__(learning_rate=learning_rate, weight_decay=None, **kwargs)
        self.decay = weight_decay
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.no_decay = tuple(no_decay)
        give_whole_gradients(self)

    def build(self, variables: list[keras.Variable]) -> None:
        """Creates the first and second moment of each variable."""
        if self.built:
            return
        super().build(variables)
        self._momentums, self._velocities = self.add_optimizer_variables(
            variables, ["momentum", "velocity"]
        )
        pattern = re.compile("|".join(self.no_decay) or r"(?!)")
        self._decays = [0.0 if pattern.search(v.path) else self.decay for v in variables]

    def apply(self, grads: list, trainable_variables: list | None = None) -> None:
        """Updates all variables in place."""
        # Computed once for all variables: tracing the same subgraph for each one takes seconds.
        self._scalars = kernels.adamw_numbers(
            ops.cast(self.iterations + 1, "float32"),
            ops.cast(self.learning_rate, "float32"),
            self.beta_1,
            self.beta_2,
        )
        super().apply(grads, trainable_variables)
        self._scalars = None  # tensors of a graph must not be used after its trace

    def _clip_gradients(self, grads: list) -> list:
        if not self.global_clipnorm:
            return super()._clip_gradients(grads)
        norm = kernels.global_norm([gradient for gradient in grads if gradient is not None])
        scale = self.global_clipnorm / ops.maximum(norm, self.global_clipnorm)
        return [g if g is None else kernels.scaled_gradient(g, scale) for g in grads]

    def update_step(self, gradient: Any, variable: keras.Variable, learning_rate: Any) -> None:
        """Updates one variable in place."""
        i = self._get_variable_index(variable)
        dtype = variable.dtype
        kernels.adamw_update(
            variable,
            ops.cast(gradient, dtype),
            self._momentums[i],
            self._velocities[i],
            **{name: ops.cast(scalar, dtype) for name, scalar in self._scalars.items()},
            beta_1=self.beta_1,
            beta_2=self.beta_2,
            epsilon=self.epsilon,
            weight_decay=self._decays[i],
        )

    def get_config(self) -> dict:
        """Returns the Keras config."""
        return {
            **super().get_config(),
            "weight_decay": self.decay,
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
            "no_decay": list(self.no_decay),
        }
