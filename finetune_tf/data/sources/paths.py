"""Columns within columns: "review.body" is the key "body" of what stands in the column "review"."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from finetune_tf.errors import DataError

_SHOWN = 20  # names that a message lists
_NOTHING = object()


class Column(NamedTuple):
    """Where the values for an argument are found.

    Attributes:
        argument: The argument that names the column, such as "text".
        name: As it was given.
        base: The column of the source.
        path: What leads further inside, such as "body" or "answers.0.text"; empty for the values
            of the column themselves.
    """

    argument: str
    name: str
    base: str
    path: str

    def inside(self, values: Sequence[Any], source: str) -> list:
        """What stands at the path in each value; None where it leads nowhere.

        Raises:
            DataError: If it leads nowhere in all of them.
        """
        found = [_at(value, self.path) for value in values]
        if all(value is _NOTHING for value in found):
            keys = dict.fromkeys(
                str(key) for value in values if isinstance(value, Mapping) for key in value
            )
            told = f"the keys {_listed(list(keys))}" if keys else "no keys"
            raise DataError(
                f"{source} has the column {self.base!r}, but nothing at {self.name!r} in it; its "
                f'values have {told}. Say which one it is with {self.argument}="…".'
            )
        return [None if value is _NOTHING else value for value in found]


def column_at(argument: str, name: Any, available: list[str], source: str) -> Column:
    """Finds the column that is meant by a name, or by a path with dots.

    Raises:
        DataError: If there is none.
    """
    if not isinstance(name, str):
        raise DataError(f"{argument}= is the name of a column of {source}, found {name!r}.")
    if name in available:
        return Column(argument, name, name, "")
    parts = name.split(".")
    for end in range(len(parts) - 1, 0, -1):
        base = ".".join(parts[:end])
        if base in available:
            return Column(argument, name, base, ".".join(parts[end:]))
    way_out = f'Say which one it is with {argument}="…"'
    if argument == "label":
        way_out += ", or label=None for texts without labels"
    told = _listed(available)
    raise DataError(f"{source} has no column {name!r}. Its columns are {told}. {way_out}.")


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_SHOWN]) or "none"
    return shown if len(names) <= _SHOWN else f"{shown}, … ({len(names):,} in all)"


def _at(value: Any, path: str) -> Any:
    """What stands at a path of keys and of places in lists."""
    if not path:
        return value
    if isinstance(value, Mapping):
        parts = path.split(".")
        for end in range(len(parts), 0, -1):  # keys may have dots themselves
            key = ".".join(parts[:end])
            if key in value:
                return _at(value[key], ".".join(parts[end:]))
        return _NOTHING
    step, _, rest = path.partition(".")
    if isinstance(value, list | tuple) and step.isdecimal() and len(step) < 10:
        return _at(value[int(step)], rest) if int(step) < len(value) else _NOTHING
    return _NOTHING
