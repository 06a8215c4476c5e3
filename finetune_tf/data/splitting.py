"""Which rows a split holds out: a share of each class, never a text that remains in training."""

from collections import Counter
from collections.abc import Collection, Hashable

import numpy as np

from finetune_tf.data.copies import text_keys


def held_out_rows(
    columns: dict[str, list],
    kinds: list[str],
    labels: list[Collection[Hashable]],
    count: int,
    seed: int,
) -> np.ndarray:
    """Chooses rows to hold out.

    Rows of the same texts stay together; of each label, at least one row remains in training;
    and each kind of row is held out in proportion, as far as the first two allow.

    Args:
        columns: Of the examples.
        kinds: What is held out in proportion: a text a row that tells its class.
        labels: The labels of each row that training has to keep; none where it need not.
        count: How many rows to hold out, at most (one more group of copies if none fits).
        seed: Decides which.

    Returns:
        (rows,) bool; all False if no row can be held out.
    """
    total = len(labels)
    random = np.random.default_rng(seed)
    order = random.permutation(total)
    numbers = np.unique(kinds, return_inverse=True)[1]
    # Rows of one kind side by side: equal steps then meet each kind in proportion.
    order = order[np.argsort(numbers[order], kind="stable")]
    steps = ((np.arange(count) + random.random()) * total / count).astype(int)

    copies: dict[Hashable, list[int]] = {}
    for row, key in enumerate(text_keys(columns)):
        copies.setdefault(key, []).append(row)
    group_of = {row: group for group in copies.values() for row in group}
    remaining = Counter(label for of_row in labels for label in set(of_row))
    is_held_out = np.zeros(total, dtype=bool)
    needed: set[int] = set()  # first rows of groups without which a label would be gone

    def hold_out(row: int, room: int) -> int:
        """Holds out a row and its copies if they fit; gives their number."""
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
        # The steps first; where one does not fit, others of its kind; the rest goes to the next.
        room += int(is_step[begin:end].sum())
        here, stepped = order[begin:end], is_step[begin:end]
        for row in np.concatenate([here[stepped], here[~stepped]]) if room else ():
            room -= hold_out(row, room)
            if not room:
                break
        begin = end
    for row in order if room else ():
        room -= hold_out(row, room)
        if not room:
            break
    if not is_held_out.any():
        # Copies are more than were asked for: the smallest group of them, rather than nothing.
        for group in sorted(copies.values(), key=len):
            if hold_out(group[0], total - 1):
                break
    return is_held_out
