"""The space of settings that `tune` searches."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finetune_tf.base.arguments import RULES, check_known, shown
from finetune_tf.base.spelling import meant_by, names_checked
from finetune_tf.errors import ArgumentError
from finetune_tf.recipe.phases import phases_of
from finetune_tf.training.objectives import Objective
from finetune_tf.training.select import Selector

#: The arguments of `finetune` that can be searched. The policy comes first, because the values of
#: others may depend on it.
SEARCHED = (
    "policy", "learning_rate", "batch_size", "epochs", "optimizer", "label_smoothing", "dropout",
    "pooling", "max_length", "class_weight",
)  # fmt: skip
# Arguments whose ratio matters and not their difference: twice the rate is as far as half of it.
_BY_RATIO = ("learning_rate",)
_DIGITS = 3  # of numbers between two bounds, so that a setting can be typed


@dataclass(frozen=True)
class Between:
    """All numbers from `low` to `high`; `between` creates it.

    Attributes:
        low: The lowest number.
        high: The highest number.
    """

    low: float
    high: float

    def suggest(self, trial: Any, name: str, setting: str) -> float:
        """Returns the number that Optuna proposes.

        Args:
            trial: A trial of Optuna.
            name: The name of the parameter in Optuna.
            setting: The argument of `finetune`.
        """
        log = setting in _BY_RATIO
        if isinstance(self.low, int) and isinstance(self.high, int) and not log:
            return trial.suggest_int(name, self.low, self.high)
        number = trial.suggest_float(name, float(self.low), float(self.high), log=log)
        return float(f"{number:.{_DIGITS}g}")

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Choice:
    """One of several values.

    Attributes:
        values: The values.
    """

    values: tuple

    def suggest(self, trial: Any, name: str, setting: str) -> Any:
        """Returns the value that Optuna proposes; the arguments are those of `Between.suggest`."""
        # Optuna stores texts and numbers only, so a value is stored as its text.
        texts = [as_code(value) for value in self.values]
        return self.values[texts.index(trial.suggest_categorical(name, texts))]

    def __str__(self) -> str:
        return ", ".join(map(as_code, self.values))


@names_checked
def between(low: float, high: float) -> Between:
    """All numbers from `low` to `high`, for the space of `tune`.

    Learning rates are searched by their ratio: as many between 1e-5 and 1e-4 as between 1e-4 and
    1e-3. Two integers stand for the integers between them.

    Args:
        low: The lowest number.
        high: The highest number.

    Raises:
        ArgumentError: If one is not a finite number, or `low` is not below `high`.

    Example:
        >>> print(ft.between(1e-5, 1e-4))
        1e-05 to 0.0001
    """
    check_known(low=low, high=high)
    if low >= high:
        raise ArgumentError(f"between(low, high) needs low < high, found {low!r} and {high!r}.")
    return Between(low, high)


def default_space(fixed: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the space that is searched by default, without the settings that are fixed."""
    head_alone = fixed.get("policy") == "head"  # new weights need a far higher rate
    space = {
        "learning_rate": Between(3e-4, 1e-2) if head_alone else Between(1e-5, 3e-4),
        "batch_size": [16, 32],
        "epochs": [2, 3, 4],
    }
    return {name: values for name, values in space.items() if name not in fixed}


def checked_space(space: Any, fixed: Mapping[str, Any]) -> dict[str, Any]:
    """Checks a space and brings it into the form in which it is searched.

    Args:
        space: A dict from arguments of `finetune` to a list of values, a range, `between(…)`, or a
            dict of one of these for each policy.
        fixed: The arguments of `finetune` that are the same in all trials.

    Returns:
        A `Between`, a `Choice`, or a dict of one of these for each policy, by argument.

    Raises:
        ArgumentError: If the space is empty, an argument cannot be searched or is fixed as well, or
            a value is out of its range.
    """
    if not isinstance(space, Mapping) or not space:
        raise ArgumentError(
            "space must be a dict of what to search, such as {'learning_rate': ft.between(1e-5, "
            f"1e-4), 'batch_size': [16, 32]}}; found {shown(space)}."
        )
    for name in space:
        if name not in SEARCHED:
            meant = meant_by(str(name), SEARCHED)
            advice = f"Did you mean {meant!r}?" if meant else f"These can: {', '.join(SEARCHED)}."
            raise ArgumentError(f"space: {name!r} cannot be searched. {advice}")
        if name in fixed:
            raise ArgumentError(
                f"{name} is in the space and is also given as {name}={shown(fixed[name])}, the "
                "same in all trials. Leave one of them out."
            )
    checked = {}
    for name in sorted(space, key=SEARCHED.index):
        values = space[name]
        if isinstance(values, Mapping) and name != "class_weight":
            policies = checked["policy"].values if "policy" in checked else ()
            if set(values) != set(policies) or name == "policy":
                raise ArgumentError(
                    f"space: a dict for {name} has values for each policy of the space "
                    f"({', '.join(map(str, policies)) or 'there is none'}), found "
                    f"{shown(list(values))}."
                )
            checked[name] = {policy: _checked(name, each) for policy, each in values.items()}
        else:
            checked[name] = _checked(name, values)
    return checked


def _checked(name: str, values: Any) -> Between | Choice:
    if isinstance(values, Between):
        ends = (values.low, values.high)
        rule = RULES.get(name)
        if rule is None or not all(isinstance(end, int | float) for end in ends):
            raise ArgumentError(f"space: {name} has no numbers in a range; list its values.")
        check_known(**{name: values.low})
        check_known(**{name: values.high})
        return values
    if not isinstance(values, list | range) or not values:
        raise ArgumentError(
            f"space: {name} must be a list of values, such as [16, 32], a range, or "
            f"ft.between(low, high); found {shown(values)}."
        )
    for value in values:
        check_known(**{name: value})
        if name == "policy":
            phases_of(value)
    texts = [as_code(value) for value in values]
    if twice := {text for text in texts if texts.count(text) > 1}:
        raise ArgumentError(f"space: {name} has the value {min(twice)} twice.")
    return Choice(tuple(values))


def settings_of(trial: Any, space: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings that a trial of Optuna proposes.

    Args:
        trial: The trial, which may be one with fixed parameters.
        space: From `checked_space`.
    """
    settings: dict[str, Any] = {}
    for name, values in space.items():
        parameter = name
        if isinstance(values, Mapping):
            parameter, values = f"{name} ({settings['policy']})", values[settings["policy"]]
        settings[name] = values.suggest(trial, parameter, name)
    return settings


def combinations(space: Mapping[str, Any]) -> float:
    """Returns how many settings a space has; infinity if there are numbers between bounds."""
    if any(not isinstance(values, Choice) for values in space.values()):
        return float("inf")
    count = 1
    for values in space.values():
        count *= len(values.values)
    return count


def as_code(value: Any) -> str:
    """Returns the Python code of a value of a setting.

    Example:
        >>> from finetune_tf.search.space import as_code
        >>> print(as_code(ft.select.head() | ft.select.blocks(-2)), as_code("head-first"))
        (ft.select.head() | ft.select.blocks(-2)) 'head-first'
    """
    if isinstance(value, Selector):
        return re.sub(r"\b([a-z_]+)\(", r"ft.select.\1(", str(value))
    if isinstance(value, Objective):
        text = f"ft.objectives.{value!r}"
        return text.replace("(", "(teacher, ", 1) if hasattr(value, "teacher") else text
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(as_code, value))}]"
    return repr(value)
