"""Shapes of learning-rate schedules over the fraction of a fit."""

import math
from collections.abc import Callable
from typing import Any, Literal

from keras import ops

from finetune_tf.base.arguments import check
from finetune_tf.errors import ArgumentError, ModelError

Shape = Literal["linear", "cosine", "one-cycle", "polynomial", "constant"]

#: The default fraction of the steps for the warm-up.
WARMUP: dict[Shape, float] = {
    "linear": 0.1,
    "cosine": 0.1,
    "one-cycle": 0.3,
    "polynomial": 0.1,
    "constant": 0.0,
}
#: The shapes that say nothing if the number of steps is unknown.
NEED_STEPS = ("cosine", "one-cycle", "polynomial")
_START = 1 / 25  # of one cycle, as a fraction of the peak


def factor_of(shape: Shape, rising: Any, left: Any, power: float, end: float) -> Any:
    """Returns the learning rate as a fraction of the peak.

    Args:
        shape: The shape.
        rising: How much of the warm-up is done, from 0 to 1.
        left: How much of the steps after the warm-up is left, from 1 to 0.
        power: The exponent of a polynomial decay.
        end: The fraction of the peak at the end of the decay.

    Example:
        >>> from finetune_tf.training.shapes import factor_of
        >>> [round(float(factor_of("cosine", 1.0, x, 1.0, 0.1)), 3) for x in (1.0, 0.5, 0.0)]
        [1.0, 0.55, 0.1]
    """
    decays: dict[str, Callable[[Any], Any]] = {
        "linear": lambda x: x,
        "cosine": _half_wave,
        "one-cycle": _half_wave,
        "polynomial": lambda x: ops.power(x, power),
        "constant": ops.ones_like,
    }
    falling = decays[shape](ops.convert_to_tensor(left))
    if end:
        falling = end + (1.0 - end) * falling
    if shape == "one-cycle":
        rising = _START + (1.0 - _START) * _half_wave(ops.convert_to_tensor(rising))
    return rising * falling


def _half_wave(x: Any) -> Any:
    """Rises from 0 to 1 with a slope of 0 at both ends."""
    return 0.5 * (1.0 - ops.cos(math.pi * x))


def check_warmup(warmup_ratio: float | None, warmup_steps: float | None) -> None:
    """Checks the two ways to give the length of a warm-up.

    Raises:
        ArgumentError: If a number is out of range, or both are given.
    """
    if warmup_ratio is not None:
        check(warmup_ratio=warmup_ratio)
    if warmup_steps is not None:
        check(warmup_steps=warmup_steps)
    if warmup_ratio is not None and warmup_steps is not None:
        raise ArgumentError(
            f"warmup_ratio={warmup_ratio} and warmup_steps={warmup_steps} are both given. Leave "
            "one of them out."
        )


def check_shape(shape: Any) -> None:
    """Checks the name of a shape.

    Raises:
        ModelError: If there is no such shape.
    """
    if shape not in WARMUP:
        *most, last = map(repr, WARMUP)
        raise ModelError(f"The schedule must be {', '.join(most)} or {last}, found {shape!r}.")
