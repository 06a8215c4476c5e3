"""The few lengths that batches may have.

Padding everything to one length wastes most of the work on real text, and padding to the
longest row of each batch makes a new shape, hence a new compilation, out of nearly every batch.
A few fixed lengths avoid both, and which ones is a small problem with an exact answer.
"""

from collections.abc import Sequence

import numpy as np

from finetune_tf.errors import DataError

SHAPES = 8  # twelve would save another twentieth of the work, and cost a compilation each


def length_buckets(
    lengths: Sequence[int] | np.ndarray, max_length: int, count: int = SHAPES
) -> list[int]:
    """The lengths that batches may have, chosen so that the rows need the least padding.

    Args:
        lengths: Tokens in each row.
        max_length: Tokens a row may have.
        count: How many lengths there may be.

    Returns:
        At most `count` of the lengths, ascending; the last one is that of the longest row.

    Raises:
        DataError: If a row is longer than `max_length`.
    """
    values, rows = np.unique(np.asarray(lengths), return_counts=True)
    if values[-1] > max_length:
        raise DataError(
            f"A row has {values[-1]} tokens, more than max_length={max_length}. Cut it first."
        )
    rows_up_to = np.concatenate([[0], np.cumsum(rows)])
    # least[j]: padded tokens of all rows up to values[j], with the buckets so far.
    least = values * rows_up_to[1:]
    is_below = np.tri(len(values), k=-1, dtype=bool).T  # [i, j]: i < j
    before: list[np.ndarray] = []
    for _ in range(min(count, len(values)) - 1):
        # With the bucket before ending at i, rows from i + 1 to j are padded to values[j].
        padded = least[:, None] + values[None] * (rows_up_to[None, 1:] - rows_up_to[1:, None])
        padded = np.where(is_below, padded, np.iinfo(padded.dtype).max)
        np.fill_diagonal(padded, least)  # as good as one bucket less
        before.append(padded.argmin(axis=0))
        least = padded.min(axis=0)

    chosen, j = [len(values) - 1], len(values) - 1
    for choices in reversed(before):
        j = int(choices[j])
        chosen.append(j)
    return sorted({int(values[j]) for j in chosen})
