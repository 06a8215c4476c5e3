"""Length-bucketed batches: a tf.data pipeline that pads the rows of a batch to a bucket."""

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_tf.data.augmentation import Augmentation
from finetune_tf.data.augmented_features import cached_variants, check_augment
from finetune_tf.data.balancing import balanced_order, check_balance, class_counts
from finetune_tf.data.batch_plans import (
    NO_ITEM,
    choose_cut,
    order_by_bucket,
    plan_of,
    same_plan,
    shuffled_plans,
)
from finetune_tf.data.buckets import (
    BUCKETS,
    batch_lengths,
    bucket_items,
    count_rows,
    length_buckets,
)
from finetune_tf.data.cursor import Cursor
from finetune_tf.data.rows import VariantRows, ragged_reader, reader
from finetune_tf.errors import DataError
from finetune_tf.tasks import IGNORED, Encoded
from finetune_tf.tasks.encoded import Draw
from finetune_tf.tasks.feature import MASKS, POSITIONS, TOKENS, Feature

if TYPE_CHECKING:
    import tensorflow as tf

# Fixed, and not `tf.data.AUTOTUNE`: its tuning thread sleeps for longer and longer, up to many
# seconds, and the end of an epoch waits until it wakes.
_WORKERS = 2  # batches that are made at the same time
_AHEAD = 8  # batches that are made before they are needed


def batches_of(
    encoded: Encoded,
    model: Any,
    batch_size: int,
    max_length: int | None = None,
    shuffle: bool = False,
    seed: int = 0,
    name: str = "texts",
    buckets: int = BUCKETS,
    augment: Any = None,
    augment_variants: int | None = None,
    balance: bool = False,
    **options: Any,
) -> "tf.data.Dataset":
    """Batches encoded rows for a model.

    Args:
        encoded: From the model's task.
        model: A model with named inputs, which alone are kept. One with `cached_features`, as
            `cache_features` returns it, gets those as well.
        batch_size: Items a batch: rows, or groups of rows.
        max_length: The most tokens of a row; by default what the model can take.
        shuffle: As for `bucketed_dataset`. Without it, what is sampled is sampled once.
        seed: As for `bucketed_dataset`.
        name: The name of the examples, for messages.
        buckets: The number of buckets along each axis.
        augment: As for `Augmentation`; None for images as they are.
        augment_variants: For cached features, how many variants of each image have features; an
            epoch has the variant of its number modulo this one.
        balance: Whether all classes are drawn equally often; see `balanced_order`.
        **options: For `bucketed_dataset`.
    """
    if not shuffle:
        encoded = encoded.drawn(seed)
    inputs = encoded.inputs
    names = {tensor.name for tensor in model.inputs}
    if POSITIONS in inputs:  # rows of several texts
        names.add(POSITIONS)
        if hasattr(model, "cached_features"):
            raise DataError(
                "Features of packed rows are not cached. Write batches(model) without packing, or "
                "train the whole model."
            )
    augmentation = None
    check_augment(model, shuffle, augment, augment_variants)
    if augment is not None:
        augmentation = Augmentation(augment, model.task, encoded.targets is not None, name)
    if augment_variants is not None:
        inputs = inputs | cached_variants(
            encoded, model, augmentation, augment_variants, seed, name
        )
        options["variants"] = augment_variants
    elif hasattr(model, "cached_features"):
        inputs = inputs | model.cached_features(encoded, name)
    else:
        options["augment"] = augmentation
    if balance:
        check_balance(shuffle, options.get("tokens_per_batch"))
        options["order_of"] = balanced_order(encoded, model.task, name)
    limits = {TOKENS: max_length or getattr(model, "max_length", None)}
    lengths = batch_lengths(inputs, encoded.targets, names)
    dataset = bucketed_dataset(
        inputs,
        encoded.targets,
        batch_size=batch_size,
        bucket_lengths={
            axis: length_buckets(of_axis, limits.get(axis), buckets)
            for axis, of_axis in lengths.items()
        },
        shuffle=shuffle,
        seed=seed,
        group=encoded.group,
        draw=encoded.draw,
        names=names,
        **options,
    )
    dataset.labels = getattr(model, "labels", None)  # for `show`
    counts = class_counts(encoded, model.task) if hasattr(model, "task") else None
    if counts is not None:  # for class_weight="balanced"
        dataset.class_counts = np.sign(counts) if balance else counts
    return dataset


