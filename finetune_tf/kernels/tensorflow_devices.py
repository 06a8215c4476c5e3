"""What the devices of a `tf.distribute` strategy tell each other during a step.

Each device runs a step on its own rows of a batch, which are its part of the rows, in their order.
A device without rows, at the end of an epoch, takes part with zero rows. Outside of such a step,
and on one device, all functions do nothing.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf


def device_count() -> int:
    """See `devices.device_count`."""
    context = tf.distribute.get_replica_context()
    return 1 if context is None else context.num_replicas_in_sync


def is_first_device() -> bool:
    """See `devices.is_first_device`."""
    return device_count() == 1 or _number() == 0


def gathered(values: list[Any]) -> list[Any]:
    """See `devices.gathered`.

    All devices compute the same from the rows of all of them, and gradients are summed over the
    devices afterwards. So the gradient of the own rows is that of one device times their number,
    and nothing has to be exchanged on the way back.
    """
    found = [value for value in values if value is not None]
    if device_count() == 1 or not found:
        return values
    found = [tf.convert_to_tensor(value) for value in found]
    wholes = _context().merge_call(_joined, args=tuple(found))
    joined = iter([_with_gradient(own, *whole) for own, whole in zip(found, wholes, strict=True)])
    return [None if value is None else next(joined) for value in values]


def with_common_shapes(data: Any) -> Any:
    """See `devices.with_common_shapes`."""
    flat = [value for value in keras.tree.flatten(data) if isinstance(value, tf.Tensor)]
    if device_count() == 1 or not flat:
        return data
    shapes = iter(_context().merge_call(_common_shapes, args=tuple(flat)))

    def reshaped(value: Any) -> Any:
        if not isinstance(value, tf.Tensor):
            return value
        rows = tf.concat([tf.shape(value)[:1], next(shapes)], axis=0)
        result = tf.reshape(value, rows)
        result.set_shape([None, *value.shape[1:]])
        return result

    return keras.tree.map_structure(reshaped, data)


def of_all_devices(function: Callable[[], Any]) -> Any:
    """See `devices.of_all_devices`. A variable of a metric is then the sum over the devices."""
    if device_count() == 1:
        return function()
    return _context().merge_call(lambda _: function())


def seed_of_device(seed: tf.Tensor) -> tf.Tensor:
    """See `devices.seed_of_device`."""
    if is_first_device():
        return seed
    return seed + tf.constant([_number(), 0], seed.dtype)


def summed_over_devices(gradients: list[Any]) -> list[Any]:
    """See `devices.summed_over_devices`.

    The slices of all devices are joined: TensorFlow's own sum of them expects as many on each.
    """
    if device_count() == 1:
        return gradients
    slices = [g for g in gradients if isinstance(g, tf.IndexedSlices)]
    dense = [g for g in gradients if g is not None and not isinstance(g, tf.IndexedSlices)]
    parts = [part for g in slices for part in (g.values, g.indices)]
    joined = iter(_context().merge_call(_joined, args=tuple(parts)) if parts else ())
    summed = iter(_context().all_reduce(tf.distribute.ReduceOp.SUM, dense) if dense else ())

    def whole(gradient: Any) -> Any:
        if not isinstance(gradient, tf.IndexedSlices):
            return None if gradient is None else next(summed)
        (values, _), (indices, _) = next(joined), next(joined)
        return tf.IndexedSlices(values, indices, gradient.dense_shape)

    return [whole(gradient) for gradient in gradients]


def divided_among_devices(loss: Any) -> Any:
    """See `devices.divided_among_devices`."""
    return loss / tf.distribute.get_strategy().num_replicas_in_sync


def _context() -> tf.distribute.ReplicaContext:
    return tf.distribute.get_replica_context()


def _number() -> int:
    """The number of the device whose step is being traced, from 0."""
    return int(tf.get_static_value(_context().replica_id_in_sync_group))


def _joined(strategy: tf.distribute.Strategy, *values: Any) -> list[tuple]:
    """Returns the rows of all devices, and where those of each device begin, for each value."""
    result = []
    for value in values:
        parts = strategy.experimental_local_results(value)
        rows = tf.stack([tf.shape(part)[0] for part in parts])
        result.append((tf.concat(parts, axis=0), tf.cumsum(rows, exclusive=True)))
    return result


def _with_gradient(own: tf.Tensor, whole: tf.Tensor, starts: tf.Tensor) -> tf.Tensor:
    """Returns the rows of all devices, with a gradient to the own ones; see `gathered`."""
    if not own.dtype.is_floating:
        return whole
    others, start = tf.stop_gradient(whole), starts[_number()]
    own = own + (device_count() - 1.0) * (own - tf.stop_gradient(own))
    return tf.concat([others[:start], own, others[start + tf.shape(own)[0] :]], axis=0)


def _common_shapes(strategy: tf.distribute.Strategy, *values: Any) -> list[tf.Tensor]:
    """Returns the shape of a row of each value: the largest one of all devices."""
    parts = [strategy.experimental_local_results(value) for value in values]
    return [
        tf.reduce_max(tf.stack([tf.shape(part)[1:] for part in parts_of_one]), axis=0)
        for parts_of_one in parts
    ]
