"""Numbers as a page shows them."""

import math
from collections.abc import Callable
from typing import Any


def decimal(value: float) -> str:
    """A number with three decimal places; a dash if it is not a number.

    Example:
        >>> from finetune_tf.pages.numbers import decimal
        >>> decimal(0.91234), decimal(float("nan"))
        ('0.912', '–')
    """
    return f"{value:,.3f}" if math.isfinite(value) else "–"


def signed(value: float) -> str:
    """A difference with its sign and three decimal places."""
    return f"{value:+,.3f}" if math.isfinite(value) else "–"


def interval(value: Any, written: Callable[[float], str] = decimal) -> str:
    """A value with the ends of its interval: "0.912 (0.890 … 0.931)"."""
    return f"{written(value.value)} ({written(value.low)} … {written(value.high)})"
