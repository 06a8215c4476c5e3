"""Batches of packed rows: several texts in a row, and batches of one or two shapes.

Shape legend: N rows of a batch, S places for texts in a row, L length of a row, T texts. An item is
a text, or a group of texts, which stand next to each other; its target is one entry.
"""

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np

from finetune_tf.data.array_batches import drawn_targets
from finetune_tf.data.array_dataset import ArrayDataset
from finetune_tf.data.batch_plans import NO_ITEM
from finetune_tf.data.cursor import Cursor
from finetune_tf.data.epochs import dataset_of_epochs, uses_pipeline
from finetune_tf.data.packed_arrays import PackedReader
from finetune_tf.data.packing import Packing, lengths_of_items, texts_of_items
from finetune_tf.data.rows import joined_reader, reader
from finetune_tf.tasks.encoded import Draw
from finetune_tf.tasks.feature import MASKS, POSITIONS, STARTS, TOKENS, Feature, ignored_in

if TYPE_CHECKING:
    import tensorflow as tf

# From texts (N, S), their tokens if these were drawn anew, and the function that cuts tokens into
# rows, to (N, L, …) or (N * S, …).
_Reader = Callable[["tf.Tensor", "tf.Tensor | None", Callable], "tf.Tensor"]


def packed_dataset(
    inputs: Mapping[str, Feature],
    targets: Feature | None,
    lengths: np.ndarray,
    packing: Packing,
    shuffle: bool,
    seed: int,
    draw: Draw | None,
    names: Collection[str],
    group: int = 1,
) -> "tf.data.Dataset | ArrayDataset":
    """Batches texts as packed rows.

    Args:
        inputs: Features by name, along the axis "tokens" or with one entry for each text.
        targets: One entry for each item, or one value for each token; None without labels.
        lengths: (T,), the tokens of each text.
        packing: The rows.
        shuffle: As for `bucketed_dataset`.
        seed: As for `bucketed_dataset`.
        draw: As for `bucketed_dataset`.
        names: The inputs that batches have; `POSITIONS` and perhaps `STARTS` among them.
        group: The texts of an item.

    Returns:
        A dataset as that of `bucketed_dataset`, with inputs (N, L, …) or (N * S, …). Positions
        count from 0 in each text. With `STARTS`, which is -1 where a row has no more texts, there
        is one target for each place of an item, (N * S / group, …), which is that of `ignored_in`
        for an empty place. The function `places_of_texts` returns where the output of each text
        is, (T,), among those of all batches of the epoch that comes next.
    """
    cursor, of_items = Cursor(packing.batches, seed), lengths_of_items(lengths, group)

    def random_of(epoch: int) -> np.random.Generator | None:
        return np.random.default_rng((seed, epoch)) if shuffle else None

    def next_epoch() -> tuple[np.ndarray, ...]:
        epoch, first = cursor.advance()
        items, shapes = packing.plan(of_items, random := random_of(epoch))
        return items[first:], shapes[first:], *(draw(random) if draw else ())

    def places_of_texts() -> np.ndarray:
        places = packing.places_of_texts(of_items, random_of(cursor.epoch))
        return texts_of_items(places, group)

    if draw:
        targets = drawn_targets(inputs)
    if uses_pipeline():
        read_batch = _batch_reader(inputs, targets, lengths, packing, names, group)
        shapes = [(packing.most_places,), (3,)]
        dataset = dataset_of_epochs(next_epoch, read_batch, cursor, shapes, drawn=2 * bool(draw))
    else:
        read_arrays = PackedReader(inputs, targets, lengths, packing, names, group)
        dataset = ArrayDataset(next_epoch, read_arrays, cursor, read_arrays.spec)
    dataset.places_of_texts = places_of_texts
    # As in `bucketed_dataset`.
    dataset.rows = [feature.rows for feature in (*inputs.values(), targets) if feature is not None]
    return dataset


