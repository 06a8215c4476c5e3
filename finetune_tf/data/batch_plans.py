"""Which items make a batch, and in which order batches come."""

import itertools
from collections.abc import Callable

import numpy as np

from finetune_tf.tasks.encoded import Draw

NO_ITEM = -1  # fills up the batches that have fewer items than the largest


def shuffled_epochs(
    item_buckets: np.ndarray, item_count: int, plan: Callable, seed: int, draw: Draw | None
) -> Callable[[], tuple[np.ndarray, ...]]:
    """What gives the plan of one epoch after the other, and what it draws."""
    epochs = itertools.count()

    def next_epoch() -> tuple[np.ndarray, ...]:
        random = np.random.default_rng((seed, next(epochs)))
        order = random.permutation(len(item_buckets))[:item_count]
        items, lengths = plan(order[np.argsort(item_buckets[order], kind="stable")])
        batches = random.permutation(len(items))
        return items[batches], lengths[batches], *(draw(random) if draw else ())

    return next_epoch


def plan_of(
    order: np.ndarray, item_buckets: np.ndarray, cut: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Cuts an order of items into batches.

    Args:
        order: Numbers of items.
        item_buckets: The bucket of each item.
        cut: Where batches start, given the buckets in order.

    Returns:
        The items of each batch (batches, items of the largest), filled up with -1, and the bucket
        of its longest one (batches,).
    """
    buckets = item_buckets[order]
    starts = cut(buckets)
    sizes = np.diff(starts, append=len(order))
    items = np.full((len(starts), sizes.max()), NO_ITEM, dtype="int64")
    items[np.arange(sizes.max()) < sizes[:, None]] = order
    return items, np.maximum.reduceat(buckets, starts)


def cut_by_items(buckets: np.ndarray, batch_size: int) -> np.ndarray:
    """Where batches of so many items start."""
    return np.arange(0, len(buckets), batch_size)


def cut_by_tokens(buckets: np.ndarray, tokens: int) -> np.ndarray:
    """Where batches of at most so many tokens start, padding included."""
    starts, longest = [0], 0
    for i, bucket in enumerate(buckets.tolist()):
        longest = max(longest, bucket)
        if (i + 1 - starts[-1]) * longest > tokens:
            starts.append(i)
            longest = bucket
    return np.asarray(starts)
