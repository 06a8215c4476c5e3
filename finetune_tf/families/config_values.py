"""Rules for the values of a config.json, and the function that checks a config with them.

Each family declares a rule for every key that it reads: a type and a range. An integer may be
written as 12.0, as some tools do, and is converted to 12; no other value is converted. Keys
without a rule are ignored, as in transformers.
"""

import json
import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from finetune_tf.base.arguments import Number, shown
from finetune_tf.base.json_files import read_json
from finetune_tf.base.paths import has_file
from finetune_tf.errors import CheckpointError

#: Maximum number of layers; the deepest known model has 48.
MAX_DEPTH = 256
MAX_LABELS = 1_000_000


class Rule(Protocol):
    """The allowed values of a config key; `str(rule)` describes them in error messages."""

    def accepts(self, value: Any) -> bool:
        """Returns whether the value is allowed."""


@dataclass(frozen=True)
class OneOf:
    """A fixed set of values. Types are compared as well: 1 is not accepted for true."""

    values: tuple

    def accepts(self, value: Any) -> bool:
        """Returns whether the value is one of them."""
        return any(type(value) is type(each) and value == each for each in self.values)

    def __str__(self) -> str:
        """Formats the values as JSON."""
        return " or ".join(json.dumps(each) for each in self.values)


@dataclass(frozen=True)
class Predicate:
    """Values for which a function returns True.

    Attributes:
        description: Describes the allowed values in error messages.
        check: Returns whether a value is allowed.
    """

    description: str
    check: Callable[[Any], bool]

    def accepts(self, value: Any) -> bool:
        """Returns whether the function accepts the value."""
        return self.check(value)

    def __str__(self) -> str:
        """Returns the description."""
        return self.description


def integer(high: int, low: int = 1, nullable: bool = False) -> Number:
    """Returns a rule for integers from `low` to `high`, and for null if `nullable`."""
    return Number(low, high, whole=True, also=(None,) if nullable else ())


# The limits of sizes are far above those of all known models.
FEATURES = integer(65_536)
FEATURES_OR_NULL = integer(65_536, nullable=True)
INTERMEDIATE = integer(1_000_000)
VOCABULARY = integer(2_000_000)
POSITIONS = integer(1_000_000)
DEPTH = integer(MAX_DEPTH)
RATE = Number(0, 1, below_high=True)
RATE_OR_NULL = replace(RATE, also=(None,))
EPSILON = Number(0, 1)
STDDEV = Number(0, 1)
THETA = Number(0, 1e12, above_low=True)
THETA_OR_NULL = replace(THETA, also=(None,))
TOKEN_ID = integer(2_000_000, 0)
TOKEN_ID_OR_NULL = integer(2_000_000, 0, nullable=True)
TOKEN_IDS = Predicate(
    "a token id, a list of token ids, or null",
    lambda value: (
        value is None
        or all(map(TOKEN_ID.accepts, value if isinstance(value, list | tuple) else [value]))
    ),
)
BOOLEAN = OneOf((True, False))
STRING = Predicate("a string", lambda value: isinstance(value, str))


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | numbers.Real)


def _is_id2label(value: Any) -> bool:
    """Returns whether a value has the form {"0": "negative", "1": "positive"}, in any order."""
    if value is None:
        return True
    if not isinstance(value, Mapping) or len(value) > MAX_LABELS:
        return False
    ids = {str(i) for i in range(len(value))}
    return {str(key) for key in value} == ids and all(map(_is_scalar, value.values()))


def _is_label2id(value: Any) -> bool:
    return value is None or (isinstance(value, Mapping) and all(map(_is_scalar, value.values())))


def _is_list_of_strings(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)


STRINGS = Predicate("a list of strings", _is_list_of_strings)
#: Keys that all families read.
COMMON: dict[str, Rule] = {
    "architectures": Predicate(
        "a list of class names, or null", lambda v: v is None or _is_list_of_strings(v)
    ),
    "id2label": Predicate(
        'a mapping from ids to names such as {"0": "no", "1": "yes"}, with all ids from 0 on and '
        f"at most {MAX_LABELS:,} names",
        _is_id2label,
    ),
    "label2id": Predicate('a mapping from names to ids such as {"no": 0, "yes": 1}', _is_label2id),
    "num_labels": integer(MAX_LABELS, nullable=True),
    "problem_type": OneOf(
        ("single_label_classification", "multi_label_classification", "regression", None)
    ),
    "tie_word_embeddings": OneOf((True, False, None)),
}


def checked_values(
    config: Mapping[str, Any], rules: Mapping[str, Rule], defaults: Mapping[str, Any]
) -> dict:
    """Checks the values of a config, and returns those that are not null.

    Args:
        config: The content of a config.json.
        rules: Rules by key.
        defaults: Default values by key. A null is retained only for a key that has a default and
            whose rule allows null; any other null counts as a missing key.

    Raises:
        CheckpointError: If a value violates its rule. The message names key and value.

    Example:
        >>> from finetune_tf.families.config_values import FEATURES, checked_values
        >>> checked_values({"hidden_size": 384.0, "dtype": None}, {"hidden_size": FEATURES}, {})
        {'hidden_size': 384}
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
            values[key] = _to_python_number(value, rule)
    if isinstance(values.get("id2label"), Mapping):
        values["id2label"] = {str(key): str(name) for key, name in values["id2label"].items()}
    return values


def read_values(path: Path, rules: Mapping[str, Rule]) -> dict:
    """Reads and checks the values of another JSON file than config.json.

    Returns:
        The values that are not null; empty if there is no such file.

    Raises:
        CheckpointError: If the file is damaged, or a value violates its rule.
    """
    if not has_file(path):
        return {}
    try:
        return checked_values(read_json(path), rules, {})
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _accepts(rule: Rule, value: Any) -> bool:
    return rule.accepts(_to_python_number(value, rule))


def _to_python_number(value: Any, rule: Rule | None) -> Any:
    """Converts a number to int or float, and 12.0 to 12 where an integer is expected."""
    if not isinstance(rule, Number) or isinstance(value, bool):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        value = float(value)
        return int(value) if rule.whole and value.is_integer() else value
    return value
