"""Pillow's filters for resizing images, as TensorFlow operations with equal results.

Pillow multiplies levels by weights that are integers, and rounds after each of two passes.

Shape legend: H height, W width, L old and N new size of an axis, M the other axis, K taps of a
filter.
"""

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

_BITS = 22  # of the fractions of Pillow's weights
_NEAREST = 0


def resized(
    levels: "tf.Tensor", height: Any, width: Any, resample: int, may_begin_with_height: bool
) -> "tf.Tensor":
    """Resizes an image as Pillow does, in two passes.

    Args:
        levels: (H, W, 3) uint8.
        height: The new height.
        width: The new width.
        resample: Pillow's number of the filter.
        may_begin_with_height: As `pillow_may_begin_with_height` returns it.

    Returns:
        (height, width, 3) uint8.
    """
    import tensorflow as tf

    along = _nearest if resample == _NEAREST else _filtered

    def of_height(levels: tf.Tensor) -> tf.Tensor:
        return along(levels, height, resample)

    def of_width(levels: tf.Tensor) -> tf.Tensor:
        return tf.transpose(along(tf.transpose(levels, (1, 0, 2)), width, resample), (1, 0, 2))

    if not may_begin_with_height:
        return of_height(of_width(levels))
    shape = tf.shape(levels)
    fewer_rows, fewer_columns = shape[0] - height, shape[1] - width
    return tf.cond(
        (fewer_rows > 0) & (fewer_rows > 2 * fewer_columns),
        lambda: of_width(of_height(levels)),
        lambda: of_height(of_width(levels)),
    )


@functools.cache
def pillow_may_begin_with_height() -> bool:
    """Whether the installed Pillow resizes the height first if it shrinks more than the width.

    Pillow 13 does; older versions always begin with the width. The order matters because levels are
    rounded after the first pass.
    """
    import tensorflow as tf
    from PIL import Image

    levels = (np.arange(20 * 6 * 3) * 7919 % 251).reshape(20, 6, 3).astype("uint8")
    found = np.asarray(Image.fromarray(levels).resize((5, 4), 2))
    with tf.init_scope():
        return np.array_equal(resized(tf.constant(levels), 4, 5, 2, True), found)


def _nearest(levels: "tf.Tensor", size: Any, resample: int) -> "tf.Tensor":
    """Maps (L, M, 3) to (N, M, 3) by the nearest values."""
    import tensorflow as tf

    old = tf.shape(levels)[0]
    step = _ratio(old, size)
    # Pillow adds up the steps, which is not quite a product.
    places = tf.cumsum(tf.concat([step[None] * 0.5, tf.fill((size - 1,), step)], 0))
    return tf.gather(levels, tf.minimum(tf.cast(places, tf.int32), old - 1))


def _filtered(levels: "tf.Tensor", size: Any, resample: int) -> "tf.Tensor":
    """Maps (L, M, 3) to (N, M, 3) by a filter, with the integers that Pillow computes with."""
    import tensorflow as tf

    first, weights = _weights(tf.shape(levels)[0], size, resample)  # (N,), (K, N)
    last = tf.shape(levels)[0] - 1

    def add(tap: Any, total: Any) -> tuple[Any, Any]:
        # One tap at a time: all of them together would take the memory of K images.
        values = tf.gather(levels, tf.minimum(first + tap, last))
        return tap + 1, total + tf.cast(values, tf.int32) * weights[tap][:, None, None]

    start = tf.fill((tf.size(first), tf.shape(levels)[1], 3), 1 << (_BITS - 1))  # rounds
    _, total = tf.while_loop(
        lambda tap, total: tap < tf.shape(weights)[0], add, (0, start), parallel_iterations=1
    )
    return tf.cast(tf.clip_by_value(tf.bitwise.right_shift(total, _BITS), 0, 255), tf.uint8)


def _weights(old: Any, new: Any, resample: int) -> tuple["tf.Tensor", "tf.Tensor"]:
    """The weights by which an axis of `old` values becomes one of `new`, as integers.

    Returns:
        The first value of each new one, (N,), and the weights of that and the next ones, (K, N).
    """
    import tensorflow as tf

    function, support = _FILTERS[resample]
    scale = _ratio(old, new)
    wide = tf.maximum(scale, tf.constant(1.0, tf.float64))
    reach = support * wide
    taps = 2 * tf.cast(tf.math.ceil(reach), tf.int32) + 1
    center = (tf.range(new, dtype=tf.float64) + 0.5) * scale
    first = tf.maximum(tf.cast(tf.floor(center - reach + 0.5), tf.int32), 0)
    end = tf.minimum(tf.cast(tf.floor(center + reach + 0.5), tf.int32), old)
    places = first[None] + tf.range(taps)[:, None]
    distance = (tf.cast(places, tf.float64) - center + 0.5) * (1.0 / wide)
    weights = tf.where(places < end, function(distance), tf.constant(0.0, tf.float64))
    weights /= tf.reduce_sum(weights, 0)
    whole = tf.sign(weights) * tf.floor(tf.abs(weights) * (1 << _BITS) + 0.5)
    return first, tf.cast(whole, tf.int32)


def _ratio(old: Any, new: Any) -> "tf.Tensor":
    import tensorflow as tf

    return tf.cast(old, tf.float64) / tf.cast(new, tf.float64)


def _box(x: Any) -> Any:
    import tensorflow as tf

    return tf.cast((x > -0.5) & (x <= 0.5), tf.float64)


def _bilinear(x: Any) -> Any:
    import tensorflow as tf

    return tf.maximum(1 - tf.abs(x), tf.constant(0.0, tf.float64))


def _hamming(x: Any) -> Any:
    import tensorflow as tf

    x = tf.abs(x)
    value = _sinc(x) * (0.54 + 0.46 * tf.cos(math.pi * x))
    return tf.where(x < 1, value, tf.zeros_like(x))


def _bicubic(x: Any) -> Any:
    import tensorflow as tf

    a, x = -0.5, tf.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return tf.where(x < 1, near, tf.where(x < 2, far, tf.zeros_like(x)))


def _lanczos(x: Any) -> Any:
    import tensorflow as tf

    return tf.where(tf.abs(x) < 3, _sinc(x) * _sinc(x / 3), tf.zeros_like(x))


def _sinc(x: Any) -> Any:
    import tensorflow as tf

    x = x * math.pi
    return tf.where(
        tf.equal(x, 0), tf.ones_like(x), tf.sin(x) / tf.where(tf.equal(x, 0), tf.ones_like(x), x)
    )


#: The function of a distance, and the distance from which on it is 0, by Pillow's number.
_FILTERS: dict[int, tuple[Callable[[Any], Any], float]] = {
    1: (_lanczos, 3.0),
    2: (_bilinear, 1.0),
    3: (_bicubic, 2.0),
    4: (_box, 0.5),
    5: (_hamming, 1.0),
}
