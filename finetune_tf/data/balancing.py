"""Balanced batches: epochs in which every class occurs equally often."""

from collections.abc import Callable
from typing import Any

import numpy as np

from finetune_tf.errors import ArgumentError, DataError
from finetune_tf.tasks import IGNORED, Encoded, Task

_MANY = 64  # rows; two batches of the usual size

Order = Callable[[np.random.Generator], np.ndarray]


def class_counts(encoded: Encoded, task: Task) -> np.ndarray | None:
    """Returns how many rows have each class (classes,); None if not each row has one class.

    Args:
        encoded: Encoded rows.
        task: Their task.
    """
    targets = _targets(encoded, task)
    if targets is None or targets.ndim != 1:
        return None
    return np.bincount(targets[targets >= 0], minlength=len(task.labels))


def are_in_order_of_classes(encoded: Encoded, task: Task) -> bool:
    """Returns whether rows of one class mostly follow each other, as in a file that is sorted.

    In a random order, the class changes from row to row with the probability 1 - Σ p²; here it does
    so less than a quarter as often. It is False for fewer than 64 rows.

    Args:
        encoded: Encoded rows.
        task: Their task.
    """
    targets = _targets(encoded, task)
    if targets is None or targets.ndim != 1 or len(targets) < _MANY:
        return False
    shares = np.unique(targets, return_counts=True)[1] / len(targets)
    at_random = (len(targets) - 1) * (1.0 - np.square(shares).sum())
    return bool(np.count_nonzero(np.diff(targets)) < at_random / 4)


def check_balance(shuffle: bool, tokens_per_batch: int | None) -> None:
    """Checks that batches can be balanced.

    Raises:
        ArgumentError: If they are not shuffled, or their number would differ between epochs.
    """
    if not shuffle:
        raise ArgumentError(
            "balance=True draws other rows in each epoch, for training. Add shuffle=True, or leave "
            "balance out where every row counts once, as in an evaluation."
        )
    if tokens_per_batch is not None:
        raise ArgumentError(
            "balance=True draws rows of other lengths in each epoch, so with tokens_per_batch the "
            "number of batches would change. Give batch_size in its place."
        )


def balanced_order(encoded: Encoded, task: Task, name: str) -> Order:
    """Returns the function that draws the rows of an epoch, all classes equally often.

    An epoch has as many rows as without balance. Each class that occurs gets the same number of
    them, up to one. Within a class, all rows are drawn equally often, up to one: the rows of a
    frequent class are a random part of it, without repetition, and those of a rare class repeat.
    With several labels for a row, the class of a row is its rarest label; rows without any label
    are one more class.

    Args:
        encoded: Encoded rows with targets.
        task: Their task.
        name: The name of the examples, for messages.

    Raises:
        ArgumentError: If the task has no classes of rows.
        DataError: If the rows have no labels, or only one class.
    """
    if encoded.targets is None:
        raise DataError(f"balance=True draws classes equally often, but {name} has no labels.")
    targets = _targets(encoded, task)
    if targets is None:
        raise ArgumentError(
            "balance=True draws the rows of each class equally often, but the rows of "
            f"{'a regression' if task.output_kind == 'number' else task.name} have no classes. "
            "Leave it out."
        )
    if targets.ndim == 2:
        targets = _rarest_labels(targets)
    members = [np.flatnonzero(targets == v) for v in np.unique(targets) if v != IGNORED]
    if len(members) < 2:
        raise DataError(f"balance=True needs at least two classes, but {name} has one.")
    total = len(targets)

    def order(random: np.random.Generator) -> np.ndarray:
        # The classes that get one row more are others in each epoch.
        shares = np.full(len(members), total // len(members))
        shares[random.permutation(len(members))[: total % len(members)]] += 1
        drawn = [_draw(rows, share, random) for rows, share in zip(members, shares, strict=True)]
        return random.permutation(np.concatenate(drawn))

    return order


def _draw(rows: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """Draws so many of the rows, each of them equally often up to one."""
    whole, rest = divmod(count, len(rows))
    return np.concatenate([np.tile(rows, whole), random.permutation(rows)[:rest]])


def _rarest_labels(targets: np.ndarray) -> np.ndarray:
    """Returns the rarest label of each row (rows,) of (rows, labels); -1 without any label."""
    counts = targets.sum(axis=0)
    places = np.where(targets > 0, counts, np.inf).argmin(axis=1)
    return np.where(targets.any(axis=1), places, -1)


def _targets(encoded: Encoded, task: Task) -> Any:
    """Returns class indices (rows,) or labels (rows, labels); None if rows have no classes."""
    has_classes = task.output_kind in ("classes", "several") and task.labels is not None
    if not has_classes or encoded.targets is None or encoded.targets.axis is not None:
        return None
    targets = np.asarray(encoded.targets.rows)
    is_single = task.output_kind == "classes" and targets.ndim == 1
    is_several = task.output_kind == "several" and targets.ndim == 2
    return targets if is_single or is_several else None
