"""Rows with the same inputs, within one data set or in two, and whether their targets agree."""

import itertools
from collections import Counter
from collections.abc import Hashable, Mapping
from typing import Any, Protocol

from finetune_tf.base.labels import Labels, understood
from finetune_tf.data.columns import COLUMNS


class Rows(Protocol):
    """The part of examples that is read here."""

    columns: dict[str, list]
    labels: Labels | None


def text_keys(columns: Mapping[str, list]) -> list[Hashable]:
    """One key for each row; rows with the same inputs have equal keys.

    The `identity` of each column in `data.columns.COLUMNS` decides which values are the same.
    """
    return _keys(columns, [name for name, c in COLUMNS.items() if c.identity and name in columns])


def split_keys(columns: Mapping[str, list]) -> list[Hashable]:
    """One key for each row; rows with equal keys belong in one part of a split.

    These are the rows with the same inputs. Of columns whose rows stay together whatever the other
    columns hold, such as images with several captions each, these columns alone decide.
    """
    together = [name for name, c in COLUMNS.items() if c.stays_together and name in columns]
    return _keys(columns, together) if together else text_keys(columns)


def _keys(columns: Mapping[str, list], names: list[str]) -> list[Hashable]:
    keys = [list(map(COLUMNS[name].identity, columns[name])) for name in names]
    return keys[0] if len(keys) == 1 else list(zip(*keys, strict=True))


def target_of(columns: Mapping[str, list]) -> str | None:
    """The column with the ground truth, if there is one."""
    return next((name for name, c in COLUMNS.items() if c.target and name in columns), None)


def contradictions(
    examples: Rows, other: Rows | None = None, labels: Labels | None = None
) -> list[list[int]]:
    """Finds inputs that occur in several rows with targets that cannot all be true.

    Args:
        examples: The rows that are searched.
        other: Further rows that may contradict them, such as the training examples of a test.
        labels: The labels by which values are understood; by default those of each data set.

    Returns:
        For each such input its rows in `examples`, ascending.
    """
    keys = text_keys(examples.columns)
    others = text_keys(other.columns) if other else []
    if target_of(examples.columns) is None or len({*keys, *others}) == len(keys) + len(others):
        return []
    rows: dict[Hashable, list[int]] = {}
    for row, key in enumerate(keys):
        rows.setdefault(key, []).append(row)
    times = Counter(keys) + Counter(others)
    # For each key the targets that occur with it: name of the column and meaning of the value.
    found: dict[Hashable, set[tuple[str, Hashable]]] = {}
    for source, its_keys in ((examples, keys), (other, others)):
        name = source and target_of(source.columns)
        if name:
            meaning = COLUMNS[name].target.meaning
            for key, value in zip(its_keys, source.columns[name], strict=True):
                if times[key] > 1 and key in rows:
                    meant = meaning(_read_by(value, source.labels, labels), labels or source.labels)
                    found.setdefault(key, set()).add((name, meant))
    return [rows[key] for key, targets in found.items() if not _agree(targets)]


def _read_by(value: Any, own: Labels | None, labels: Labels | None) -> Any:
    """A target whose class numbers, those of its own data, are named for other labels."""
    if labels is None:
        return value
    if isinstance(value, list | tuple):
        return [_read_by(each, own, labels) for each in value]
    return understood(value, own, labels)


def _agree(targets: set[tuple[str, Hashable]]) -> bool:
    """Whether all targets may be true of the same inputs."""
    return all(
        name == other_name and COLUMNS[name].target.agree(one, other)
        for (name, one), (other_name, other) in itertools.combinations(targets, 2)
    )
