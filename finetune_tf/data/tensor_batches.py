"""Batches of rows as TensorFlow operations, for the tf.data pipeline of `batching`."""

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np

from finetune_tf.data.batch_plans import NO_ITEM
from finetune_tf.data.rows import VariantRows, ragged_reader, reader
from finetune_tf.tasks import IGNORED
from finetune_tf.tasks.encoded import Draw
from finetune_tf.tasks.feature import MASKS, TOKENS, Feature

if TYPE_CHECKING:
    import tensorflow as tf


def batch_reader(
    inputs: Mapping[str, Feature],
    targets: Feature | None,
    lengths: Mapping[str, np.ndarray],
    group: int,
    draw: Draw | None,
    names: Collection[str] | None,
    total: int,
) -> Callable[[list, "tf.Tensor", "tf.Tensor"], dict | tuple]:
    """Returns the function that reads a batch, from what was drawn, its items and its lengths.

    Of `total` items there may be variants, which only features with `VariantRows` distinguish.
    """
    import tensorflow as tf

    axes = list(lengths)
    # Integer work of the input pipeline: a GPU would only hold a second copy of the data.
    with tf.device("CPU:0"):
        row_lengths = {axis: tf.constant(of_axis) for axis, of_axis in lengths.items()}
        row_splits = {axis: tf.concat([[0], tf.cumsum(n)], 0) for axis, n in row_lengths.items()}

        def prepared(feature: Feature) -> Callable:
            read = reader(feature, row_splits.get(feature.axis))
            return lambda rows, padded_to: read(rows, padded_to.get(feature.axis))

        columns = {
            name: prepared(feature)
            for name, feature in inputs.items()
            if (names is None or name in names) and not (draw and name == "input_ids")
        }
        wanted = None if targets is None or draw else prepared(targets)
        varied = {n for n, feature in inputs.items() if isinstance(feature.rows, VariantRows)}

    def read_batch(drawn: list, items: tf.Tensor, padded_to: tf.Tensor) -> dict | tuple:
        of_variant = tf.boolean_mask(items, items != NO_ITEM)  # (items,)
        items = of_variant % total
        rows = tf.reshape(items[:, None] * group + tf.range(group, dtype=items.dtype), [-1])
        padded_to = {axis: padded_to[i] for i, axis in enumerate(axes)}
        batch = {
            name: read(of_variant if name in varied else rows, padded_to)
            for name, read in columns.items()
        }
        for axis in axes:
            mask = MASKS[axis]
            if mask not in batch and (names is None or mask in names):
                values = tf.gather(row_lengths[axis], rows)
                values = tf.sequence_mask(values, padded_to[axis], tf.int32)
                batch[mask] = tf.ensure_shape(values, (None, None))  # (rows, length)
        if drawn:
            splits, length = row_splits[TOKENS], padded_to[TOKENS]
            padding = inputs["input_ids"].padding
            batch["input_ids"] = ragged_reader(drawn[0], splits, padding)(rows, length)
            return batch, ragged_reader(drawn[1], splits, IGNORED)(rows, length)
        if wanted is None:
            return batch
        return batch, wanted(items if targets.axis is None else rows, padded_to)

    return read_batch
