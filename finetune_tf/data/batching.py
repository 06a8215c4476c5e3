"""Token sequences to batches of few different lengths."""

import functools
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_tf.data.batch_plans import (
    NO_ITEM,
    cut_by_items,
    cut_by_tokens,
    plan_of,
    shuffled_epochs,
)
from finetune_tf.data.buckets import SHAPES, length_buckets
from finetune_tf.data.feature_store import StoredRows
from finetune_tf.data.rows import lengths_of, padder
from finetune_tf.errors import DataError
from finetune_tf.tasks import IGNORED, Encoded
from finetune_tf.tasks.encoded import Draw

if TYPE_CHECKING:
    import tensorflow as tf

# Fixed, and not `tf.data.AUTOTUNE`: the thread that tunes sleeps for longer and longer, up to many
# seconds, and the end of an epoch waits until it wakes.
_WORKERS = 2  # batches put together at a time
_AHEAD = 8  # batches that lie ready


def batches_of(
    encoded: Encoded,
    model: Any,
    batch_size: int,
    max_length: int | None = None,
    shuffle: bool = False,
    seed: int = 0,
    name: str = "texts",
    shapes: int = SHAPES,
    **options: Any,
) -> "tf.data.Dataset":
    """Batches encoded rows for a model.

    Args:
        encoded: From the model's task.
        model: A model from `finetune_tf.load`; only inputs that it has are kept. One that stores
            features of rows (`stored`) gets these.
        batch_size: Items a batch: rows, or groups of rows.
        max_length: The longest bucket; by default what the model can take.
        shuffle: As for `bucketed_dataset`. Without it, what is drawn by chance is drawn once.
        seed: As for `bucketed_dataset`.
        name: Of the examples, for messages.
        shapes: How many lengths batches may have.
        **options: For `bucketed_dataset`.
    """
    if not shuffle:
        encoded = encoded.drawn(seed)
    known = {tensor.name for tensor in model.inputs}
    features = {name: rows for name, rows in encoded.features.items() if name in known}
    if hasattr(model, "stored"):
        ids, stored = encoded.features["input_ids"], model.stored(encoded, name)
        # Where a row is one vector, its length does not matter.
        has_tokens = any(rows.has_tokens for rows in stored.values())
        features["input_ids"] = ids if has_tokens else [row[:1] for row in ids]
        options |= {"stored": stored, "only": known}
    lengths = lengths_of(features["input_ids"])
    return bucketed_dataset(
        features,
        encoded.pad_values,
        encoded.targets,
        batch_size=batch_size,
        buckets=length_buckets(lengths, max_length or model.max_length, shapes),
        shuffle=shuffle,
        seed=seed,
        group=encoded.group,
        draw=encoded.draw,
        **options,
    )