def _batch_reader(
    inputs: Mapping[str, Feature],
    targets: Feature | None,
    lengths: np.ndarray,
    packing: Packing,
    names: Collection[str],
    group: int,
) -> Callable:
    """Returns the function that reads a batch, from what was drawn, its items and its shape."""
    import tensorflow as tf

    known = packing.groups[0].shape if len(packing.groups) == 1 else (None,) * 3
    with tf.device("CPU:0"):  # integer work, as in `batching`
        text_lengths = tf.constant(lengths, tf.int64)
        splits = tf.concat([[0], tf.cumsum(text_lengths)], 0)
        columns = {
            name: _reader(feature, splits) for name, feature in inputs.items() if name in names
        }
        wanted = None if targets is None else _reader(targets, splits)

    def read_batch(drawn: list, items: "tf.Tensor", shape: "tf.Tensor") -> dict | tuple:
        rows, places, row_length = tf.unstack(shape)
        items = tf.reshape(items[: rows * places], (rows, places))
        items = tf.ensure_shape(items, known[:2])
        texts = _texts_of(items, group)  # (N, S)
        is_text = texts != NO_ITEM
        of_places = tf.where(is_text, tf.gather(text_lengths, tf.maximum(texts, 0)), 0)  # (N, S)
        in_rows = tf.reduce_sum(of_places, axis=1)
        ids, drawn_targets = drawn or (None, None)

        def cut(tokens: "tf.Tensor", padding: float) -> "tf.Tensor":
            """Cuts tokens (tokens, …) into rows, padded to (N, L, …)."""
            ragged = tf.RaggedTensor.from_row_lengths(tokens, in_rows, validate=False)
            inner = tokens.shape[1:].as_list()
            filled = ragged.to_tensor(
                tf.cast(padding, tokens.dtype), shape=tf.stack([rows, row_length, *inner])
            )
            return tf.ensure_shape(filled, (known[0], known[2], *inner))

        batch = {
            name: read(texts, ids if name == "input_ids" else None, cut)
            for name, read in columns.items()
        }
        mask = tf.sequence_mask(in_rows, row_length, tf.int32)
        batch[MASKS[TOKENS]] = tf.ensure_shape(mask, (known[0], known[2]))
        counted = tf.ragged.range(of_places[is_text]).flat_values
        batch[POSITIONS] = tf.cast(cut(counted, 0), tf.int32)
        if STARTS in names:
            starts = tf.cumsum(of_places, axis=1, exclusive=True)
            batch[STARTS] = tf.cast(tf.where(is_text, starts, -1), tf.int32)
        if wanted is None:
            return batch
        if targets.axis is not None:
            return batch, wanted(texts, drawn_targets, cut)
        found = wanted(items, drawn_targets, cut)
        is_item = tf.reshape(items != NO_ITEM, [-1, *[1] * (len(found.shape) - 1)])
        ignored = tf.constant(ignored_in(found.dtype.name), found.dtype)
        return batch, tf.where(is_item, found, ignored)

    return read_batch


def _texts_of(items: "tf.Tensor", group: int) -> "tf.Tensor":
    """See `packing.texts_of_items`."""
    import tensorflow as tf

    if group == 1:
        return items
    texts = items[:, :, None] * group + tf.range(group, dtype=items.dtype)
    texts = tf.where(items[:, :, None] == NO_ITEM, tf.cast(NO_ITEM, items.dtype), texts)
    rows, places = items.shape
    return tf.ensure_shape(
        tf.reshape(texts, (tf.shape(items)[0], -1)), (rows, places and places * group)
    )


def _reader(feature: Feature, splits: "tf.Tensor") -> _Reader:
    if feature.axis is None:
        read_entries = reader(feature, None)
        # An empty place gets the entry of the first text; its output does not count.
        return lambda items, drawn, cut: read_entries(_existing(items), None)
    read_tokens = joined_reader(feature, splits)
    return lambda items, drawn, cut: cut(
        read_tokens(items[items != NO_ITEM], drawn), feature.padding
    )


def _existing(items: "tf.Tensor") -> "tf.Tensor":
    """The texts of all places (N * S,), the first text for an empty one."""
    import tensorflow as tf

    return tf.reshape(tf.maximum(items, 0), [-1])
