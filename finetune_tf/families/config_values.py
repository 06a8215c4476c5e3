"""The one reader of values in a config.json: their types and ranges, declared with the keys.

A family declares a rule for each key that it reads, beside its defaults. A whole number may be
written as 12.0, as some tools do, and becomes 12; nothing else is converted. Keys without a rule
are ignored, as in transformers.
"""

import json
import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from finetune_tf.base.arguments import Number, shown
from finetune_tf.base.json_files import read_json
from finetune_tf.base.paths import has_file
from finetune_tf.errors import CheckpointError

#: Layers and blocks that a model may have; the deepest one that is known has 48.
MAX_DEPTH = 256
MAX_LABELS = 1_000_000


class Rule(Protocol):
    """What the value of a key may be; `str` says it in words."""

    def accepts(self, value: Any) -> bool:
        """Whether the value is allowed."""


@dataclass(frozen=True)
class OneOf:
    """Some values, and no others of another type that are equal to them: 1 is not true."""

    values: tuple

    def accepts(self, value: Any) -> bool:
        """Whether the value is one of them."""
        return any(type(value) is type(each) and value == each for each in self.values)

    def __str__(self) -> str:
        """The values as JSON writes them."""
        return " or ".join(json.dumps(each) for each in self.values)


@dataclass(frozen=True)
class Shape:
    """A value with parts, which a function looks through.

    Attributes:
        words: What it has to be, for messages.
        check: Whether a value is.
    """

    words: str
    check: Callable[[Any], bool]

    def accepts(self, value: Any) -> bool:
        """Whether the value has the shape."""
        return self.check(value)

    def __str__(self) -> str:
        """The shape in words."""
        return self.words


def size(high: int, low: int = 1, also: tuple = ()) -> Number:
    """A whole number of rows, features, layers."""
    return Number(low, high, whole=True, also=also)


# Sizes far above those of any model that is known, at which nothing has been allocated yet.
FEATURES = size(65_536)
INTERMEDIATE = size(1_000_000)
VOCABULARY = size(2_000_000)
POSITIONS = size(1_000_000)
DEPTH = size(MAX_DEPTH)
RATE = Number(0, 1, below_high=True)
RATE_OR_NULL = Number(0, 1, below_high=True, also=(None,))
EPSILON = Number(0, 1)
DEVIATION = Number(0, 1)
THETA = Number(0, 1e12, above_low=True)
TOKEN = size(2_000_000, 0)
TOKEN_OR_NULL = size(2_000_000, 0, (None,))
FLAG = OneOf((True, False))
TEXT = Shape("a text", lambda value: isinstance(value, str))


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | numbers.Real)


def _names_by_number(value: Any) -> bool:
    """Whether it is an id2label: {"0": "negative", "1": "positive"}, in any order."""
    if value is None:
        return True
    if not isinstance(value, Mapping) or len(value) > MAX_LABELS:
        return False
    wanted = {str(number) for number in range(len(value))}
    return {str(key) for key in value} == wanted and all(map(_is_scalar, value.values()))


def _numbers_by_name(value: Any) -> bool:
    return value is None or (isinstance(value, Mapping) and all(map(_is_scalar, value.values())))


def _texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(text, str) for text in value)


TEXTS = Shape("a list of texts", _texts)
#: Keys that all families read.
COMMON: dict[str, Rule] = {
    "architectures": Shape("a list of class names, or null", lambda v: v is None or _texts(v)),
    "id2label": Shape(
        f'names by number from "0" on, such as {{"0": "no", "1": "yes"}}, at most {MAX_LABELS:,}',
        _names_by_number,
    ),
    "label2id": Shape('numbers by name, such as {"no": 0, "yes": 1}', _numbers_by_name),
    "num_labels": size(MAX_LABELS, also=(None,)),
    "problem_type": OneOf(
        ("single_label_classification", "multi_label_classification", "regression", None)
    ),
    "tie_word_embeddings": OneOf((True, False, None)),
}


def checked_values(
    config: Mapping[str, Any], rules: Mapping[str, Rule], defaults: Mapping[str, Any]
) -> dict:
    """The keys of a config whose values count, checked.

    Args:
        config: The content of a config.json.
        rules: By key.
        defaults: By key. Null is kept where its rule allows it and it has a default, and counts as
            a key that is not there anywhere else.

    Raises:
        CheckpointError: If a value is none that its rule allows; names key and value.
    """
    values = {}
    for key, value in config.items():
        rule = rules.get(key)
        if rule is not None and not _accepts(rule, value):
            raise CheckpointError(
                f"The config key {key!r} has the value {shown(value)}, but has to be {rule}. "
                "Correct it, or get the checkpoint's own config.json."
            )
        if value is not None or (rule is not None and key in defaults):
            values[key] = _plain(value, rule)
    if isinstance(values.get("id2label"), Mapping):
        values["id2label"] = {str(key): str(name) for key, name in values["id2label"].items()}
    return values


def read_values(path: Path, rules: Mapping[str, Rule]) -> dict:
    """The values of another JSON file than config.json that count; empty if there is no file.

    Raises:
        CheckpointError: If the file is damaged, or a value is none that its rule allows.
    """
    if not has_file(path):
        return {}
    try:
        return checked_values(read_json(path), rules, {})
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _accepts(rule: Rule, value: Any) -> bool:
    return rule.accepts(_plain(value, rule))


def _plain(value: Any, rule: Rule | None) -> Any:
    """A number as Python's own, and as a whole one where that is meant: 12.0 becomes 12."""
    if not isinstance(rule, Number) or isinstance(value, bool):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        value = float(value)
        return int(value) if rule.whole and value.is_integer() else value
    return value
