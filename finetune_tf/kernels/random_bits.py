"""Random numbers for dropout, cheap enough to be drawn twice.

A generator of statistics' quality takes longer than what dropout does with its numbers, and the
mask has to be stored for the gradient. A hash of each element's place and of the step's seed is
good enough for dropping, costs a dozen integer operations, and gives the same again backward.
"""

import tensorflow as tf

# A mixer of 32 bits by xor, shift and multiplication whose output bits each change with a
# probability close to one half when an input bit does; its constants were found by Wellons's
# search for such mixers ("hash prospector", 2018).
_MULTIPLIERS = (0x7FEB352D, 0x846CA68B)
_SHIFTS = (16, 15, 16)


def kept(shape: tf.Tensor, seed: tf.Tensor, rate: float) -> tf.Tensor:
    """What to multiply with so that a share `rate` becomes 0 and the mean stays: float32.

    The probability of 0 is `rate` rounded to a multiple of 2^-32.

    Args:
        shape: Of the result; up to 2^31 elements.
        seed: (2,) uint32; another one in each step and place.
        rate: From 0 to below 1.
    """
    # A start and a stride of its own for each seed: masks of two steps are not shifted copies.
    start = _mixed(seed[0] ^ _mixed(seed[1]))
    stride = _mixed(start + seed[1]) | _bits(1)
    threshold = _bits(min(round(rate * 2**32), 2**32 - 1))
    # start + stride * place, put together from rows and columns: a range over all places would
    # be computed by the compiler and stored in what it compiles.
    rows = tf.cast(tf.range(tf.reduce_prod(shape[:-1])), tf.uint32)
    columns = tf.cast(tf.range(shape[-1]), tf.uint32)
    rows = rows * (stride * tf.cast(shape[-1], tf.uint32)) + start
    places = tf.reshape(rows[:, None] + columns * stride, shape)
    return tf.where(_mixed(places) >= threshold, 1.0 / (1.0 - rate), 0.0)


def _mixed(x: tf.Tensor) -> tf.Tensor:
    first, second, third = _SHIFTS
    x = (x ^ tf.bitwise.right_shift(x, _bits(first))) * _bits(_MULTIPLIERS[0])
    x = (x ^ tf.bitwise.right_shift(x, _bits(second))) * _bits(_MULTIPLIERS[1])
    return x ^ tf.bitwise.right_shift(x, _bits(third))


def _bits(number: int) -> tf.Tensor:
    return tf.constant(number, tf.uint32)
