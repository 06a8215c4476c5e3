"""Range checks of numeric arguments of public functions.

An argument name such as `batch_size`, `seed` or `max_length` means the same everywhere. Its type
and range are therefore defined once, in `RULES`, and every public function that accepts it calls
`check`.
"""

import inspect
import math
import numbers
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from finetune_tf.errors import ArgumentError

# Backends represent numbers of rows and steps as int32.
_LARGEST = 2**31 - 1
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BYTES = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]B)\s*", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True)
class Number:
    """A range of finite numbers.

    Attributes:
        low: The lower bound.
        high: The upper bound; None for no upper bound.
        whole: Whether only integers are valid.
        above_low: Whether `low` itself is excluded.
        below_high: Whether `high` itself is excluded.
        also: Valid values besides numbers, such as None or "auto".

    Example:
        >>> from finetune_tf.base.arguments import Number
        >>> rate = Number(0, 1, below_high=True, also=(None,))
        >>> print(rate)
        a number >= 0 and < 1, or None
        >>> rate.accepts(0.1), rate.accepts(1.0), rate.accepts(None)
        (True, False, True)
    """

    low: float
    high: float | None = None
    whole: bool = False
    above_low: bool = False
    below_high: bool = False
    also: Collection[Any] = ()

    def accepts(self, value: Any) -> bool:
        """Whether a value is in the range. A NumPy scalar counts as a number, a bool does not."""
        if any(
            value is other or (isinstance(value, str) and value == other) for other in self.also
        ):
            return True
        kind = numbers.Integral if self.whole else numbers.Real
        if isinstance(value, bool) or not isinstance(value, kind):
            return False
        # An integer is always finite, and math.isfinite overflows if it is too large for a float.
        if not isinstance(value, numbers.Integral) and not math.isfinite(value):
            return False
        is_above = value > self.low if self.above_low else value >= self.low
        if self.high is None:
            return is_above
        return is_above and (value < self.high if self.below_high else value <= self.high)

    def describe_for(self, value: Any) -> str:
        """Describes the range for a message; the int32 limit only if the value exceeds it."""
        is_below = not isinstance(value, numbers.Integral) or value <= _LARGEST
        return str(replace(self, high=None) if self.high == _LARGEST and is_below else self)

    def __str__(self) -> str:
        """Describes the range."""
        bounds = []
        if self.low > -math.inf:
            bounds.append(f"{'>' if self.above_low else '>='} {_format_bound(self.low)}")
        if self.high is not None:
            high = f"{self.high:,}" if self.whole else _format_bound(self.high)
            bounds.append(f"{'<' if self.below_high else '<='} {high}")
        text = " ".join(["an integer" if self.whole else "a number", " and ".join(bounds)]).strip()
        if not self.also:
            return text
        comma = "," if len(bounds) > 1 else ""
        return f"{text}{comma} or {' or '.join(repr(other) for other in self.also)}"


@dataclass(frozen=True)
class Bytes(Number):
    """A number of bytes: an integer, or a string with a unit."""

    def accepts(self, value: Any) -> bool:
        """Whether a value is a valid size of at least one byte."""
        text = _BYTES.fullmatch(value) if isinstance(value, str) else None
        return bytes_of(value) >= self.low if text else super().accepts(value)

    def __str__(self) -> str:
        """Describes the valid values."""
        return f'{super().__str__()} (bytes), or a string such as "5GB" or "500MB"'


@dataclass(frozen=True)
class ImageSize(Number):
    """The size of an image: a number of pixels for a square, or (height, width)."""

    def accepts(self, value: Any) -> bool:
        """Whether a value is a number in the range, or a pair of them."""
        if isinstance(value, list | tuple):
            return len(value) == 2 and all(map(super().accepts, value))
        return super().accepts(value)

    def __str__(self) -> str:
        """Describes the valid values."""
        return f"{super().__str__()} (pixels), or (height, width)"


