"""The order of rows in which every batch has the same number of texts of each class."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

# Batches that are drawn together, so that texts of similar length meet in one of them.
_WINDOW = 8


def balanced_order(
    groups: Sequence[np.ndarray], batch_size: int, steps: int, seed: int, lengths: np.ndarray
) -> np.ndarray:
    """Draws batches with equally many rows of each class, at least two of each class that occurs.

    If a batch does not have room for all classes, they take turns. A few batches of the same classes
    are drawn together and divided by length, so that less of a batch is padding.

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
    # Every class has its turn, however few steps there are.
    of_turns = steps * at_once // len(groups)
    window = max(1, min(_WINDOW, min(map(len, groups)) // share, of_turns))
    turns = list(itertools.islice(_turns(len(groups), at_once, generator), -(-steps // window)))
    batches: list[np.ndarray] = []
    for classes in turns:  # all turns are drawn before the rows
        columns = []
        for group in classes:
            drawn = _draw(groups[group], window * share, generator)
            by_length = drawn[np.argsort(lengths[drawn], kind="stable")]
            columns.append(by_length.reshape(window, share))
        batches += list(generator.permutation(np.concatenate(columns, axis=1)))
    return np.stack(batches[:steps])


def _draw(group: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Draws rows of a class; none twice before all were drawn once."""
    return np.resize(generator.permutation(group), count)


def _turns(number: int, at_once: int, generator: np.random.Generator) -> Iterator[list[int]]:
    """Yields the classes of each batch, all different; those that wait longest come first."""
    waiting: list[int] = []
    while True:
        chosen: list[int] = []
        while len(chosen) < at_once:
            following = next((each for each in waiting if each not in chosen), None)
            if following is None:
                waiting += generator.permutation(number).tolist()
            else:
                waiting.remove(following)
                chosen.append(following)
        yield chosen
