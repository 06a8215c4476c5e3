"""Batches of packed rows as NumPy arrays; see `packed_batches`.

Shape legend: N rows of a batch, S places for texts in a row, L length of a row, T texts. An item is
a text, or a group of texts, which stand next to each other.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from finetune_tf.data.array_batches import Batch
from finetune_tf.data.batch_plans import NO_ITEM
from finetune_tf.data.packing import Packing, texts_of_items
from finetune_tf.data.rows import ArrayReader, ArraySpec
from finetune_tf.tasks.feature import MASKS, POSITIONS, STARTS, TOKENS, Feature, ignored_in


class PackedReader:
    """Reads batches of packed rows. Several threads can use it.

    Args:
        inputs: As for `packed_batches.packed_dataset`.
        targets: As for `packed_batches.packed_dataset`; those of all tokens if they are drawn.
        lengths: (T,), the tokens of each text.
        packing: The rows.
        names: The inputs that batches have.
        group: As for `packed_batches.packed_dataset`.

    Attributes:
        spec: An `ArraySpec` for each array of a batch, in its structure.
    """

    def __init__(
        self,
        inputs: Mapping[str, Feature],
        targets: Feature | None,
        lengths: np.ndarray,
        packing: Packing,
        names: Collection[str],
        group: int = 1,
    ) -> None:
        self._inputs = {
            name: ArrayReader(feature) for name, feature in inputs.items() if name in names
        }
        self._targets = None if targets is None else ArrayReader(targets)
        self._lengths, self._group = lengths, group
        self._has_starts = STARTS in names
        self.spec = self._spec(packing)

    def _spec(self, packing: Packing) -> dict | tuple:
        rows, places, length = packing.groups[0].shape if len(packing.groups) == 1 else [None] * 3
        of_texts = places and places * self._group

        def of(read: ArrayReader, places: int | None) -> ArraySpec:
            axes = (rows and rows * places,) if read.axis is None else (rows, length)
            return ArraySpec((*axes, *read.inner), read.dtype)

        specs = {name: of(read, of_texts) for name, read in self._inputs.items()}
        specs |= {name: ArraySpec((rows, length), "int32") for name in (MASKS[TOKENS], POSITIONS)}
        if self._has_starts:
            specs[STARTS] = ArraySpec((rows, of_texts), "int32")
        return specs if self._targets is None else (specs, of(self._targets, places))

    def count(self, items: np.ndarray, shape: np.ndarray) -> int:
        """Returns the number of rows of a batch; arguments are as for a call."""
        return int(shape[0])

    def __call__(
        self,
        drawn: Sequence[np.ndarray],
        items: np.ndarray,
        shape: np.ndarray,
        only: np.ndarray | None = None,
    ) -> Batch:
        """Returns a batch.

        Args:
            drawn: As for `array_batches.BatchReader`.
            items: The items of the places of the batch, filled up with `NO_ITEM`.
            shape: Rows, places and row length of the batch, (3,).
            only: The rows that are read; by default all of them.
        """
        rows, places, row_length = shape.tolist()
        items = items[: rows * places].reshape(rows, places)
        if only is not None:
            items, rows = items[only], len(only)
        texts = texts_of_items(items, self._group)  # (N, S)
        is_text = texts != NO_ITEM
        of_places = np.where(is_text, self._lengths[np.maximum(texts, 0)], 0)  # (N, S)
        is_token = np.arange(row_length) < of_places.sum(axis=1)[:, None]  # (N, L)

        def cut(tokens: np.ndarray, padding: float = 0) -> np.ndarray:
            """Cuts tokens (tokens, …) into rows, padded to (N, L, …)."""
            filled = np.full((rows, row_length, *tokens.shape[1:]), padding, tokens.dtype)
            filled[is_token] = tokens
            return filled

        def of(read: ArrayReader, values: np.ndarray | None, places: np.ndarray) -> np.ndarray:
            if read.axis is None:
                # An empty place gets the entry of the first text; its output does not count.
                return read(np.maximum(places, 0).ravel(), {})
            return cut(read.joined(texts[is_text], values), read.padding)

        ids, targets = drawn or (None, None)
        batch = {
            name: of(read, ids if name == "input_ids" else None, texts)
            for name, read in self._inputs.items()
        }
        batch[MASKS[TOKENS]] = is_token.astype("int32")
        of_texts = of_places[is_text]
        begins = np.cumsum(of_texts) - of_texts  # of each text among the tokens of the batch
        positions = np.arange(of_texts.sum()) - np.repeat(begins, of_texts)
        batch[POSITIONS] = cut(positions.astype("int32"))
        if self._has_starts:
            starts = np.cumsum(of_places, axis=1) - of_places
            batch[STARTS] = np.where(is_text, starts, -1).astype("int32")
        if self._targets is None:
            return batch
        found = of(self._targets, targets, items)
        if self._targets.axis is None:
            found = found.copy()
            found[items.ravel() == NO_ITEM] = ignored_in(found.dtype.name)
        return batch, found
