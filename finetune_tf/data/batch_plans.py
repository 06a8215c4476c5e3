"""Plans of epochs: which items make a batch, and in which order batches come."""

import functools
from collections.abc import Callable

import numpy as np

from finetune_tf.data.cursor import Cursor
from finetune_tf.errors import DataError
from finetune_tf.tasks.encoded import Draw

NO_ITEM = -1  # fills up the batches that have fewer items than the largest


# What plans are made of: the items of each batch (batches, items of the largest), filled up with
# NO_ITEM, and the length to which each batch is padded along each axis (batches, axes).
Plan = tuple[np.ndarray, np.ndarray]


def shuffled_plans(
    cursor: Cursor,
    item_buckets: np.ndarray,
    item_count: int,
    plan: Callable[[np.ndarray], Plan],
    draw: Draw | None,
    with_seeds: bool = False,
    variants: int = 1,
    order_of: Callable[[np.random.Generator], np.ndarray] | None = None,
) -> Callable[[], tuple[np.ndarray, ...]]:
    """Returns the function that makes the plan of the cursor's epoch, and what `draw` samples.

    Args:
        cursor: Is moved on by each call.
        item_buckets: The buckets of each item, (items, axes).
        item_count: How many items an epoch has; others are left out in each epoch.
        plan: Cuts an order of items into batches; see `plan_of`.
        draw: See `Encoded`.
        with_seeds: Whether a seed for each batch, (batches, 2) int64, follows the plan.
        variants: How many variants of the rows there are. An epoch has the items of one of them,
            which follow those of the variant before; see `rows.VariantRows`.
        order_of: Draws the items of an epoch in random order; by default each of them once.
    """

    def next_epoch() -> tuple[np.ndarray, ...]:
        epoch, first = cursor.advance()
        random = np.random.default_rng((cursor.seed, epoch))
        drawn = random.permutation(len(item_buckets)) if order_of is None else order_of(random)
        order = drawn[:item_count]
        items, lengths = plan(order[order_by_bucket(item_buckets[order])])
        first_item = epoch % variants * len(item_buckets)
        items = np.where(items == NO_ITEM, NO_ITEM, items + first_item)
        batches = random.permutation(len(items))[first:]
        seeds = ()
        if with_seeds:  # of a generator of their own, so that orders are the same without them
            own = np.random.default_rng((cursor.seed, epoch, 1))
            seeds = (own.integers(2**31 - 1, size=(len(items), 2))[first:],)
        return items[batches], lengths[batches], *seeds, *(draw(random) if draw else ())

    return next_epoch


def same_plan(cursor: Cursor, plan: Plan) -> Callable[[], Plan]:
    """Returns the function that returns the same plan for each epoch of the cursor."""

    def next_epoch() -> Plan:
        _, first = cursor.advance()
        return tuple(part[first:] for part in plan)

    return next_epoch


def order_by_bucket(buckets: np.ndarray) -> np.ndarray:
    """Sorts items by their bucket along the first axis, then along the second; the sort is stable.

    Args:
        buckets: (items, axes).

    Returns:
        Indices of items (items,).
    """
    order = np.arange(len(buckets))
    for axis in reversed(range(buckets.shape[1])):
        order = order[np.argsort(buckets[order, axis], kind="stable")]
    return order


def plan_of(
    order: np.ndarray, item_buckets: np.ndarray, cut: Callable[[np.ndarray], np.ndarray]
) -> Plan:
    """Cuts an order of items into batches.

    Args:
        order: Indices of items.
        item_buckets: The buckets of each item, (items, axes).
        cut: Returns where batches start, from the buckets in this order.
    """
    buckets = item_buckets[order]
    starts = cut(buckets)
    sizes = np.diff(starts, append=len(order))
    items = np.full((len(starts), sizes.max()), NO_ITEM, dtype="int64")
    items[np.arange(sizes.max()) < sizes[:, None]] = order
    return items, np.maximum.reduceat(buckets, starts, axis=0)


def choose_cut(
    item_buckets: np.ndarray,
    batch_size: int,
    tokens_per_batch: int | None,
    drop_remainder: bool,
    group: int,
) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the function that cuts an order of items into batches, from their buckets.

    Args:
        item_buckets: The buckets of each item, (items, axes).
        batch_size: Items a batch.
        tokens_per_batch: As for `bucketed_dataset`.
        drop_remainder: As for `bucketed_dataset`.
        group: Rows an item.

    Raises:
        DataError: If `tokens_per_batch` is less than an item has, or goes with `drop_remainder`.
    """
    if tokens_per_batch is None:
        return functools.partial(_cut_by_items, batch_size=batch_size)
    if drop_remainder:
        raise DataError("Batches of tokens_per_batch differ in size: leave drop_remainder out.")
    longest = max(map(_tokens_of, item_buckets.tolist())) * group
    if tokens_per_batch < longest:
        raise DataError(
            f"tokens_per_batch={tokens_per_batch} is less than the {longest} "
            "tokens of the longest row: raise it, or lower max_length."
        )
    return functools.partial(_cut_by_tokens, tokens=tokens_per_batch // group)


def _cut_by_items(buckets: np.ndarray, batch_size: int) -> np.ndarray:
    """Returns where batches of so many items start."""
    return np.arange(0, len(buckets), batch_size)


def _cut_by_tokens(buckets: np.ndarray, tokens: int) -> np.ndarray:
    """Returns where batches of at most so many tokens start, padding included."""
    starts = [0]
    longest = [0] * buckets.shape[1]
    for i, lengths in enumerate(buckets.tolist()):
        longest = list(map(max, longest, lengths))
        if (i + 1 - starts[-1]) * _tokens_of(longest) > tokens:
            starts.append(i)
            longest = lengths
    return np.asarray(starts)


def _tokens_of(lengths: list[int]) -> int:
    """Returns the tokens of a row with these lengths; a row without axes counts as one token."""
    return sum(lengths) if len(lengths) else 1