def bytes_of(amount: int | str) -> int:
    """Returns the number of bytes of a size that `Bytes` accepts.

    Example:
        >>> from finetune_tf.base.arguments import bytes_of
        >>> bytes_of("1.5 GB"), bytes_of(300)
        (1500000000, 300)
    """
    if not isinstance(amount, str):
        return int(amount)
    number, unit = _BYTES.fullmatch(amount).groups()
    return int(float(number) * _UNITS[unit.upper()])


def _format_bound(bound: float) -> str:
    """Formats a bound, with all digits of a large integer: 10,000,000."""
    return f"{bound:,}" if isinstance(bound, int) else f"{bound:g}"


def shown(value: Any, length: int = 80) -> str:
    """Returns the repr of a value for a message, truncated to a readable length."""
    try:
        text = repr(value)
    except Exception:  # an integer with too many digits, or an object whose __repr__ fails
        return f"an unprintable {type(value).__name__}"
    return text if len(text) <= length else f"{text[: length - 2]} …"


def _count(also: Collection[Any] = ()) -> Number:
    return Number(1, _LARGEST, whole=True, also=also)


def _positive(also: Collection[Any] = ()) -> Number:
    return Number(0, above_low=True, also=also)


def _share(also: Collection[Any] = ()) -> Number:
    """A fraction >= 0 and < 1."""
    return Number(0, 1, below_high=True, also=also)


_NO_LIMIT = (None,)

