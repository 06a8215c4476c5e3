"""Faster kernels for TensorFlow; each computes what its namesake in `portable` computes."""

from typing import Any

import tensorflow as tf


def adamw_update(
    variable: Any,
    gradient: Any,
    momentum: Any,
    velocity: Any,
    *,
    step: Any,
    learning_rate: Any,
    beta_1: float,
    beta_2: float,
    epsilon: float,
    weight_decay: float,
) -> None:
    """See `portable.adamw_update`; one fused pass instead of a dozen.

    TensorFlow's kernel adds epsilon before the bias correction. Scaling epsilon by the
    correction of the velocity makes the two the same:

        m / (sqrt(v) / c + e) = c m / (sqrt(v) + c e)
    """
    variable, momentum, velocity = (
        getattr(item, "value", item) if not isinstance(item, tf.Variable) else item
        for item in (variable, momentum, velocity)
    )
    if weight_decay:
        variable.assign(variable * (1.0 - learning_rate * weight_decay))
    beta_1_power, beta_2_power = (tf.pow(tf.cast(b, step.dtype), step) for b in (beta_1, beta_2))
    tf.raw_ops.ResourceApplyAdam(
        var=variable.handle,
        m=momentum.handle,
        v=velocity.handle,
        beta1_power=beta_1_power,
        beta2_power=beta_2_power,
        lr=learning_rate,
        beta1=tf.cast(beta_1, step.dtype),
        beta2=tf.cast(beta_2, step.dtype),
        epsilon=epsilon * tf.sqrt(1.0 - beta_2_power),
        grad=gradient,
    )
