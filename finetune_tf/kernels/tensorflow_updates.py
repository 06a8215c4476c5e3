"""Faster updates for TensorFlow; each does what its namesake in `portable` does.

A step uses some hundred rows of a word table, and TensorFlow gives the table's gradient as slices,
one a token. Made dense, it is a table of zeros that is written, squared, scaled, and read again:
47 MB each time for MiniLM. AdamW moves every row, used or not. But where the gradient is 0 it needs
to read none, so here one pass over the table moves all rows as if they were not used, and those
that were are put in their right place.
"""

from typing import Any

import tensorflow as tf

from finetune_tf.kernels import portable
from finetune_tf.kernels.tensorflow import island, islands_pay

_LARGE = 4096  # rows from which on a table is worth this


def is_tracing() -> bool:
    """See `portable.is_tracing`."""
    return tf.inside_function()


def summed_over_devices(gradients: list[Any]) -> list[Any]:
    """See `portable.summed_over_devices`; what a strategy's devices computed."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return gradients
    found = [gradient for gradient in gradients if gradient is not None]
    summed = iter(context.all_reduce(tf.distribute.ReduceOp.SUM, found))
    return [None if gradient is None else _as(gradient, next(summed)) for gradient in gradients]


def _as(gradient: Any, summed: Any) -> Any:
    """Slices of several devices no longer say at tracing how many rows their table has."""
    if not isinstance(gradient, tf.IndexedSlices):
        return summed
    return tf.IndexedSlices(summed.values, summed.indices, gradient.dense_shape)


def summed_gradient(gradient: Any, whole: bool) -> Any:
    """See `portable.summed_gradient`; of a large table on a CPU, slices of the used rows.

    A token that occurs twice stands twice among TensorFlow's slices. Keras squares slices one by
    one and takes their norm as they are, which is wrong for both.
    """
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    rows = gradient.shape[0]
    if whole or rows < _LARGE or not islands_pay(training=True) or tf.distribute.has_strategy():
        return tf.math.unsorted_segment_sum(gradient.values, gradient.indices, rows)
    used, places = tf.unique(gradient.indices)
    values = tf.math.unsorted_segment_sum(gradient.values, places, tf.size(used))
    return tf.IndexedSlices(values, used, gradient.dense_shape)


def scaled_gradient(gradient: Any, scale: Any) -> Any:
    """See `portable.scaled_gradient`."""
    if isinstance(gradient, tf.IndexedSlices):
        values = portable.scaled_gradient(gradient.values, scale)
        return tf.IndexedSlices(values, gradient.indices, gradient.dense_shape)
    return portable.scaled_gradient(gradient, scale)


def global_norm(gradients: list[Any]) -> Any:
    """See `portable.global_norm`; `l2_loss` squares and sums in one pass."""
    parts = [getattr(gradient, "values", gradient) for gradient in gradients]
    return tf.sqrt(2.0 * tf.add_n([tf.nn.l2_loss(tf.cast(part, tf.float32)) for part in parts]))


def adamw_update(
    variable: Any, gradient: Any, momentum: Any, velocity: Any, **numbers: Any
) -> None:
    """See `portable.adamw_update`."""
    variables = [
        item if isinstance(item, tf.Variable) else item.value
        for item in (variable, momentum, velocity)
    ]
    update = _update_rows if isinstance(gradient, tf.IndexedSlices) else _update_all
    update(*variables, gradient, **numbers)


def _update_all(
    variable: tf.Variable,
    momentum: tf.Variable,
    velocity: tf.Variable,
    gradient: tf.Tensor,
    *,
    learning_rate: tf.Tensor,
    beta_1_power: tf.Tensor,
    beta_2_power: tf.Tensor,
    beta_1: float,
    beta_2: float,
    epsilon: float,
    weight_decay: float,
) -> None:
    """TensorFlow's own kernel: one fused pass instead of a dozen.

    It adds epsilon before the bias correction. Scaling epsilon by the correction of the velocity
    makes the two the same:

        m / (sqrt(v) / c + e) = c m / (sqrt(v) + c e)
    """
    if weight_decay:
        variable.assign(variable * (1.0 - learning_rate * weight_decay))
    tf.raw_ops.ResourceApplyAdam(
        var=variable.handle,
        m=momentum.handle,
        v=velocity.handle,
        beta1_power=beta_1_power,
        beta2_power=beta_2_power,
        lr=learning_rate,
        beta1=tf.cast(beta_1, gradient.dtype),
        beta2=tf.cast(beta_2, gradient.dtype),
        epsilon=epsilon * tf.sqrt(1.0 - beta_2_power),
        grad=gradient,
    )


def _update_rows(
    variable: tf.Variable,
    momentum: tf.Variable,
    velocity: tf.Variable,
    gradient: tf.IndexedSlices,
    **numbers: Any,
) -> None:
    tables, used = (variable, momentum, velocity), gradient.indices
    weights, mean, square = (tf.gather(table, used) for table in tables)
    moved = portable.adamw_moved(weights, gradient.values, mean, square, **numbers)
    _drift(*tables, numbers)
    for table, rows in zip(tables, moved, strict=True):
        table.scatter_update(tf.IndexedSlices(rows, used))


@island
def _drift(
    variable: tf.Variable, momentum: tf.Variable, velocity: tf.Variable, numbers: dict
) -> None:
    """Moves every row as if its gradient were 0."""
    moved = portable.adamw_moved(variable, 0.0, momentum, velocity, **numbers)
    for table, rows in zip((variable, momentum, velocity), moved, strict=True):
        table.assign(rows)
