"""Faster updates for TensorFlow; each does the same as the function of its name in `portable`.

A step uses a few hundred rows of the token embedding table, and TensorFlow returns the table's
gradient as `tf.IndexedSlices`, with one slice per token. As a dense tensor it consists mostly of
zeros that are written, squared, scaled and read again, 47 MB each time for MiniLM. AdamW changes
every row, used or not, but a row whose gradient is 0 can be updated without reading a gradient. So
one pass updates all rows of the table as if their gradients were 0, and the used rows are then
overwritten with their correct values.
"""

import functools
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from finetune_tf.kernels import adamw, portable
from finetune_tf.kernels.tensorflow import island, islands_pay

_LARGE = 4096  # smallest number of rows for which sparse updates are faster
_LARGE_VARIABLE = 1 << 16  # smallest number of elements for which a pass over memory matters
_WORTH_COMPILING = 1 << 22  # smallest number of elements of all blocks of a shape together


def is_tracing() -> bool:
    """See `portable.is_tracing`."""
    return tf.inside_function()


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


def waiting_for(values: Any) -> AbstractContextManager:
    """See `portable.waiting_for`; several devices need data of known length instead.

    There, what waits for a batch in a step without one blocks the next step of TensorFlow.
    """
    if tf.distribute.get_strategy().num_replicas_in_sync > 1:
        return nullcontext()
    parts = [getattr(value, "values", value) for value in keras.tree.flatten(values)]
    return tf.control_dependencies([part for part in parts if isinstance(part, tf.Tensor)])


def traced(function: Callable) -> Callable:
    """See `portable.traced`."""
    return tf.function(function, autograph=False)


def updates_together() -> bool:
    """See `adamw.updates_together`. A `tf.distribute` strategy updates variable by variable."""
    return not tf.distribute.has_strategy()


class _Update(NamedTuple):
    """What the update of one variable needs."""

    variable: tf.Variable
    momentum: tf.Variable
    velocity: tf.Variable
    gradient: Any
    numbers: tuple

    def is_fused(self) -> bool:
        """Whether TensorFlow's own kernel can do it."""
        dtypes = {place.dtype for place in self[:3]}
        return dtypes == {tf.float32} and not isinstance(self.gradient, tf.IndexedSlices)

    def is_compiled(self) -> bool:
        """Whether XLA may do it."""
        is_float32 = self.variable.dtype == tf.float32
        return is_float32 and not isinstance(self.gradient, tf.IndexedSlices)


def adamw_update(
    variables: list[Any],
    gradients: list[Any],
    momentums: list[Any],
    velocities: list[Any],
    numbers: list[tuple],
    *,
    scale: Any = None,
    seed: Any = None,
    beta_1: float,
    beta_2: float,
) -> None:
    """See `adamw.adamw_update`.

    Large variables of blocks are updated by XLA, in one pass over memory; see `_alike`. Others are
    updated by TensorFlow's kernel, where clipping and weight decay are a pass of their own.
    """
    updates = [
        _Update(*map(_own, places), gradient, scalars)
        for *places, gradient, scalars in zip(
            variables, momentums, velocities, gradients, numbers, strict=True
        )
    ]
    betas = beta_1, beta_2
    together: list[list[int]] = []
    if islands_pay(training=True) and updates_together():
        sizes = [u.variable.shape.num_elements() if u.is_compiled() else 0 for u in updates]
        together = _alike([getattr(v, "path", "") for v in variables], variables, sizes)
    for group in together:
        chosen = [updates[i] for i in group]
        scalars = [each.numbers for each in chosen]
        decayed = tuple(keep is not None for _, keep, _ in scalars)
        flat = tf.stack([number for each in scalars for number in each if number is not None])
        columns = list(map(list, zip(*(each[:4] for each in chosen), strict=True)))
        _update_together(*columns, flat, scale, seed, decayed, betas)
    done = {i for group in together for i in group}
    constants = [tf.constant(number, tf.float32) for number in (0.0, *betas)]
    for update in (each for i, each in enumerate(updates) if i not in done):
        clipped = update.gradient if scale is None else scaled_gradient(update.gradient, scale)
        update = update._replace(gradient=clipped)
        if isinstance(update.gradient, tf.IndexedSlices):
            _update_sparse(update, betas, seed)
        elif update.is_fused():
            _update_dense(update, *constants)
        else:
            moved = adamw.adamw_moved(*update, *betas, seed)
            for place, value in zip(update[:3], moved, strict=True):
                place.assign(value)


