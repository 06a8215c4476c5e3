"""Paths to columns: "review.body" is the key "body" of the objects in the column "review"."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from finetune_tf.errors import DataError

_SHOWN = 20  # names that a message lists
_NOTHING = object()


class ColumnPath(NamedTuple):
    """Where the values for an argument are found.

    Attributes:
        argument: The argument that names the column, such as "text".
        name: The name that the user gave, such as "review.body".
        base: The column of the source, such as "review".
        path: The path inside the values of the column, such as "body" or "answers.0.text"; empty
            for the values themselves.
    """

    argument: str
    name: str
    base: str
    path: str

    def inside(self, values: Sequence[Any], source: str) -> list:
        """The value at the path within each value; None where there is none.

        Raises:
            DataError: If there is none in any of the values.
        """
        found = [_at(value, self.path) for value in values]
        if all(value is _NOTHING for value in found):
            keys = dict.fromkeys(
                str(key) for value in values if isinstance(value, Mapping) for key in value
            )
            listed = f"the keys {_listed(list(keys))}" if keys else "no keys"
            raise DataError(
                f"{source} has the column {self.base!r}, but nothing at {self.name!r} in it; its "
                f'values have {listed}. Say which one it is with {self.argument}="…".'
            )
        return [None if value is _NOTHING else value for value in found]


def column_at(argument: str, name: Any, available: list[str], source: str) -> ColumnPath:
    """Finds the column with a name, or at a path with dots.

    Args:
        argument: The argument that names the column.
        name: The name or path.
        available: The columns of the source.
        source: Name of the source in messages.

    Raises:
        DataError: If there is no such column.

    Example:
        >>> from finetune_tf.data.sources.paths import column_at
        >>> column_at("text", "review.body", ["review", "stars"], "reviews.jsonl").path
        'body'
    """
    if not isinstance(name, str):
        raise DataError(f"{argument}= is the name of a column of {source}, found {name!r}.")
    if name in available:
        return ColumnPath(argument, name, name, "")
    parts = name.split(".")
    for end in range(len(parts) - 1, 0, -1):
        base = ".".join(parts[:end])
        if base in available:
            return ColumnPath(argument, name, base, ".".join(parts[end:]))
    way_out = f'Say which one it is with {argument}="…"'
    if argument == "label":
        way_out += ", or label=None for texts without labels"
    listed = _listed(available)
    raise DataError(f"{source} has no column {name!r}. Its columns are {listed}. {way_out}.")


def feature_at(feature: Any, path: str) -> Any:
    """Returns the feature of datasets or TensorFlow Datasets for the values at a path, or None.

    Args:
        feature: The features of a data set, or one of them.
        path: A column, or a path as in `ColumnPath`.
    """
    if not path:
        return feature
    if hasattr(feature, "keys"):
        parts = path.split(".")
        for end in range(len(parts), 0, -1):
            if (key := ".".join(parts[:end])) in feature:
                return feature_at(feature[key], ".".join(parts[end:]))
        return None
    step, _, rest = path.partition(".")
    inner = getattr(feature, "feature", None)  # of a list; its items have the same feature
    return None if inner is None else feature_at(inner, rest if step.isdecimal() else path)


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_SHOWN]) or "none"
    return shown if len(names) <= _SHOWN else f"{shown}, … ({len(names):,} in all)"


def _at(value: Any, path: str) -> Any:
    """The value at a path of keys and of positions in lists; `_NOTHING` if there is none."""
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
