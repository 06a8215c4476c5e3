"""Faster updates for TensorFlow; each does the same as the function of its name in `portable`.

A step uses a few hundred rows of the token embedding table, and TensorFlow returns the table's
gradient as `tf.IndexedSlices`, with one slice per token. As a dense tensor it consists mostly of
zeros that are written, squared, scaled and read again, 47 MB each time for MiniLM. AdamW changes
every row, used or not, but a row whose gradient is 0 can be updated without reading a gradient. So
one pass updates all rows of the table as if their gradients were 0, and the used rows are then
overwritten with their correct values.
"""

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from finetune_tf.kernels import portable
from finetune_tf.kernels.tensorflow import island, islands_pay

_LARGE = 4096  # smallest number of rows for which sparse updates are faster


def is_tracing() -> bool:
    """See `portable.is_tracing`."""
    return tf.inside_function()


def summed_over_devices(gradients: list[Any]) -> list[Any]:
    """See `portable.summed_over_devices`. Sums over the replicas of a `tf.distribute` strategy."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return gradients
    found = [gradient for gradient in gradients if gradient is not None]
    summed = iter(context.all_reduce(tf.distribute.ReduceOp.SUM, found))
    return [
        None if gradient is None else _with_table_shape(gradient, next(summed))
        for gradient in gradients
    ]


def divided_among_devices(loss: Any) -> Any:
    """See `vocabulary.divided_among_devices`."""
    return loss / tf.distribute.get_strategy().num_replicas_in_sync


def _with_table_shape(gradient: Any, summed: Any) -> Any:
    """Restores the static number of table rows, which all-reduced slices lose during tracing."""
    if not isinstance(gradient, tf.IndexedSlices):
        return summed
    return tf.IndexedSlices(summed.values, summed.indices, gradient.dense_shape)


def summed_gradient(gradient: Any, whole: bool) -> Any:
    """See `portable.summed_gradient`. The result is sparse for a large table on a CPU.

    A token that occurs twice has two slices in TensorFlow's gradient. Keras squares each slice and
    computes norms without summing them first, which is wrong in both cases.
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
    """See `portable.global_norm`. `l2_loss` squares and sums in one pass."""
    parts = [getattr(gradient, "values", gradient) for gradient in gradients]
    return tf.sqrt(2.0 * tf.add_n([tf.nn.l2_loss(tf.cast(part, tf.float32)) for part in parts]))


def move_towards(averages: list[Any], values: list[Any], share: Any) -> None:
    """See `portable.move_towards`. Each device moves its own copy of a variable.

    On one CPU, XLA reads and writes the averages in a single pass over memory.
    """
    strategy = tf.distribute.get_strategy()
    if strategy.num_replicas_in_sync == 1 and islands_pay(training=True):
        _move_all([a.value for a in averages], [v.value for v in values], share)
        return
    for average, value in zip(averages, values, strict=True):
        move = functools.partial(_move, share)
        strategy.extended.update(average.value, move, args=(value.value,), group=False)


@island
def _move_all(averages: list[tf.Variable], values: list[tf.Variable], share: tf.Tensor) -> None:
    for average, value in zip(averages, values, strict=True):
        _move(share, average, value)


def _move(share: tf.Tensor, average: tf.Variable, value: tf.Variable) -> None:
    distance = average - tf.cast(value, average.dtype)
    average.assign_sub(tf.cast(share, average.dtype) * distance)


def traced(function: Callable) -> Callable:
    """See `portable.traced`."""
    return tf.function(function, autograph=False)


def adamw_update(
    variable: Any, gradient: Any, momentum: Any, velocity: Any, **numbers: Any
) -> None:
    """See `portable.adamw_update`."""
    variables = [
        item if isinstance(item, tf.Variable) else item.value
        for item in (variable, momentum, velocity)
    ]
    update = _update_sparse if isinstance(gradient, tf.IndexedSlices) else _update_dense
    update(*variables, gradient, **numbers)


def _update_dense(
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
    """Updates all rows with TensorFlow's fused Adam kernel: one pass over memory, not a dozen.

    The kernel adds epsilon before the bias correction. Scaling epsilon by the bias correction c of
    the velocity makes the results equal:

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


def _update_sparse(
    variable: tf.Variable,
    momentum: tf.Variable,
    velocity: tf.Variable,
    gradient: tf.IndexedSlices,
    **numbers: Any,
) -> None:
    tables, used = (variable, momentum, velocity), gradient.indices
    weights, mean, square = (tf.gather(table, used) for table in tables)
    moved = portable.adamw_moved(weights, gradient.values, mean, square, **numbers)
    _update_with_zero_gradient(*tables, numbers)
    for table, rows in zip(tables, moved, strict=True):
        table.scatter_update(tf.IndexedSlices(rows, used))


@island
def _update_with_zero_gradient(
    variable: tf.Variable, momentum: tf.Variable, velocity: tf.Variable, numbers: dict
) -> None:
    """Updates every row as if its gradient were 0."""
    moved = portable.adamw_moved(variable, 0.0, momentum, velocity, **numbers)
    for table, rows in zip((variable, momentum, velocity), moved, strict=True):
        table.assign(rows)