def _own(variable: Any) -> tf.Variable:
    return variable if isinstance(variable, tf.Variable) else variable.value


def _alike(paths: list[str], variables: list[Any], sizes: list[int]) -> list[list[int]]:
    """Returns the large variables of blocks that occur often enough to be compiled.

    Blocks of equal shapes share one compiled function. Compiling takes a fraction of a second, and
    saves about a millisecond for each million of elements in every step.

    Args:
        paths: Paths of variables; those of a block begin with a part that contains a number.
        variables: The variables.
        sizes: Number of elements of each variable, and 0 for those that are left out.

    Returns:
        The indices of each group of variables.
    """
    blocks: dict[str, list[int]] = {}
    for i, (path, size) in enumerate(zip(paths, sizes, strict=True)):
        if size >= _LARGE_VARIABLE:
            block = re.match(r"[^\d]*\d+[^/]*(?=/)", path)
            blocks.setdefault(block[0] if block else path, []).append(i)
    equal: dict[tuple, list[list[int]]] = {}
    for block in blocks.values():
        equal.setdefault(tuple(tuple(variables[i].shape) for i in block), []).append(block)
    return [
        block
        for of_shape in equal.values()
        if sum(sizes[i] for block in of_shape for i in block) >= _WORTH_COMPILING
        for block in of_shape
    ]


@island
def _update_together(
    variables: list[tf.Variable],
    momentums: list[tf.Variable],
    velocities: list[tf.Variable],
    gradients: list[tf.Tensor],
    numbers: tf.Tensor,
    scale: tf.Tensor | None,
    seed: tf.Tensor | None,
    decayed: tuple[bool, ...],
    betas: tuple[float, float],
) -> None:
    """Reads and writes each variable once; weight decay and clipping cost no pass of their own."""
    scalars = iter(tf.unstack(numbers))
    places = zip(variables, momentums, velocities, strict=True)
    for place, gradient, has_decay in zip(places, gradients, decayed, strict=True):
        clipped = gradient if scale is None else gradient * scale
        given = next(scalars), next(scalars) if has_decay else None, next(scalars)
        moved = adamw.adamw_moved(*place, clipped, given, *betas, seed)
        for item, value in zip(place, moved, strict=True):
            item.assign(value)


def _update_dense(update: _Update, zero: tf.Tensor, beta_1: tf.Tensor, beta_2: tf.Tensor) -> None:
    """Updates all rows with TensorFlow's fused Adam kernel: one pass over memory, not a dozen.

    The kernel corrects the bias by the powers of the betas. Powers of 0 leave that to the numbers.
    """
    size, keep, offset = update.numbers
    if keep is not None:
        update.variable.assign(update.variable * keep)
    tf.raw_ops.ResourceApplyAdam(
        var=update.variable.handle,
        m=update.momentum.handle,
        v=update.velocity.handle,
        beta1_power=zero,
        beta2_power=zero,
        lr=size,
        beta1=beta_1,
        beta2=beta_2,
        epsilon=offset,
        grad=update.gradient,
    )


def _update_sparse(update: _Update, betas: tuple[float, float], seed: tf.Tensor | None) -> None:
    tables, used = update[:3], update.gradient.indices
    rows = (tf.gather(table, used) for table in tables)
    moved = adamw.adamw_moved(*rows, update.gradient.values, update.numbers, *betas, seed)
    _update_with_zero_gradient(*tables, update.numbers, betas, seed)
    for table, values in zip(tables, moved, strict=True):
        table.scatter_update(tf.IndexedSlices(values, used))


@island
def _update_with_zero_gradient(
    variable: tf.Variable,
    momentum: tf.Variable,
    velocity: tf.Variable,
    numbers: tuple,
    betas: tuple[float, float],
    seed: tf.Tensor | None,
) -> None:
    """Updates every row as if its gradient were 0."""
    moved = adamw.adamw_moved(variable, momentum, velocity, 0.0, numbers, *betas, seed)
    for table, rows in zip((variable, momentum, velocity), moved, strict=True):
        table.assign(rows)
