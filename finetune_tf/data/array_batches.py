"""Batches as NumPy arrays, without a tf.data pipeline.

Predictions need no pipeline: it takes longer to build than a model takes for one text, their order
is known, and each batch is read once. On JAX, training and evaluation read their batches in the
same way; see `array_dataset`.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import keras
import numpy as np

from finetune_tf.data.batch_plans import NO_ITEM, choose_cut, plan_of
from finetune_tf.data.buckets import (
    batch_lengths,
    bucket_items,
    bucket_lengths_of,
    count_rows,
)
from finetune_tf.data.rows import ArrayReader, ArraySpec, VariantRows
from finetune_tf.tasks import IGNORED, Encoded
from finetune_tf.tasks.feature import MASKS, TOKENS, Feature

Arrays = dict[str, np.ndarray]
Batch = Arrays | tuple[Arrays, np.ndarray]  # with targets, if there are any


class BatchReader:
    """Reads batches of rows that are padded along each axis. Several threads can use it.

    Args:
        inputs: As for `batching.bucketed_dataset`.
        targets: As for `batching.bucketed_dataset`.
        lengths: The lengths (rows,) of rows along each axis that batches have.
        group: As for `batching.bucketed_dataset`.
        names: As for `batching.bucketed_dataset`.
        draws: Whether "input_ids" and targets are drawn anew in each epoch.

    Attributes:
        spec: An `ArraySpec` for each array of a batch, in its structure.

    Raises:
        DataError: If a feature has no axis and its rows differ in shape.
    """

    def __init__(
        self,
        inputs: Mapping[str, Feature],
        targets: Feature | None,
        lengths: Mapping[str, np.ndarray],
        group: int = 1,
        names: Collection[str] | None = None,
        draws: bool = False,
    ) -> None:
        kept = {key: each for key, each in inputs.items() if names is None or key in names}
        masks = {axis: MASKS[axis] for axis in lengths if MASKS[axis] not in kept}
        self._masks = {axis: m for axis, m in masks.items() if names is None or m in names}
        self._inputs = {key: ArrayReader(feature) for key, feature in kept.items()}
        self._varied = {key for key, each in kept.items() if isinstance(each.rows, VariantRows)}
        if draws:
            targets = drawn_targets(inputs)
        self._targets = None if targets is None else ArrayReader(targets)
        self._lengths, self._group, self._draws = lengths, group, draws
        rows = len(next(iter(inputs.values())))
        self._total = rows // group
        specs = {key: read.spec for key, read in self._inputs.items()}
        specs |= {mask: ArraySpec((None, None), "int32") for mask in self._masks.values()}
        self.spec = specs if self._targets is None else (specs, self._targets.spec)

    def count(self, items: np.ndarray, padded_to: Any) -> int:
        """Returns the number of items of a batch; arguments are as for a call."""
        return int((items != NO_ITEM).sum())

    def __call__(
        self,
        drawn: Sequence[np.ndarray],
        items: np.ndarray,
        padded_to: Any,
        only: np.ndarray | None = None,
    ) -> Batch:
        """Returns a batch.

        Args:
            drawn: What was drawn for the epoch: the ids and the targets of all rows, (T,) each.
            items: The items of the batch, filled up with `NO_ITEM`. Items of variants follow those
                of the variant before; only features with `VariantRows` distinguish them.
            padded_to: The length to which the batch is padded along each axis, (axes,).
            only: The places of the items that are read; by default all of them.
        """
        of_variant = items[items != NO_ITEM]
        if only is not None:
            of_variant = of_variant[only]
        rows, lengths = self._rows_and_lengths(of_variant, padded_to)
        ids = drawn[0] if self._draws else None
        batch = {
            key: read(
                of_variant if key in self._varied else rows,
                lengths,
                ids if key == "input_ids" else None,
            )
            for key, read in self._inputs.items()
        }
        for axis, mask in self._masks.items():
            is_token = np.arange(lengths[axis]) < self._lengths[axis][rows, None]
            batch[mask] = is_token.astype("int32")  # (rows, length)
        if self._targets is None:
            return batch
        return batch, self.targets(drawn, of_variant, padded_to)

    def targets(self, drawn: Sequence[np.ndarray], items: np.ndarray, padded_to: Any) -> np.ndarray:
        """Returns the targets of a batch alone, which has some; arguments are as for a call."""
        items = items[items != NO_ITEM]
        rows, lengths = self._rows_and_lengths(items, padded_to)
        wanted = items % self._total if self._targets.axis is None else rows
        return self._targets(wanted, lengths, drawn[1] if self._draws else None)

    def _rows_and_lengths(
        self, items: np.ndarray, padded_to: Any
    ) -> tuple[np.ndarray, dict[str, int]]:
        first = items[:, None] % self._total * self._group
        rows = (first + np.arange(self._group)).ravel()
        return rows, dict(zip(self._lengths, np.asarray(padded_to).tolist(), strict=True))


def drawn_targets(inputs: Mapping[str, Feature]) -> Feature:
    """Returns a feature as that of targets that are drawn for each token of "input_ids"."""
    return Feature(inputs["input_ids"].rows, TOKENS, IGNORED)


class ArrayBatches:
    """The batches of encoded rows in a given order, each of which is read when it is asked for.

    Rows of a batch are padded to the bucket of the longest among them, as `batches_of` pads them
    without shuffling. Batches can be read in several threads.

    Args:
        encoded: From the model's task, one row for each item, with nothing left to draw.
        model: As for `batches_of`.
        batch_size: Rows a batch.
        order: The indices of the rows, in the order in which batches have them.
        name: The name of the examples, for messages.

    Attributes:
        has_targets: Whether a batch is (inputs, targets); otherwise it is (inputs,).

    Raises:
        DataError: If inputs or targets disagree about the rows, or a row is too long.

    Example:
        >>> from finetune_tf.data.array_batches import ArrayBatches
        >>> encoded = train.encoded(model, targets=False)
        >>> batches = ArrayBatches(encoded, model, 2, np.arange(len(encoded)), "train")
        >>> len(batches), sorted(batches[0][0])
        (3, ['attention_mask', 'input_ids', 'token_type_ids'])
    """

    def __init__(
        self, encoded: Encoded, model: Any, batch_size: int, order: np.ndarray, name: str
    ) -> None:
        inputs, targets = encoded.inputs, encoded.targets
        names = {tensor.name for tensor in model.inputs}
        if hasattr(model, "cached_features"):
            inputs = inputs | model.cached_features(encoded, name)
        lengths = batch_lengths(inputs, targets, names)
        rows = count_rows(inputs, targets, group=1)
        buckets = bucket_lengths_of(lengths, model)
        item_buckets = bucket_items(lengths, buckets, rows, group=1)
        cut = choose_cut(item_buckets, batch_size, None, drop_remainder=False, group=1)
        self._items, self._padded_to = plan_of(order, item_buckets, cut)
        self._read_batch = BatchReader(inputs, targets, lengths, names=names)
        self.has_targets = targets is not None

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, number: int) -> tuple[Arrays] | tuple[Arrays, np.ndarray]:
        batch = self._read_batch([], self._items[number], self._padded_to[number])
        return batch if self.has_targets else (batch,)

    def shared(self, number: int, shares: Any) -> tuple[Any] | tuple[Any, np.ndarray]:
        """Returns a batch of which each process reads a part of the rows, and all targets.

        Args:
            number: The number of the batch.
            shares: As from `current.shares`.

        Returns:
            As an index does, but the inputs are arrays of all devices, each of which has all rows.
        """
        of_batch = self._items[number], self._padded_to[number]
        count = self._read_batch.count(*of_batch)
        own = self._read_batch([], *of_batch, shares.of_process(count))
        inputs = shares.joined(own[0] if self.has_targets else own, count, whole=True)
        return (inputs, self._read_batch.targets([], *of_batch)) if self.has_targets else (inputs,)

    def signature(self) -> list[Any]:
        """Returns the structure of a batch with a `tf.TensorSpec` for each array."""
        import tensorflow as tf

        spec = self._read_batch.spec
        return keras.tree.map_structure(
            lambda array: tf.TensorSpec(array.shape, array.dtype),
            list(spec) if self.has_targets else [spec],
        )


def map_ahead(
    function: Callable[[Any], Any], items: Iterable[Any], workers: int, ahead: int
) -> Iterator[Any]:
    """Like `map`, but calls are made in threads, before their results are needed.

    Args:
        function: Is called for each item.
        items: The items.
        workers: How many calls run at a time.
        ahead: How many results are waiting at most, besides the one that is yielded.

    Example:
        >>> from finetune_tf.data.array_batches import map_ahead
        >>> list(map_ahead(abs, [-2, 3, -4], workers=1, ahead=2))
        [2, 3, 4]
    """
    pool, waiting = ThreadPoolExecutor(workers, thread_name_prefix="map_ahead"), deque[Future]()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # also if the iteration is broken off
        pool.shutdown(cancel_futures=True)
