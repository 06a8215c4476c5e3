"""Packing: several short texts in one row, so that batches have few shapes and little padding.

Rows are planned from the lengths of the texts alone, by best fit from the longest text down to the
shortest on the histogram of lengths (Krell et al. 2021, "Efficient Sequence Packing without
Cross-contamination"). The lengths are the same in each epoch, so the plan is made once: an epoch
only decides which of the texts of a length takes which of the places for that length.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetune_tf.data.batch_plans import NO_ITEM

_MOST_TEXTS = 2  # in a row, as a multiple of the texts that it has on average
_LONGER = 2  # to how many times the longest text the length of rows is raised
_LENGTHS = 12  # row lengths that are tried in this range
_BORDERS = (0.5, 0.65, 0.8, 0.9, 0.95)  # shares of short texts that are tried
# Each token attends to all tokens of its row: on a CPU, what a step of MiniLM takes for each token
# is 16 % more in rows of 77 than in rows of 24. The rest of a step does not depend on the rows.
_COST_OF_LENGTH = 1 / 330


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of one length.

    Attributes:
        lengths: (rows, places), the length of the text in each place of a row; 0 for no text. Texts
            come first.
        row_length: The tokens of a row, padding included.
        rows_a_batch: The rows of a batch.
    """

    lengths: np.ndarray
    row_length: int
    rows_a_batch: int

    @property
    def places(self) -> int:
        """The most texts of a row."""
        return self.lengths.shape[1]

    @property
    def batches(self) -> int:
        """The batches of an epoch."""
        return math.ceil(len(self.lengths) / self.rows_a_batch)

    @property
    def tokens(self) -> int:
        """The tokens of all batches, padding included."""
        return self.batches * self.rows_a_batch * self.row_length

    @property
    def cost(self) -> float:
        """The estimated work of an epoch, in tokens of the shortest rows."""
        return _cost(self.tokens, self.row_length)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows, places and row length of a batch."""
        return self.rows_a_batch, self.places, self.row_length


@dataclass(frozen=True, eq=False)
class Packing:
    """The rows into which texts are packed: those of one length, or short ones and long ones.

    Attributes:
        groups: The rows of each length, for texts of different lengths. A batch has rows of one.
    """

    groups: tuple[Rows, ...]

    @property
    def batches(self) -> int:
        """The batches of an epoch."""
        return sum(rows.batches for rows in self.groups)

    @property
    def padding(self) -> float:
        """The share of tokens in all batches that is padding."""
        filled = sum(rows.lengths.sum() for rows in self.groups)
        return 1 - filled / sum(rows.tokens for rows in self.groups)

    @property
    def cost(self) -> float:
        """The estimated work of an epoch, in tokens of the shortest rows."""
        return sum(rows.cost for rows in self.groups)

    @property
    def most_places(self) -> int:
        """The most places of a batch."""
        return max(rows.rows_a_batch * rows.places for rows in self.groups)

    @property
    def shapes(self) -> np.ndarray:
        """Rows, places and row length of each batch in the order of the groups, (batches, 3)."""
        shapes = [rows.shape for rows in self.groups]
        return np.repeat(shapes, [rows.batches for rows in self.groups], axis=0)

    def plan(
        self, of_lengths: np.ndarray, random: np.random.Generator | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Decides which text takes which place.

        Args:
            of_lengths: (texts,), the lengths that the rows were planned for.
            random: Shuffles the texts of each length, the rows and the batches; None for a fixed
                order.

        Returns:
            (batches, most_places), for each batch the texts of its rows in their places, filled up
            with `NO_ITEM`; each text occurs once. And the shape of each batch, (batches, 3).
        """
        texts = np.arange(len(of_lengths))
        if random is not None:
            texts = random.permutation(texts)
        texts = texts[np.argsort(of_lengths[texts], kind="stable")]
        lengths = np.concatenate([rows.lengths.ravel() for rows in self.groups])
        places = np.argsort(lengths, kind="stable")  # empty places come first
        filled = np.full(len(lengths), NO_ITEM, "int64")
        filled[places[len(places) - len(texts) :]] = texts
        items = np.full((self.batches, self.most_places), NO_ITEM, "int64")
        ends = np.cumsum([rows.lengths.size for rows in self.groups])
        batch = 0
        for rows, part in zip(self.groups, np.split(filled, ends[:-1]), strict=True):
            table = part.reshape(rows.lengths.shape)
            if random is not None:
                table = random.permutation(table)
            count, size = rows.batches, rows.rows_a_batch * rows.places
            table = np.pad(table.ravel(), (0, count * size - table.size), constant_values=NO_ITEM)
            items[batch : batch + count, :size] = table.reshape(count, size)
            batch += count
        order = np.arange(self.batches) if random is None else random.permutation(self.batches)
        return items[order], self.shapes[order]

    def places_of_texts(
        self, of_lengths: np.ndarray, random: np.random.Generator | None
    ) -> np.ndarray:
        """Where each text stands among the places of all batches that `plan` decides on.

        Args:
            of_lengths: As for `plan`.
            random: As for `plan`, in the same state.

        Returns:
            (texts,), numbers of places, which are counted row by row and batch by batch.
        """
        items, shapes = self.plan(of_lengths, random)
        sizes = shapes[:, 0] * shapes[:, 1]
        texts = np.concatenate([row[:size] for row, size in zip(items, sizes, strict=True)])
        is_text = texts != NO_ITEM
        places = np.empty(len(of_lengths), "int64")
        places[texts[is_text]] = np.flatnonzero(is_text)
        return places


