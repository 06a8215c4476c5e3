"""What the numbers among the arguments of public functions may be: one table, one check.

The same name means the same thing everywhere (`batch_size`, `seed`, `max_length`), so its type and
range are written once, in `RULES`, and every public function that takes it calls `check`.
"""

import inspect
import math
import numbers
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from finetune_tf.errors import ArgumentError

# Backends count rows and steps in int32.
_LARGEST = 2**31 - 1
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BYTES = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]B)\s*", re.IGNORECASE | re.ASCII)


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

    def told(self, value: Any) -> str:
        """The range in words, for the message about a value; the limit of all counts only above."""
        within = not isinstance(value, numbers.Integral) or value <= _LARGEST
        return str(replace(self, high=None) if self.high == _LARGEST and within else self)

    def __str__(self) -> str:
        """The range in words."""
        words = "a whole number" if self.whole else "a number"
        if self.low > -math.inf:
            low = _text(self.low)
            words += f" above {low}" if self.above_low else f" from {low} on"
        if self.high is not None:
            words = words.removesuffix(" on")
            high = f"{self.high:,}" if self.whole else _text(self.high)
            words += f" to below {high}" if self.below_high else f" to {high}"
        return " or ".join([words, *(repr(other) for other in self.also)])


@dataclass(frozen=True)
class Bytes(Number):
    """An amount of bytes: a whole number, or a text with a unit."""

    def accepts(self, value: Any) -> bool:
        """Whether a value is such an amount, of at least a byte."""
        text = _BYTES.fullmatch(value) if isinstance(value, str) else None
        return bytes_of(value) >= self.low if text else super().accepts(value)

    def __str__(self) -> str:
        """The range in words."""
        return f'{super().__str__()}, in bytes, or a text such as "5GB" or "500MB"'


def bytes_of(amount: int | str) -> int:
    """The bytes of an amount that `Bytes` accepts, such as 5_000_000_000 or "5GB"."""
    if not isinstance(amount, str):
        return int(amount)
    number, unit = _BYTES.fullmatch(amount).groups()
    return int(float(number) * _UNITS[unit.upper()])


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
    return Number(1, _LARGEST, whole=True, also=also)


def _positive(also: Collection[Any] = ()) -> Number:
    return Number(0, above_low=True, also=also)


def _share(also: Collection[Any] = ()) -> Number:
    """From 0 to below 1."""
    return Number(0, 1, below_high=True, also=also)


_NO_LIMIT = (None,)