def bucketed_dataset(
    inputs: Mapping[str, Feature],
    targets: Feature | None,
    batch_size: int,
    bucket_lengths: Mapping[str, Sequence[int]],
    shuffle: bool = False,
    seed: int = 0,
    drop_remainder: bool = False,
    tokens_per_batch: int | None = None,
    group: int = 1,
    draw: Draw | None = None,
    names: Collection[str] | None = None,
    order: np.ndarray | None = None,
    augment: Augmentation | None = None,
    variants: int = 1,
    order_of: Callable[[np.random.Generator], np.ndarray] | None = None,
) -> "tf.data.Dataset":
    """Batches rows, each batch padded along each axis to one of a few lengths.

    With `shuffle`, rows of one bucket come together, and both rows and batches are in an order
    sampled from (seed, epoch). Rows are sorted by their bucket along the first axis, then along
    the second. Rows left over in a bucket fill up the next one, so only one batch can be smaller
    than the others. Without `shuffle`, rows keep their order, and consecutive ones are padded to
    the bucket of the longest among them.

    Args:
        inputs: Features by name.
        targets: One entry for each item, or one value for each position of an axis; None without
            labels.
        batch_size: Items a batch.
        bucket_lengths: By axis, the lengths to which batches may be padded, ascending; see
            `buckets.length_buckets`.
        shuffle: Whether each epoch has its own order.
        seed: Decides the orders.
        drop_remainder: Whether to leave out the items (with `shuffle`, others in each epoch) that
            do not fill a batch.
        tokens_per_batch: Instead of `batch_size` items, as many as stay within so many tokens
            of all axes, padding included: batches of short rows have more of them.
        group: Rows an item; they stay together and in order, and share a target.
        draw: Samples "input_ids" and targets anew in each epoch, with a generator made from
            (seed, epoch); see `Encoded`. Only with `shuffle`.
        names: The inputs that batches have; by default all.
        order: The order of the items without `shuffle`, which may have items several times or
            not at all; by default as they are.
        augment: Changes images at random, other ones in each epoch. Only with `shuffle`.
        variants: The variants that the features with `VariantRows` have. Only with `shuffle`.
        order_of: Draws the items of an epoch, as many as there are, with a generator made from
            (seed, epoch). Only with `shuffle`, and without `tokens_per_batch`.

    Returns:
        A dataset of known cardinality, the same in each epoch. A batch is (inputs, targets), or
        the inputs alone; inputs are (batch, length, …) or (batch, …) by name, in the dtype of
        their feature. The attention mask of each axis (`MASKS`), int32 with 1 for tokens and 0 for
        padding, is added unless it is among the inputs. The attribute `cursor`, a `Cursor`, reads
        and sets the epoch and the batch at which the next iterator begins. Datasets that are made
        of this one, by `map` or `take`, have no such attribute but follow this one's cursor.

    Raises:
        DataError: If inputs or targets disagree about the rows, a row is longer than the longest
            bucket or than `tokens_per_batch`, or there is no batch.
    """
    import tensorflow as tf

    lengths = batch_lengths(inputs, targets, names)
    rows = count_rows(inputs, targets, group)
    item_buckets = bucket_items(lengths, bucket_lengths, rows, group)
    total = len(item_buckets)
    item_count = total // batch_size * batch_size if drop_remainder else total
    if item_count < 1:
        raise DataError(
            f"{total} rows do not fill one batch of {batch_size}: choose a smaller "
            "batch_size or drop_remainder=False."
        )
    batch_size = min(batch_size, total)
    cut = choose_cut(item_buckets, batch_size, tokens_per_batch, drop_remainder, group)
    plan = functools.partial(plan_of, item_buckets=item_buckets, cut=cut)
    if shuffle:
        # The same in each epoch: the order is by bucket, and a bucket always has as many rows.
        order = order_by_bucket(item_buckets)
    elif order is None:
        order = np.arange(total)
    elif not drop_remainder:
        item_count = len(order)  # an order may have items several times
    first = plan(order[:item_count])
    batch_count, largest = first[0].shape
    cursor = Cursor(batch_count, seed)
    if shuffle:
        next_epoch = shuffled_plans(
            cursor, item_buckets, item_count, plan, draw, bool(augment), variants, order_of
        )
    else:
        next_epoch = same_plan(cursor, first)
    read_batch = _batch_reader(inputs, targets, lengths, group, draw, names, total)
    seed_type, drawn_types = [tf.int64] * bool(augment), [tf.int32, tf.int32] * bool(draw)
    types = [tf.int64, tf.int64, *seed_type, *drawn_types]
    plain = tf.autograph.experimental.do_not_convert  # there is no control flow to convert

    def epoch(_: tf.Tensor) -> tf.data.Dataset:
        # Not `from_generator`: its first use makes malloc return every large buffer at once,
        # so that each step waits for the pages of its buffers.
        items, padded_to, *others = tf.numpy_function(next_epoch, [], types)
        seeds, drawn = others[: len(seed_type)], others[len(seed_type) :]
        items = tf.ensure_shape(items, (None, largest))
        padded_to = tf.ensure_shape(padded_to, (None, len(lengths)))
        drawn = [tf.ensure_shape(flat, (None,)) for flat in drawn]
        batches = tf.data.Dataset.from_tensor_slices((items, padded_to)).map(
            plain(functools.partial(read_batch, drawn)),
            num_parallel_calls=_WORKERS,
            deterministic=True,
        )
        return augment(batches, tf.ensure_shape(seeds[0], (None, 2))) if augment else batches

    dataset = _with_cardinality(tf.data.Dataset.range(1).flat_map(plain(epoch)), batch_count)
    options = tf.data.Options()
    options.autotune.enabled = False
    dataset = dataset.prefetch(_AHEAD).with_options(options)
    dataset.cursor = cursor
    # The functions that read rows refer to them weakly; see `rows`. Iterators keep this dataset.
    dataset.rows = [feature.rows for feature in (*inputs.values(), targets) if feature is not None]
    return dataset


def _batch_reader(
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


def _with_cardinality(dataset: "tf.data.Dataset", count: int) -> "tf.data.Dataset":
    """Declares how many elements a dataset has, which an epoch that begins later falls short of.

    `assert_cardinality` would end such an epoch in an error. `take` knows its number of elements
    too if its input is endless, and ends without one. Here the input is the dataset and then the
    endless repetition of an empty dataset, which ends at once.
    """
    import tensorflow as tf

    def element(_: tf.Tensor) -> Any:
        zeros = [tf.zeros([size or 0 for size in spec.shape], spec.dtype) for spec in specs]
        return tf.nest.pack_sequence_as(dataset.element_spec, zeros)

    specs = tf.nest.flatten(dataset.element_spec)
    plain = tf.autograph.experimental.do_not_convert
    nothing = (
        tf.data.Dataset.range(1).filter(plain(lambda _: tf.constant(False))).map(plain(element))
    )
    return dataset.concatenate(nothing.repeat()).take(count)
