"""The order of rows in which every batch has the same number of texts of each class."""

from collections.abc import Sequence

import numpy as np

# Batches that are drawn together, so that texts of similar length meet in one of them.
_WINDOW = 8


def balanced_order(
    groups: Sequence[np.ndarray], batch_size: int, steps: int, seed: int, lengths: np.ndarray
) -> np.ndarray:
    """Draws batches with equally many rows of each class, at least two of each class that occurs.

    If a batch has room for all classes, a few batches are drawn together and divided by length, so
    that less of a batch is padding. Otherwise, classes take turns with two texts each, and pairs of
    similar length meet.

    Args:
        groups: The rows of each class; with several labels for a row, it is in several groups.
        batch_size: The most rows of a batch. A batch has fewer if there are fewer rows.
        steps: The number of batches.
        seed: Determines the order.
        lengths: The number of tokens of each row.

    Returns:
        Row numbers (steps, rows of a batch).

    Example:
        >>> from finetune_tf.fewshot.sampling import balanced_order
        >>> groups = [np.array([0, 1, 2, 3]), np.array([4, 5])]
        >>> order = balanced_order(groups, 4, 3, seed=0, lengths=np.arange(6))
        >>> order.shape, (order < 4).sum(axis=1)
        ((3, 4), array([2, 2, 2]))
    """
    generator = np.random.default_rng(seed)
    rows = len(np.unique(np.concatenate(groups)))
    batch_size = min(batch_size, rows)
    at_once = min(len(groups), max(2, batch_size // 2))
    share = max(2, batch_size // at_once)
    if at_once < len(groups):
        return _batches_of_pairs(groups, at_once, steps, lengths, generator)
    window = max(1, min(_WINDOW, min(map(len, groups)) // share))
    batches: list[np.ndarray] = []
    while len(batches) < steps:
        columns = []
        for group in groups:
            drawn = _draw(group, window * share, generator)
            by_length = drawn[np.argsort(lengths[drawn], kind="stable")]
            columns.append(by_length.reshape(window, share))
        batches += list(generator.permutation(np.concatenate(columns, axis=1)))
    return np.stack(batches[:steps])


def _batches_of_pairs(
    groups: Sequence[np.ndarray],
    at_once: int,
    steps: int,
    lengths: np.ndarray,
    generator: np.random.Generator,
) -> np.ndarray:
    """Draws batches of a pair of texts of each of `at_once` classes: (steps, 2 * at_once).

    Which texts are a pair is up to chance, so that all texts of a class meet in the course of time.
    """
    # In few steps, every class has its turn before a class has another one.
    most = min(_WINDOW, min(map(len, groups)) // 2, steps * at_once // len(groups))
    waiting: list[tuple[int, np.ndarray]] = []
    batches: list[np.ndarray] = []
    while len(batches) < steps:
        drawn = [
            (number, pair)
            for number in generator.permutation(len(groups)).tolist()
            for pair in _draw(groups[number], 2 * max(1, most), generator).reshape(-1, 2)
        ]
        # Pairs that found no batch come first in the next ones.
        waiting += sorted(drawn, key=lambda each: lengths[each[1]].max())
        while len(chosen := _first_of_each_class(waiting, at_once)) == at_once:
            batches.append(np.concatenate([waiting[place][1] for place in chosen]))
            waiting = [each for place, each in enumerate(waiting) if place not in chosen]
    return generator.permutation(np.stack(batches[:steps]))


def _first_of_each_class(pairs: Sequence[tuple[int, np.ndarray]], most: int) -> set[int]:
    """Returns the places of the first pairs whose classes differ."""
    places: dict[int, int] = {}
    for place, (number, _) in enumerate(pairs):
        places.setdefault(number, place)
        if len(places) == most:
            break
    return set(places.values())


def _draw(group: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Draws rows of a class; none twice before all were drawn once."""
    return np.resize(generator.permutation(group), count)