def bucketed_dataset(
    features: Mapping[str, Sequence[np.ndarray]],
    pad_values: Mapping[str, int],
    targets: np.ndarray | Sequence[np.ndarray] | None,
    batch_size: int,
    buckets: Sequence[int],
    shuffle: bool = False,
    seed: int = 0,
    drop_remainder: bool = False,
    tokens_per_batch: int | None = None,
    group: int = 1,
    draw: Draw | None = None,
    stored: Mapping[str, StoredRows] | None = None,
    only: Collection[str] | None = None,
) -> "tf.data.Dataset":
    """Batches token sequences, each batch padded to one of a few lengths.

    With `shuffle`, rows of one bucket come together and both rows and batches are in an order
    drawn from (seed, epoch); rows left over in a bucket fill up the next longer one, so only one
    batch can be smaller than the others. Without it, rows keep their order, and consecutive ones
    are padded to the bucket of the longest among them.

    Args:
        features: Per name one array of ids a row; all features of a row have one length.
        pad_values: What fills each feature up to the length of its batch.
        targets: (items, …); or one array a row with a number for each token, padded like the
            features, with -100; or None without labels.
        batch_size: Items a batch.
        buckets: Lengths that batches may have, ascending; see `buckets.length_buckets`.
        shuffle: Whether each epoch has its own order.
        seed: Decides the orders.
        drop_remainder: Leaves out the items (with `shuffle`, others in each epoch) that do not
            fill a batch.
        tokens_per_batch: Instead of `batch_size` items, as many as stay within so many tokens,
            padding included: batches of short rows have more of them.
        group: Rows an item; they stay together and in order, and share a target.
        draw: Makes "input_ids" and targets anew in each epoch, of a generator made from (seed,
            epoch); see `Encoded`. Only with `shuffle`.
        stored: What else is known of each row, by the name of the input that it becomes.
        only: The inputs to keep; by default all.

    Returns:
        A dataset of known cardinality, the same in each epoch. A batch is (inputs, targets), or
        the inputs alone; inputs are int32 (batch, bucket) by name. "attention_mask", 1 for tokens
        and 0 for padding, is added unless it is among the features.

    Raises:
        DataError: If features or targets disagree about the rows, a row is longer than the
            longest bucket or than `tokens_per_batch`, or no batch comes together.
    """
    import tensorflow as tf

    lengths = _row_lengths(features, targets, group)
    buckets = np.asarray(buckets)
    if lengths.max() > buckets[-1]:
        raise DataError(
            f"A row has {lengths.max()} tokens, more than the longest bucket, {buckets[-1]}."
        )
    item_buckets = buckets[np.searchsorted(buckets, lengths.reshape(-1, group).max(axis=1))]
    total = len(item_buckets)
    item_count = total // batch_size * batch_size if drop_remainder else total
    if item_count < 1:
        raise DataError(
            f"{total} rows do not fill one batch of {batch_size}: choose a smaller "
            "batch_size or drop_remainder=False."
        )
    if tokens_per_batch is None:
        cut = functools.partial(cut_by_items, batch_size=min(batch_size, total))
    elif drop_remainder:
        raise DataError("Batches of tokens_per_batch differ in size: leave drop_remainder out.")
    elif tokens_per_batch < item_buckets.max() * group:
        raise DataError(
            f"tokens_per_batch={tokens_per_batch} is less than the {item_buckets.max() * group} "
            "tokens of the longest row: raise it, or lower max_length."
        )
    else:
        cut = functools.partial(cut_by_tokens, tokens=tokens_per_batch // group)
    plan = functools.partial(plan_of, item_buckets=item_buckets, cut=cut)
    plain = tf.autograph.experimental.do_not_convert  # there is no control flow to find
    # Whatever the epoch: the order is by bucket, and a bucket always has as many rows.
    by_length = np.argsort(item_buckets, kind="stable")[:item_count]
    first = plan(by_length if shuffle else np.arange(item_count))
    batch_count, widest = first[0].shape
    # Integer work of the input pipeline: a GPU would only hold a second copy of the data.
    with tf.device("CPU:0"):
        row_lengths = tf.constant(lengths)
        columns = {name: padder(rows, lengths) for name, rows in features.items()}
        per_token = targets is not None and not isinstance(targets, np.ndarray)
        if targets is None or draw is not None:
            wanted = None
        else:
            wanted = padder(targets, lengths) if per_token else tf.constant(targets)

    def batch(drawn: tuple, items: tf.Tensor, length: tf.Tensor) -> dict | tuple:
        items = tf.boolean_mask(items, items != NO_ITEM)
        rows = tf.reshape(items[:, None] * group + tf.range(group, dtype=items.dtype), [-1])
        padded = columns | ({"input_ids": padder(drawn[0], lengths)} if drawn else {})
        inputs = {name: pad(rows, length, pad_values.get(name, 0)) for name, pad in padded.items()}
        if "attention_mask" not in inputs:
            mask = tf.sequence_mask(tf.gather(row_lengths, rows), length, tf.int32)
            inputs["attention_mask"] = tf.ensure_shape(mask, (None, None))
        for name, kept in (stored or {}).items():
            inputs[name] = _looked_up(kept, rows, length)
        inputs = {name: values for name, values in inputs.items() if only is None or name in only}
        if drawn:
            return inputs, padder(drawn[1], lengths)(rows, length, IGNORED)
        if wanted is None:
            return inputs
        return inputs, wanted(rows, length, IGNORED) if per_token else tf.gather(wanted, items)

    def epoch(plan: tuple, drawn: tuple) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices(plan).map(
            plain(functools.partial(batch, drawn)),
            num_parallel_calls=_WORKERS,
            deterministic=True,
        )

    if shuffle:
        next_epoch = shuffled_epochs(item_buckets, item_count, plan, seed, draw)
        types = [tf.int64, tf.int64, *([tf.int32, tf.int32] if draw else [])]

        def shuffled(_: tf.Tensor) -> tf.data.Dataset:
            # Not `from_generator`: its first use makes malloc return every large buffer at once,
            # which costs each of them its pages in every step.
            items, buckets_of, *drawn = tf.numpy_function(next_epoch, [], types)
            items = tf.ensure_shape(items, (batch_count, widest))
            buckets_of = tf.ensure_shape(buckets_of, (batch_count,))
            return epoch((items, buckets_of), tuple(tf.ensure_shape(d, (None,)) for d in drawn))

        dataset = tf.data.Dataset.range(1).flat_map(plain(shuffled))
    else:
        dataset = epoch(first, ())
    options = tf.data.Options()
    options.autotune.enabled = False
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(batch_count))
    return dataset.prefetch(_AHEAD).with_options(options)


def _looked_up(stored: StoredRows, rows: "tf.Tensor", length: "tf.Tensor") -> "tf.Tensor":
    import tensorflow as tf

    # In Python, because the rows may stand in a file that is larger than memory.
    arguments = [rows, length] if stored.axis == "input_ids" else [rows]
    found = tf.numpy_function(stored.batch, arguments, stored.dtype, stateful=False)
    inner = (None, stored.array.shape[-1]) if stored.has_tokens else stored.array.shape[1:]
    return tf.ensure_shape(found, (None, *inner))


def _row_lengths(
    features: Mapping[str, Sequence[np.ndarray]],
    targets: np.ndarray | Sequence[np.ndarray] | None,
    group: int,
) -> np.ndarray:
    lengths = {name: lengths_of(rows) for name, rows in features.items()}
    first_name, first = next(iter(lengths.items()))
    for name, other in lengths.items():
        if not np.array_equal(first, other):
            raise DataError(f"{first_name!r} and {name!r} differ in the lengths of their rows.")
    per_token = targets is not None and not isinstance(targets, np.ndarray)
    if per_token and not np.array_equal(lengths_of(targets), first):
        raise DataError("Targets and inputs differ in the lengths of their rows.")
    if targets is not None and len(targets) * group != len(first):
        raise DataError(f"There are {len(first)} rows of inputs but {len(targets)} targets.")
    return first