#: The range of every argument that is a number, by the argument's name. Where the same name means
#: something else in one class, that class stands before it.
RULES: dict[str, Number] = {
    # Rows and tokens
    "batch_size": _count(),
    "buckets": _count(),
    "fraction": Number(0, 1, above_low=True, below_high=True),
    "mask_rate": Number(0, 1, above_low=True),
    "max_answer_length": _count(),
    "max_length": _count(also=_NO_LIMIT),
    "n": _count(),
    "null_threshold": Number(-math.inf, also=_NO_LIMIT),
    "pad_token_id": Number(0, whole=True, also=_NO_LIMIT),
    "seed": Number(0, 2**32 - 1, whole=True),
    "max_shard_size": Bytes(1, whole=True),
    "size": _count(),
    "start": Number(-math.inf, whole=True),
    "stop": Number(-math.inf, whole=True, also=_NO_LIMIT),
    "stride": Number(0, whole=True),
    "tokens_per_batch": _count(also=_NO_LIMIT),
    # Generation
    "length_penalty": Number(-math.inf, also=(None,)),
    "max_new_tokens": _count(also=(None,)),
    "min_new_tokens": Number(0, whole=True, also=(None,)),
    "min_p": Number(0, 1, also=(None,)),
    "no_repeat_ngram_size": Number(0, whole=True, also=(None,)),
    "num_beams": _count(also=(None,)),
    "num_return_sequences": _count(also=(None,)),
    "repetition_penalty": _positive(also=(None,)),
    "temperature": _positive(also=(None,)),
    "top_k": Number(0, whole=True, also=(None,)),
    "top_p": Number(0, 1, above_low=True, also=(None,)),
    # Losses and layers
    "dropout": _share(also=(None,)),
    "label_smoothing": _share(),
    "scale": _positive(),
    # Optimizers
    "accumulate": _count(),
    "beta_1": _share(),
    "beta_2": _share(),
    "clip_norm": _positive(also=(None,)),
    "clipnorm": _positive(also=(None,)),
    "clipvalue": _positive(also=(None,)),
    "ema_momentum": Number(0, 1),
    "ema_overwrite_frequency": _count(also=(None,)),
    "epsilon": _positive(),
    "global_clipnorm": _positive(also=(None,)),
    "gradient_accumulation_steps": Number(2, whole=True, also=(None,)),
    "loss_scale_factor": _positive(also=(None,)),
    "weight_decay": Number(0),
    # Rates; an optimizer may be at the rate 0, as at the end of a decay
    "AdamW.learning_rate": Number(0),
    "Warmup.peak": _positive(),
    "head_rate": _positive(),
    "held": Number(0, also=(None,)),
    "learning_rate": _positive(also=("auto",)),
    "peak": _positive(also=("auto",)),
    "power": _positive(),
    "pretrained_rate": _positive(),
    "steps": Number(0),
    "warmup_ratio": _share(),
    # Fits
    "epochs": _count(),
    "initial_epoch": Number(0, whole=True),
    # Keras's own methods
    "keras.batch_size": _count(also=(None,)),
    "keras.steps": _count(also=(None,)),
    "keras.steps_per_epoch": _count(also=(None,)),
    "keras.steps_per_execution": _count(also=("auto",)),
    "keras.validation_batch_size": _count(also=(None,)),
    "keras.loss_weights": Number(0, also=(None,)),
    "keras.validation_freq": _count(),
    "keras.validation_split": _share(also=(None,)),
    "keras.validation_steps": _count(also=(None,)),
    # Names of transformers 4
    "adam_beta1": _share(),
    "adam_beta2": _share(),
    "adam_clipnorm": _positive(also=(None,)),
    "adam_epsilon": _positive(),
    "adam_global_clipnorm": _positive(also=(None,)),
    "init_lr": _positive(),
    "initial_learning_rate": _positive(),
    "min_lr_ratio": Number(0, 1),
    "num_train_steps": Number(0),
    "num_warmup_steps": Number(0),
    "warmup_steps": Number(0),
    "weight_decay_rate": Number(0),
}


def check(**arguments: Any) -> None:
    """Checks arguments by the rules of their names.

        check(batch_size=batch_size, seed=seed)

    Args:
        **arguments: Values by the names that the user knows them by, or such a name after its class
            and a dot.

    Raises:
        ArgumentError: If a value is outside of its range.
    """
    for name, value in arguments.items():
        if not RULES[name].accepts(value):
            known_as = name.rpartition(".")[2]
            raise ArgumentError(f"{known_as} is {RULES[name].told(value)}, found {shown(value)}.")


def check_known(**arguments: Any) -> None:
    """Checks those of some arguments that have a rule."""
    check(**{name: value for name, value in arguments.items() if name in RULES})


def by_name(call: str, names: Sequence[str], args: tuple, kwargs: dict) -> dict[str, Any]:
    """The arguments of a call, all of them by name.

    Args:
        call: The method, for messages.
        names: Of the parameters that `args` are for, in order.
        args: The positional arguments.
        kwargs: The others.

    Raises:
        TypeError: If there are too many, or one is given twice, as Python has it.
    """
    if len(args) > len(names):
        raise TypeError(
            f"{call}() takes {len(names)} more arguments by their place ({', '.join(names)}), "
            f"found {len(args)}."
        )
    given = dict(zip(names, args, strict=False))
    if twice := given.keys() & kwargs.keys():
        raise TypeError(f"{call}() got {sorted(twice)[0]} twice, by place and by name.")
    return given | kwargs


def check_call(method: Any, *args: Any, **kwargs: Any) -> None:
    """Checks the numbers in a call of one of Keras's methods.

    Args:
        method: Whose signature names the positional arguments, without `self`.
        *args: As given to it.
        **kwargs: As given to it.

    Raises:
        ArgumentError: If a number is outside of its range.
    """
    names = list(inspect.signature(method).parameters)[1:]
    for name, value in [*zip(names, args, strict=False), *kwargs.items()]:
        for rule in (f"keras.{name}", name):
            if rule in RULES:
                several = name == "validation_freq" and isinstance(value, Collection)
                for number in value if several else [value]:  # it may be a list of epochs
                    check(**{rule: number})
                break
