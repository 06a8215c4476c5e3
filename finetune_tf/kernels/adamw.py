"""AdamW in `keras.ops`: the reference for `tensorflow_updates`, and what other backends run."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from finetune_tf.kernels import portable
from finetune_tf.kernels.host_memory import assign_in_place, on_device

Tensor = Any


def adamw_numbers(
    step: Tensor,
    learning_rate: Tensor,
    weight_decay: Sequence[float],
    beta_1: float,
    beta_2: float,
    epsilon: float,
) -> list[tuple]:
    """Computes the scalars of an AdamW step, those of all variables together.

    With the bias corrections c₁ = 1 - β₁ᵗ and c₂ = √(1 - β₂ᵗ), a step of PyTorch is

        w - η (λ w + (m / c₁) / (√v / c₂ + ε)) = (1 - η λ) w - (η c₂ / c₁) m / (√v + c₂ ε)

    so that three numbers are enough for a variable.

    Args:
        step: Number of this step, counted from 1, for each of n variables: (n,), float32.
        learning_rate: η, a float32 scalar or (n,).
        weight_decay: λ of each variable.
        beta_1: Decay rate of the running mean of gradients.
        beta_2: Decay rate of the running mean of squared gradients.
        epsilon: Added to the square root of the bias-corrected velocity.

    Returns:
        For each variable η c₂ / c₁, 1 - η λ, and c₂ ε. The second one is None where λ is 0.
    """
    # 1 - 0.999ᵗ itself would lose four of seven digits.
    mean_correction = -ops.expm1(step * math.log(beta_1)) if beta_1 else 1.0
    root_correction = ops.sqrt(-ops.expm1(step * math.log(beta_2))) if beta_2 else 1.0
    sizes = learning_rate * root_correction / mean_correction
    kept = 1.0 - learning_rate * ops.convert_to_tensor(weight_decay, step.dtype)
    count = len(weight_decay)
    columns = (ops.unstack(each, count) for each in (sizes, kept, epsilon * root_correction))
    return [
        (size, keep if decay else None, offset)
        for size, keep, offset, decay in zip(*columns, weight_decay, strict=True)
    ]


def updates_together() -> bool:
    """Whether one call of `adamw_update` may have all variables of an optimizer."""
    return True


def adamw_update(
    variables: list[keras.Variable],
    gradients: list[Tensor],
    momentums: list[keras.Variable],
    velocities: list[keras.Variable],
    numbers: list[tuple],
    *,
    scale: Tensor | None = None,
    seed: Tensor | None = None,
    beta_1: float,
    beta_2: float,
) -> None:
    """Applies one step of AdamW to variables in place.

    Args:
        variables: The variables to update.
        gradients: The gradients of the loss, as returned by `summed_gradient`.
        momentums: Running means of gradients, updated in place.
        velocities: Running means of squared gradients, updated in place.
        numbers: The scalars of each variable, from `adamw_numbers`.
        scale: A scalar by which gradients are multiplied first, to clip them; by default 1.
        seed: A number that differs between steps, a uint32 scalar; needed for moments in
            bfloat16.
        beta_1: Decay rate of the momentums.
        beta_2: Decay rate of the velocities.
    """
    places = zip(variables, momentums, velocities, strict=True)
    for place, gradient, scalars in zip(places, gradients, numbers, strict=True):
        if scale is not None:
            gradient = portable.scaled_gradient(gradient, scale)
        values = [on_device(item) for item in place]
        moved = adamw_moved(*values, gradient, scalars, beta_1, beta_2, seed)
        for item, value in zip(place, moved, strict=True):
            assign_in_place(item, value)


def adamw_moved(
    variable: Tensor,
    momentum: Tensor,
    velocity: Tensor,
    gradient: Tensor,
    numbers: tuple,
    beta_1: float,
    beta_2: float,
    seed: Tensor | None = None,
) -> tuple:
    """Computes one step of AdamW (Loshchilov and Hutter 2019), with epsilon as in PyTorch.

    The arithmetic is in the dtype of the variable. Momentum and velocity are returned in their own
    dtype, which is bfloat16 if it is another one.

    Args:
        variable: The weights.
        momentum: Running mean of gradients.
        velocity: Running mean of squared gradients.
        gradient: The clipped gradient of the loss.
        numbers: The scalars of this variable, from `adamw_numbers`.
        beta_1: Decay rate of `momentum`.
        beta_2: Decay rate of `velocity`.
        seed: As for `adamw_update`.

    Returns:
        The new variable, momentum and velocity.
    """
    dtype = variable.dtype
    size, keep, offset = (None if each is None else ops.cast(each, dtype) for each in numbers)
    gradient = ops.cast(gradient, dtype)
    mean, square = ops.cast(momentum, dtype), ops.cast(velocity, dtype)
    mean = mean + (gradient - mean) * (1.0 - beta_1)
    square = square + (ops.square(gradient) - square) * (1.0 - beta_2)
    change = size * (mean / (ops.sqrt(square) + offset))
    moved = (variable if keep is None else keep * variable) - change
    if velocity.dtype != dtype:
        return moved, *stochastically_rounded(mean, square, seed)
    return moved, mean, square


def stochastically_rounded(mean: Tensor, square: Tensor, seed: Tensor) -> tuple:
    """Rounds to a neighbour in bfloat16, up with the probability that keeps the mean (unbiased).

    A running mean with the decay rate 0.999 changes by a thousandth in a step. The numbers of
    bfloat16 are further apart than that, so that rounding to the nearest one would undo each step.
    With the decay rate 0.9, the mean would stop 2 to 4 % before its limit.

    Args:
        mean: Finite numbers.
        square: The same for the second moment.
        seed: A uint32 scalar, different for each step. In a step, equal pairs of numbers are
            rounded equally.

    Returns:
        Both in bfloat16.
    """
    pair = [ops.view(ops.cast(each, "float32"), "uint32") for each in (mean, square)]
    # One hash for both, because its multiplications are what takes time.
    random = _hash(ops.bitwise_xor(ops.bitwise_xor(*pair), seed))
    carries = ops.bitwise_and(random, _uint32(0xFFFF)), ops.right_shift(random, _uint32(16))
    # A random number of 16 bits carries into the upper half with the right probability. The upper
    # half is the number in bfloat16; XLA takes a dozen operations for an ordinary cast.
    halves = (
        ops.right_shift(bits + carry, _uint32(16))
        for bits, carry in zip(pair, carries, strict=True)
    )
    return tuple(ops.view(ops.cast(half, "uint16"), "bfloat16") for half in halves)


def _hash(x: Tensor) -> Tensor:
    """The integer hash of `random_bits`."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = ops.bitwise_xor(x, ops.right_shift(x, _uint32(shift))) * _uint32(factor)
    return ops.bitwise_xor(x, ops.right_shift(x, _uint32(16)))


def _uint32(value: int) -> Tensor:
    return ops.convert_to_tensor(np.uint32(value))