#: The range of every numeric argument, by its name. A rule for one class only has the class name
#: in front: "AdamW.learning_rate".
RULES: dict[str, Number] = {
    # Rows and tokens
    "batch_size": _count(),
    "augment_variants": _count(also=_NO_LIMIT),
    "buckets": _count(),
    "packing": _count(also=(True, False, "auto")),
    "frames": _count(also=_NO_LIMIT),
    "image_size": ImageSize(1, 65_535, whole=True, also=_NO_LIMIT),
    "fraction": Number(0, 1, above_low=True, below_high=True),
    "mask_rate": Number(0, 1, above_low=True),
    "max_answer_length": _count(),
    "max_length": _count(also=_NO_LIMIT),
    "max_target_length": _count(also=_NO_LIMIT),
    "columns": _count(),
    "n": _count(),
    "null_threshold": Number(-math.inf, also=_NO_LIMIT),
    "rows": _count(),
    "pad_token_id": Number(0, whole=True, also=_NO_LIMIT),
    "seed": Number(0, 2**32 - 1, whole=True),
    "max_shard_size": Bytes(1, whole=True),
    "size": _count(),
    "start": Number(-math.inf, whole=True),
    "stop": Number(-math.inf, whole=True, also=_NO_LIMIT),
    "stride": Number(0, whole=True),
    "tokens_per_batch": _count(also=_NO_LIMIT),
    # Generation
    "encoder_no_repeat_ngram_size": Number(0, whole=True, also=(None,)),
    "encoder_repetition_penalty": _positive(also=(None,)),
    "epsilon_cutoff": _share(also=(None,)),
    "eta_cutoff": _share(also=(None,)),
    "length_penalty": Number(-math.inf, also=(None,)),
    "max_new_tokens": _count(also=(None,)),
    "min_length": Number(0, whole=True, also=(None,)),
    "min_new_tokens": Number(0, whole=True, also=(None,)),
    "min_p": Number(0, 1, also=(None,)),
    "no_repeat_ngram_size": Number(0, whole=True, also=(None,)),
    "num_beams": _count(also=(None,)),
    "num_return_sequences": _count(also=(None,)),
    "repetition_penalty": _positive(also=(None,)),
    "temperature": _positive(also=(None,)),
    "top_k": Number(0, whole=True, also=(None,)),
    "top_p": Number(0, 1, above_low=True, also=(None,)),
    "typical_p": Number(0, 1, above_low=True, also=(None,)),
    # Losses and layers
    "dropout": _share(also=(None,)),
    "set_dropout.dropout": _share(),
    "label_smoothing": _share(),
    "scale": _positive(),
    # Adapters
    "alpha": _positive(),
    "rank": _count(),
    # Objectives
    "delta": _positive(),
    "gamma": Number(0),
    "Distillation.alpha": Number(0, 1),
    "Distillation.hidden_weight": Number(0),
    "Distillation.temperature": _positive(),
    "L2SP.alpha": Number(0),
    "L2SP.beta": Number(0),
    "Mixup.alpha": _positive(),
    "NEFTune.alpha": Number(0),
    "RDrop.alpha": Number(0),
    "SupervisedContrastive.alpha": Number(0, 1),
    "SupervisedContrastive.temperature": _positive(),
    # Interpolation of weights
    "share": Number(0, 1),
    # Optimizers
    "accumulate": _count(),
    "beta_1": _share(),
    "beta_2": _share(),
    "clip_norm": _positive(also=(None,)),
    "clipnorm": _positive(also=(None,)),
    "clipvalue": _positive(also=(None,)),
    "ema_momentum": Number(0, 1),
    "ema_overwrite_frequency": _count(also=(None,)),
    "end": Number(0, 1),
    "epsilon": _positive(),
    "global_clipnorm": _positive(also=(None,)),
    "gradient_accumulation_steps": Number(2, whole=True, also=(None,)),
    "loss_scale_factor": _positive(also=(None,)),
    "weight_decay": Number(0),
    # Learning rates. The current rate of an optimizer may be 0, as at the end of a decay.
    "AdamW.learning_rate": Number(0),
    "EMA.decay": _share(),
    "Warmup.peak": _positive(),
    "head_rate": _positive(),
    "held": Number(0, also=(None,)),
    "layerwise.decay": Number(0, 1, above_low=True),
    "layerwise.head": _positive(),
    "learning_rate": _positive(also=("auto",)),
    "peak": _positive(also=("auto",)),
    "power": _positive(),
    "pretrained_rate": _positive(),
    "rate_factor": _positive(),
    "steps": Number(0),
    "warmup_ratio": _share(),
    "highest": _positive(),
    "lowest": _positive(),
    "points": Number(10, _LARGEST, whole=True),
    # Calibration and diagnosis
    "abstain.threshold": Number(0, 1),
    "accuracy": Number(0, 1, above_low=True, below_high=True),
    "at_least": Number(0, 1, above_low=True, below_high=True),
    "folds": Number(2, _LARGEST, whole=True),
    "min_rows": Number(2, _LARGEST, whole=True),
    "similarity": Number(0, 1, above_low=True),
    # Search
    "high": Number(-math.inf),
    "low": Number(-math.inf),
    "minutes": _positive(also=(None,)),
    "trials": _count(also=(None,)),
    "rank_checkpoints.rows": _count(also=_NO_LIMIT),
    # Meta-learning
    "MAML.steps": _count(),
    "Reptile.steps": _count(),
    "adapt_steps": _count(also=(None,)),
    "episodes": _count(),
    "episodes_per_step": _count(),
    "evaluate.episodes": Number(2, _LARGEST, whole=True),
    "inner_batch": _count(),
    "inner_rate": _positive(),
    "number": Number(0, whole=True),
    "queries": _count(),
    "shots": _count(),
    "split_classes.test": Number(0, 1, above_low=True, below_high=True),
    "step_size": Number(0, 1, above_low=True),
    "ways": Number(2, _LARGEST, whole=True),
    # Reports
    "explanations": Number(0, 50, whole=True),
    # Explanations
    "explain.steps": _count(),
    "neighbors": _count(),
    "orders": _count(),
    "patch": _count(also=_NO_LIMIT),
    "randomized": Number(0, _LARGEST, whole=True),
    # Few-shot methods
    "PairContrast.temperature": _positive(),
    "fit.batch_size": Number(4, _LARGEST, whole=True),
    "fit.steps": _count(also=("auto",)),
    "fit_head.C": _positive(also=("auto",)),
    "learning_curve.batch_size": Number(4, _LARGEST, whole=True),
    "learning_curve.shots": Number(2, _LARGEST, whole=True),
    "learning_curve.splits": Number(2, _LARGEST, whole=True),
    "learning_curve.steps": _count(also=("auto",)),
    "tune_body.batch_size": Number(4, _LARGEST, whole=True),
    "tune_body.steps": _count(also=("auto",)),
    # Serving
    "max_batch": _count(),
    "max_body_bytes": _count(),
    "max_characters": _count(),
    "max_texts": _count(),
    "max_wait_ms": Number(0, 60_000),
    "max_waiting": _count(),
    "port": Number(0, 65_535, whole=True),
    # Several devices
    "distribute.num_processes": _count(also=(None,)),
    "distribute.parts": _count(also=(None,)),
    "distribute.process_id": Number(0, _LARGEST, whole=True, also=(None,)),
    # Fits
    "BindSchedule.epochs": _count(also=(None,)),
    "Unfreeze.epoch": Number(0, whole=True),
    "Unfreeze.patience": _count(),
    "Resume.every_steps": _count(also=(None,)),
    "Resume.keep": _count(),
    "epochs": _count(),
    "every": _count(),
    "initial_epoch": Number(0, whole=True),
    "min_delta": Number(0),
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
    # Arguments of transformers 4
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
    """Checks that numeric arguments are in the ranges of `RULES`.

    Args:
        **arguments: The values by the names of the public arguments, or by "Class.name".

    Raises:
        ArgumentError: If a value is out of range.

    Example:
        >>> from finetune_tf.base.arguments import check
        >>> check(batch_size=32, seed=0)
        >>> check(batch_size=0)
        Traceback (most recent call last):
            ...
        finetune_tf.errors.ArgumentError: batch_size must be an integer >= 1, found 0.
    """
    for name, value in arguments.items():
        if not RULES[name].accepts(value):
            public_name, expected = name.rpartition(".")[2], RULES[name].describe_for(value)
            raise ArgumentError(f"{public_name} must be {expected}, found {shown(value)}.")


def check_known(**arguments: Any) -> None:
    """Checks the arguments that have a rule, and ignores the others."""
    check(**{name: value for name, value in arguments.items() if name in RULES})


def by_name(call: str, names: Sequence[str], args: tuple, kwargs: dict) -> dict[str, Any]:
    """Returns all arguments of a call by name.

    Args:
        call: The name of the method, for messages.
        names: The names of the positional parameters, in order.
        args: The positional arguments.
        kwargs: The keyword arguments.

    Raises:
        TypeError: If there are too many positional arguments, or an argument is passed twice.

    Example:
        >>> from finetune_tf.base.arguments import by_name
        >>> by_name("fit", ["x", "y"], (1, 2), {"epochs": 3})
        {'x': 1, 'y': 2, 'epochs': 3}
    """
    if len(args) > len(names):
        raise TypeError(
            f"{call}() takes {len(names)} more positional arguments ({', '.join(names)}), "
            f"found {len(args)}."
        )
    positional = dict(zip(names, args, strict=False))
    if twice := positional.keys() & kwargs.keys():
        raise TypeError(f"{call}() got {sorted(twice)[0]} twice, by position and by keyword.")
    return positional | kwargs


def check_call(method: Any, *args: Any, **kwargs: Any) -> None:
    """Checks the numeric arguments in a call of a Keras method.

    Args:
        method: The method, whose signature has the names of the positional arguments.
        *args: The positional arguments of the call, without `self`.
        **kwargs: The keyword arguments of the call.

    Raises:
        ArgumentError: If a number is out of range.
    """
    names = list(inspect.signature(method).parameters)[1:]
    for name, value in [*zip(names, args, strict=False), *kwargs.items()]:
        for rule in (f"keras.{name}", name):
            if rule in RULES:
                # validation_freq may be a list of epochs
                is_list = name == "validation_freq" and isinstance(value, Collection)
                for number in value if is_list else [value]:
                    check(**{rule: number})
                break
