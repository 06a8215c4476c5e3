"""What the numbers among the arguments of public functions may be: one table, one check.

The same name means the same thing everywhere (`batch_size`, `seed`, `max_length`), so its type and
range are written once, in `RULES`, and every public function that takes it calls `check`.
"""

import math
import numbers
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from finetune_tf.errors import ArgumentError


@dataclass(frozen=True)
class Number:
    """A range of finite numbers.

    Attributes:
        low: The lowest number of the range.
        high: The highest number of the range; None for no limit.
        whole: Whether only whole numbers are allowed.
        above_low: Whether `low` itself is excluded.
        below_high: Whether `high` itself is excluded.
        also: Values that are allowed besides numbers, such as None or "auto".
    """

    low: float
    high: float | None = None
    whole: bool = False
    above_low: bool = False
    below_high: bool = False
    also: Collection[Any] = ()

    def accepts(self, value: Any) -> bool:
        """Whether a value is in the range. A bool is no number; a NumPy scalar is one."""
        if any(
            value is other or (isinstance(value, str) and value == other) for other in self.also
        ):
            return True
        kind = numbers.Integral if self.whole else numbers.Real
        if isinstance(value, bool) or not isinstance(value, kind):
            return False
        # A whole number is finite, and may be too large for the float that isfinite makes of it.
        if not isinstance(value, numbers.Integral) and not math.isfinite(value):
            return False
        low = value > self.low if self.above_low else value >= self.low
        if self.high is None:
            return low
        return low and (value < self.high if self.below_high else value <= self.high)

    def __str__(self) -> str:
        """The range in words, for messages."""
        words = "a whole number" if self.whole else "a number"
        words += f" above {_text(self.low)}" if self.above_low else f" from {_text(self.low)} on"
        if self.high is not None:
            words = words.removesuffix(" on")
            words += (
                f" to below {_text(self.high)}" if self.below_high else f" to {_text(self.high)}"
            )
        return " or ".join([words, *(repr(other) for other in self.also)])


def _text(bound: float) -> str:
    """A bound of a range, with all digits of a large whole number: 10,000,000."""
    return f"{bound:,}" if isinstance(bound, int) else f"{bound:g}"


def shown(value: Any, length: int = 80) -> str:
    """A value as it is told in a message, cut to a length that can be read."""
    try:
        text = repr(value)
    except Exception:  # a number of too many digits, or an object that fails to describe itself
        return f"an unprintable {type(value).__name__}"
    return text if len(text) <= length else f"{text[: length - 2]} …"


def _count(also: Collection[Any] = ()) -> Number:
    return Number(1, whole=True, also=also)


#: The range of every argument that is a number, by the argument's name.
RULES: dict[str, Number] = {
    "batch_size": _count(),
    "epochs": _count(),
    "label_smoothing": Number(0, 1, below_high=True),
    "max_length": _count(also=(None,)),
    "scale": Number(0, above_low=True),
    "seed": Number(0, 2**32 - 1, whole=True),
}


def check(**arguments: Any) -> None:
    """Checks arguments by the rules of their names.

        check(batch_size=batch_size, seed=seed)

    Args:
        **arguments: Values by the names that the user knows them by.

    Raises:
        ArgumentError: If a value is outside of its range.
    """
    for name, value in arguments.items():
        if not RULES[name].accepts(value):
            raise ArgumentError(f"{name} is {RULES[name]}, found {shown(value)}.")
