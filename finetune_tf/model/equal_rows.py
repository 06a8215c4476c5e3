"""Rows with equal values, for which a frozen part of a model is computed once."""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np


def digests_of(rows: Iterable[np.ndarray]) -> list[bytes]:
    """Returns a hash of each row, which is equal for rows of equal values, shape and dtype.

    Args:
        rows: One array for each row, or one of all rows. They are read one after another, since
            images may be larger than memory.
    """
    found = []
    for row in rows:
        digest = hashlib.sha256(f"{row.dtype} {row.shape}".encode())
        digest.update(np.ascontiguousarray(row))
        found.append(digest.digest())
    return found


def equal_rows(columns: Sequence[Sequence[bytes]]) -> dict[int, list[int]]:
    """Groups the rows that are equal in all columns.

    Args:
        columns: The hashes of the rows of each input.

    Returns:
        For the first row of each group, all of its rows.

    Example:
        >>> from finetune_tf.model.equal_rows import digests_of, equal_rows
        >>> images = np.array([[1, 1], [2, 2], [1, 1]])
        >>> equal_rows([digests_of(images)])
        {0: [0, 2], 1: [1]}
    """
    groups: dict[tuple[bytes, ...], list[int]] = {}
    for row, key in enumerate(zip(*columns, strict=True)):
        groups.setdefault(key, []).append(row)
    return {rows[0]: rows for rows in groups.values()}
