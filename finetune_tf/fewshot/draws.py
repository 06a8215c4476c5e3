"""Draws of a few examples of each class, for learning curves."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from finetune_tf.base.arguments import check, shown
from finetune_tf.base.labels import Labels
from finetune_tf.data import Examples
from finetune_tf.errors import ArgumentError, DataError


def checked_shots(shots: Any) -> list[int]:
    """Returns the numbers of examples of each class.

    Raises:
        ArgumentError: If they are not increasing integers of at least 2.
    """
    if isinstance(shots, str) or not isinstance(shots, Iterable):
        raise ArgumentError(f"shots must be a list such as (8, 16, 32, 64), found {shown(shots)}.")
    listed = list(shots)
    for number in listed:
        check(**{"learning_curve.shots": number})
    if not listed or any(b <= a for a, b in zip(listed, listed[1:], strict=False)):
        raise ArgumentError(
            f"shots must be increasing numbers of examples of each class, such as (8, 16, 32, 64), "
            f"found {shown(listed)}."
        )
    return [int(number) for number in listed]


def require_shots(
    rows: Sequence[np.ndarray], most: int, examples: Examples, labels: Labels
) -> None:
    """Checks that each class has as many examples as will be drawn.

    Raises:
        DataError: If one has fewer.
    """
    counts = {name: len(of_label) for name, of_label in zip(labels, rows, strict=True)}
    fewest = min(counts, key=counts.get)
    if counts[fewest] < most:
        raise DataError(
            f"shots goes up to {most} examples of each class, but {examples.name} has "
            f"{counts[fewest]} of {fewest!r}. Choose smaller shots, or add examples of the class."
        )


def draw_splits(
    rows: Sequence[np.ndarray], splits: int, most: int, seed: int
) -> list[list[np.ndarray]]:
    """Draws examples of each class; the first ones of a draw are the draw of fewer shots.

    Args:
        rows: The rows of each class; the last ones may be those without any of several labels.
        splits: The number of draws.
        most: The number of examples of each class.
        seed: Determines the draws.

    Returns:
        For each split the rows of each class: `most`, or all if there are fewer.
    """
    generator = np.random.default_rng(seed)
    return [[generator.permutation(of_label)[:most] for of_label in rows] for _ in range(splits)]
