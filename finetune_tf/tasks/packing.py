"""Packing: several short texts in one row, without attention or targets across their borders."""

from collections.abc import Sequence

import numpy as np

from finetune_tf.tasks.encoded import Encoded
from finetune_tf.tasks.feature import POSITIONS, Feature


def packed(encoded: Encoded, row_length: int) -> Encoded:
    """Joins texts to rows of up to so many tokens.

    Each row has an input `position_ids`, which counts from 0 in each of its texts. From this a
    model knows where texts begin, so that its outputs are the same as for each text alone.

    Args:
        encoded: Texts with "input_ids" and one target for each token; each text is a row.
        row_length: The most tokens of a row, at least as many as the longest text has.

    Returns:
        The same tokens and targets in fewer rows. Predictions of texts cannot be read off them, so
        they are for training.

    Example:
        >>> from finetune_tf.tasks.encoded import Encoded
        >>> from finetune_tf.tasks.feature import Feature
        >>> from finetune_tf.tasks.packing import packed
        >>> texts = Feature([np.array([5, 6, 7]), np.array([8, 9])])
        >>> rows = packed(Encoded({"input_ids": texts}, targets=texts), row_length=6)
        >>> rows.inputs["input_ids"][0].tolist(), rows.inputs["position_ids"][0].tolist()
        ([5, 6, 7, 8, 9], [0, 1, 2, 0, 1])
    """
    ids, targets = encoded.inputs["input_ids"], encoded.targets
    rows = first_fit(ids.lengths, row_length)

    def joined(feature: Feature) -> Feature:
        arrays = [np.concatenate([feature[i] for i in row]) for row in rows]
        return Feature(arrays, padding=feature.padding, dtype=feature.dtype)

    positions = [np.concatenate([np.arange(len(ids[i])) for i in row]) for row in rows]
    places = Feature([each.astype("int32") for each in positions])
    return Encoded(
        inputs={"input_ids": joined(ids), POSITIONS: places},
        targets=None if targets is None else joined(targets),
        truncated=encoded.truncated,
        tokenizer=encoded.tokenizer,
    )


def first_fit(lengths: Sequence[int], row_length: int) -> list[list[int]]:
    """Puts each item into the first row that has room for it (first-fit bin packing).

    Args:
        lengths: Length of each item.
        row_length: Length of a row, at least that of the longest item.

    Returns:
        The items of each row.

    Example:
        >>> from finetune_tf.tasks.packing import first_fit
        >>> first_fit([5, 4, 3, 1, 2], row_length=6)
        [[0, 3], [1, 4], [2]]
    """
    shortest = min(lengths, default=0)
    rows: list[list[int]] = []
    numbers = np.zeros(0, "int64")  # of the rows that have room for the shortest item
    room = np.zeros(0, "int64")
    for item, length in enumerate(lengths):
        fits = np.flatnonzero(room >= length)
        if len(fits):
            place = fits[0]
        else:
            has_room = room >= shortest
            numbers = np.append(numbers[has_room], len(rows))
            room = np.append(room[has_room], row_length)
            rows.append([])
            place = len(room) - 1
        rows[numbers[place]].append(item)
        room[place] -= length
    return rows
