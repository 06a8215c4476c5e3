"""Dropout masks that are cheap enough to be sampled again in the backward pass.

A statistical random number generator takes longer than the rest of dropout, and its mask has to be
stored for the gradient. Here the mask is a hash of each element's index and of the step's seed. It
is random enough for dropout, costs a dozen integer operations, and is repeatable in the backward
pass.
"""

import tensorflow as tf

# A 32-bit integer hash of xor-shifts and multiplications. When one input bit changes, each output
# bit changes with a probability close to one half. Wellons found the constants by a search for such
# functions ("Hash Prospector", 2018).
_MULTIPLIERS = (0x7FEB352D, 0x846CA68B)
_SHIFTS = (16, 15, 16)


def kept(shape: tf.Tensor, seed: tf.Tensor, rate: float) -> tf.Tensor:
    """Samples an inverted dropout mask: 0 with probability `rate`, else 1 / (1 - rate); float32.

    The probability is `rate` rounded to a multiple of 2^-32.

    Args:
        shape: The shape of the mask, of up to 2^31 elements.
        seed: (2,) uint32, different for each step and each dropout layer.
        rate: The dropout rate, at least 0 and below 1.
    """
    # Each seed has its own start and stride, so that the masks of two steps are not shifted copies.
    start = _hash(seed[0] ^ _hash(seed[1]))
    stride = _hash(start + seed[1]) | _uint32(1)
    threshold = _uint32(min(round(rate * 2**32), 2**32 - 1))
    # start + stride * index, computed from row and column indices: XLA would constant-fold a range
    # over all elements and store it in the compiled program.
    rows = tf.cast(tf.range(tf.reduce_prod(shape[:-1])), tf.uint32)
    columns = tf.cast(tf.range(shape[-1]), tf.uint32)
    rows = rows * (stride * tf.cast(shape[-1], tf.uint32)) + start
    places = tf.reshape(rows[:, None] + columns * stride, shape)
    return tf.where(_hash(places) >= threshold, 1.0 / (1.0 - rate), 0.0)


def _hash(x: tf.Tensor) -> tf.Tensor:
    first, second, third = _SHIFTS
    x = (x ^ tf.bitwise.right_shift(x, _uint32(first))) * _uint32(_MULTIPLIERS[0])
    x = (x ^ tf.bitwise.right_shift(x, _uint32(second))) * _uint32(_MULTIPLIERS[1])
    return x ^ tf.bitwise.right_shift(x, _uint32(third))


def _uint32(value: int) -> tf.Tensor:
    return tf.constant(value, tf.uint32)
