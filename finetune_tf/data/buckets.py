"""Buckets: the few lengths to which batches are padded.

Padding all rows to one length wastes most of the computation on real text. Padding each batch to
its longest row gives nearly every batch a new shape, which XLA compiles anew. A few fixed lengths
avoid both, and dynamic programming finds the lengths with the least padding.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from finetune_tf.errors import DataError
from finetune_tf.tasks.feature import MASKS, TOKENS, Feature, lengths_by_axis

BUCKETS = 8  # twelve would save another 5 % of the work, and cost one compilation each


def length_buckets(
    lengths: Sequence[int] | np.ndarray, max_length: int | None = None, count: int = BUCKETS
) -> list[int]:
    """Returns the lengths of buckets that need the least padding.

    Args:
        lengths: Tokens in each row.
        max_length: The most tokens that a row may have; None for no limit.
        count: The number of buckets.

    Returns:
        At most `count` of the lengths, ascending; the last one is that of the longest row.

    Raises:
        DataError: If a row is longer than `max_length`.

    Example:
        >>> from finetune_tf.data.buckets import length_buckets
        >>> length_buckets([5, 5, 5, 6, 40, 41], count=2)
        [6, 41]
    """
    values, rows = np.unique(np.asarray(lengths), return_counts=True)
    if max_length is not None and values[-1] > max_length:
        raise DataError(
            f"A row has {values[-1]} tokens, more than max_length={max_length}. Cut it first."
        )
    rows_up_to = np.concatenate([[0], np.cumsum(rows)])
    # least[j]: the padded tokens of all rows up to length values[j], with the buckets so far.
    least = values * rows_up_to[1:]
    is_below = np.tri(len(values), k=-1, dtype=bool).T  # [i, j]: i < j
    before: list[np.ndarray] = []
    for _ in range(min(count, len(values)) - 1):
        # If the bucket before ends at i, rows from i + 1 to j are padded to values[j].
        padded = least[:, None] + values[None] * (rows_up_to[None, 1:] - rows_up_to[1:, None])
        padded = np.where(is_below, padded, np.iinfo(padded.dtype).max)
        np.fill_diagonal(padded, least)  # the same as with one bucket less
        before.append(padded.argmin(axis=0))
        least = padded.min(axis=0)

    chosen, j = [len(values) - 1], len(values) - 1
    for choices in reversed(before):
        j = int(choices[j])
        chosen.append(j)
    return sorted({int(values[j]) for j in chosen})


def batch_lengths(
    inputs: Mapping[str, Feature], targets: Feature | None, names: Collection[str] | None
) -> dict[str, np.ndarray]:
    """Returns the lengths (rows,) of rows along each axis that batches have.

    Args:
        inputs: Features by name.
        targets: The feature of the targets, or None.
        names: The inputs that batches have; None for all.

    Raises:
        DataError: If two features of one axis differ in their lengths.
    """
    lengths = lengths_by_axis({**inputs, **({} if targets is None else {"targets": targets})})
    if names is None:
        return lengths
    kept = {feature.axis for name, feature in inputs.items() if name in names}
    kept |= {axis for axis, mask in MASKS.items() if mask in names}
    if targets is not None:
        kept.add(targets.axis)
    return {axis: of_axis for axis, of_axis in lengths.items() if axis in kept}


def bucket_lengths_of(
    lengths: Mapping[str, np.ndarray],
    model: Any,
    max_length: int | None = None,
    buckets: int = BUCKETS,
) -> dict[str, list[int]]:
    """Returns the lengths to which batches for a model may be padded, by axis.

    Args:
        lengths: The lengths (rows,) of rows along each axis.
        model: As for `batching.batches_of`.
        max_length: The most tokens of a row; by default what the model can take.
        buckets: The number of buckets along each axis.

    Raises:
        DataError: If a row is longer than the model accepts.
    """
    limits = {TOKENS: max_length or getattr(model, "max_length", None)}
    return {
        axis: length_buckets(of_axis, limits.get(axis), buckets)
        for axis, of_axis in lengths.items()
    }


def count_rows(inputs: Mapping[str, Feature], targets: Feature | None, group: int) -> int:
    """Returns the number of rows, which all inputs and the targets have.

    Raises:
        DataError: If they differ in it.
    """
    first, rows = next((name, len(feature)) for name, feature in inputs.items())
    for name, feature in inputs.items():
        if len(feature) != rows:
            raise DataError(
                f"{first!r} and {name!r} differ in the number of their rows: {rows} and "
                f"{len(feature)}."
            )
    items_of_targets = 1 if targets is None or targets.axis is not None else group
    if targets is not None and len(targets) * items_of_targets != rows:
        raise DataError(f"There are {rows} rows of inputs but {len(targets)} targets.")
    return rows


def bucket_items(
    lengths: Mapping[str, np.ndarray],
    bucket_lengths: Mapping[str, Sequence[int]],
    row_count: int,
    group: int,
) -> np.ndarray:
    """Returns the bucket of each item along each axis, (items, axes).

    Args:
        lengths: The lengths (rows,) of rows along each axis.
        bucket_lengths: The buckets of each axis, ascending.
        row_count: The number of rows.
        group: Rows an item.

    Raises:
        DataError: If a row is longer than the longest bucket.
    """
    item_buckets = np.empty((row_count // group, len(lengths)), "int64")
    for i, (axis, of_axis) in enumerate(lengths.items()):
        buckets = np.asarray(bucket_lengths[axis])
        if of_axis.max() > buckets[-1]:
            raise DataError(
                f"A row has {of_axis.max()} {axis.replace('_', ' ')}, more than the longest "
                f"bucket, {buckets[-1]}."
            )
        longest = of_axis.reshape(-1, group).max(axis=1)  # (items,)
        item_buckets[:, i] = buckets[np.searchsorted(buckets, longest)]
    return item_buckets