def packing_of(
    lengths: np.ndarray,
    texts_a_batch: int,
    row_length: int | None = None,
    limit: int | None = None,
    most_lengths: int = 2,
) -> Packing:
    """Packs texts such that a batch has so many of them on average.

    Args:
        lengths: (texts,), the tokens of each text.
        texts_a_batch: The texts of a batch on average.
        row_length: The tokens of a row, at least those of the longest text; by default the lengths
            with the least estimated work, from that of the longest text to twice as
            many.
        limit: The most tokens of a row; None for no limit.
        most_lengths: How many lengths rows may have. With 2, long texts may get longer rows.

    Example:
        >>> from finetune_tf.data.packing import packing_of
        >>> packing = packing_of(np.array([5, 4, 3, 2, 1, 1]), texts_a_batch=3, row_length=8)
        >>> [rows.lengths.tolist() for rows in packing.groups]
        [[[5, 3, 0, 0], [4, 2, 1, 1]]]
    """
    lengths = np.sort(np.asarray(lengths))
    texts_a_batch = min(texts_a_batch, len(lengths))
    if row_length is not None:
        return Packing((_rows(lengths, texts_a_batch, row_length),))
    splits = [(lengths,)]
    if most_lengths > 1:
        borders = {int(np.quantile(lengths, share)) for share in _BORDERS} - {int(lengths[-1])}
        splits += [
            (lengths[lengths <= border], lengths[lengths > border]) for border in sorted(borders)
        ]
    packings = [
        Packing(tuple(_best_rows(part, texts_a_batch, limit) for part in split)) for split in splits
    ]
    return min(packings, key=lambda each: each.cost)


def lengths_of_items(of_texts: np.ndarray, group: int) -> np.ndarray:
    """The tokens (items,) of items, of texts (items * group,) of which a group makes one item."""
    return of_texts.reshape(-1, group).sum(axis=1)


def texts_of_items(items: np.ndarray, group: int) -> np.ndarray:
    """The texts (…, items * group) of items (…, items), or places; `NO_ITEM` for those of none.

    Example:
        >>> from finetune_tf.data.packing import texts_of_items
        >>> texts_of_items(np.array([[3, -1]]), group=2).tolist()
        [[6, 7, -1, -1]]
    """
    texts = items[..., None] * group + np.arange(group)
    texts = np.where(items[..., None] == NO_ITEM, NO_ITEM, texts)
    return texts.reshape(*items.shape[:-1], -1)


def cost_of_padded(lengths: np.ndarray, buckets: Sequence[int]) -> float:
    """The estimated work with each text in a row of its own, as `Packing.cost`.

    Args:
        lengths: (texts,), the tokens of each text.
        buckets: The lengths to which texts are padded, ascending.
    """
    padded = np.asarray(buckets)[np.searchsorted(buckets, lengths)]
    return float(np.sum(_cost(padded, padded)))


def _cost(tokens: Any, row_length: Any) -> Any:
    return tokens * (1 + row_length * _COST_OF_LENGTH)


def _best_rows(lengths: np.ndarray, texts_a_batch: int, limit: int | None) -> Rows:
    longest = int(lengths[-1])
    end = min(_LONGER * longest, limit or _LONGER * longest)
    step = max(longest // _LENGTHS, 1)
    candidates = [_rows(lengths, texts_a_batch, n) for n in range(longest, end + 1, step)]
    batches = max(len(lengths) / texts_a_batch, 1)

    def cost(rows: Rows) -> float:  # above all, batches have the wanted size
        return rows.cost * (1 + 4 * abs(1 - rows.batches / batches))

    return min(candidates, key=cost)


def _rows(lengths: np.ndarray, texts_a_batch: int, row_length: int) -> Rows:
    average = row_length / lengths.mean()
    rows = pack_lengths(lengths, row_length, most=math.ceil(_MOST_TEXTS * average))
    batches = max(len(lengths) / texts_a_batch, 1)
    return Rows(rows, row_length, max(round(len(rows) / batches), 1))


def pack_lengths(lengths: np.ndarray, row_length: int, most: int) -> np.ndarray:
    """Puts texts into rows by best fit, from the longest text to the shortest.

    Rows that have the same room are alike, so all texts of one length that go to rows with one room
    are placed at once.

    Args:
        lengths: (texts,), the tokens of each text.
        row_length: The tokens of a row.
        most: The most texts of a row.

    Returns:
        (rows, places), the lengths of the texts of each row, descending and filled up with 0.

    Example:
        >>> from finetune_tf.data.packing import pack_lengths
        >>> pack_lengths(np.array([6, 3, 3, 2, 1]), row_length=8, most=3).tolist()
        [[3, 3, 2], [6, 1, 0]]
    """
    # Open rows by their room: the texts of a row, and how many rows have these texts.
    by_room: dict[int, list[tuple[tuple[int, ...], int]]] = {}
    full: list[tuple[tuple[int, ...], int]] = []
    for length, count in sorted(Counter(np.asarray(lengths).tolist()).items(), reverse=True):
        while count:
            room = next((r for r in range(length, row_length + 1) if by_room.get(r)), None)
            if room is None:
                fits = min(row_length // length, most, count)
                texts, rows, room = (), count // fits, row_length
            else:
                texts, rows = by_room[room].pop()
                fits = min(room // length, most - len(texts), count)
                taken = min(rows, count // fits)
                if taken < rows:
                    by_room[room].append((texts, rows - taken))
                rows = taken
            count -= rows * fits
            longer, left = (*texts, *[length] * fits), room - fits * length
            is_open = left and len(longer) < most
            (by_room.setdefault(left, []) if is_open else full).append((longer, rows))
    patterns = [*full, *(pattern for of_room in by_room.values() for pattern in of_room)]
    places = max(len(texts) for texts, _ in patterns)
    padded = [(*texts, *[0] * (places - len(texts))) for texts, _ in patterns]
    return np.repeat(np.asarray(padded, "int64"), [rows for _, rows in patterns], axis=0)
