"""Chooses the rows that a split holds out: a share of each class, and no text of the rest."""

from collections import Counter
from collections.abc import Collection, Hashable

import numpy as np

from finetune_tf.data.copies import split_keys


def held_out_rows(
    columns: dict[str, list],
    classes: list[str],
    labels: list[Collection[Hashable]],
    count: int,
    seed: int,
) -> np.ndarray:
    """Chooses rows to hold out.

    Rows with the same texts stay together, and so do those with the same image or video. At least
    one row of each label remains in training, and as far as these two allow, the same share of each
    class is held out.

    Args:
        columns: The columns of the examples.
        classes: The class of each row as text, by which rows are stratified.
        labels: For each row the labels that must remain in training; may be empty.
        count: The largest number of rows to hold out (more if every group of copies is larger).
        seed: Seed of the random choice.

    Returns:
        A bool array (rows,); all False if no row can be held out.
    """
    total = len(labels)
    random = np.random.default_rng(seed)
    order = random.permutation(total)
    numbers = np.unique(classes, return_inverse=True)[1]
    # With the rows of a class side by side, equal steps select the same share of each class.
    order = order[np.argsort(numbers[order], kind="stable")]
    steps = ((np.arange(count) + random.random()) * total / count).astype(int)

    copies: dict[Hashable, list[int]] = {}
    for row, key in enumerate(split_keys(columns)):
        copies.setdefault(key, []).append(row)
    group_of = {row: group for group in copies.values() for row in group}
    remaining = Counter(label for of_row in labels for label in set(of_row))
    is_held_out = np.zeros(total, dtype=bool)
    needed: set[int] = set()  # first rows of the groups that hold the last rows of a label

    def hold_out(row: int, room: int) -> int:
        """Holds out a row and its copies if there is room; returns how many rows these are."""
        group = group_of[int(row)]
        if is_held_out[row] or len(group) > room or group[0] in needed:
            return 0
        leaving = Counter(label for copy in group for label in set(labels[copy]))
        if any(remaining[label] <= number for label, number in leaving.items()):
            needed.add(group[0])
            return 0
        remaining.subtract(leaving)
        is_held_out[group] = True
        return len(group)

    is_step = np.zeros(total, dtype=bool)
    is_step[steps] = True
    room, begin = 0, 0
    for size in np.bincount(numbers):
        end = begin + int(size)
        # First the selected rows, then others of the class; what is left goes to the next class.
        room += int(is_step[begin:end].sum())
        members, selected = order[begin:end], is_step[begin:end]
        for row in np.concatenate([members[selected], members[~selected]]) if room else ():
            room -= hold_out(row, room)
            if not room:
                break
        begin = end
    for row in order if room else ():
        room -= hold_out(row, room)
        if not room:
            break
    if not is_held_out.any():
        # Every group of copies is too large: hold out the smallest one, rather than nothing.
        for group in sorted(copies.values(), key=len):
            if hold_out(group[0], total - 1):
                break
    return is_held_out
