"""Length-bucketed batches: the rows of a batch are padded to a bucket.

On TensorFlow, batches come from a tf.data pipeline, and on JAX from an `ArrayDataset`; both have
the same plan.
"""

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_tf.data.array_batches import BatchReader
from finetune_tf.data.array_dataset import ArrayDataset
from finetune_tf.data.augmentation import Augmentation
from finetune_tf.data.augmented_features import cached_variants, check_augment
from finetune_tf.data.balancing import (
    are_in_order_of_classes,
    balanced_order,
    check_balance,
    class_counts,
)
from finetune_tf.data.batch_plans import (
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
    bucket_lengths_of,
    count_rows,
)
from finetune_tf.data.cursor import Cursor
from finetune_tf.data.epochs import dataset_of_epochs, uses_pipeline
from finetune_tf.data.packable import packed_rows
from finetune_tf.data.packed_batches import packed_dataset
from finetune_tf.data.tensor_batches import batch_reader
from finetune_tf.errors import DataError
from finetune_tf.tasks import Encoded
from finetune_tf.tasks.encoded import Draw
from finetune_tf.tasks.feature import POSITIONS, STARTS, TOKENS, Feature

if TYPE_CHECKING:
    import tensorflow as tf


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
    packing: bool | int | str = False,
    **options: Any,
) -> "tf.data.Dataset | ArrayDataset":
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
        packing: Whether texts are packed into rows; see `packable.packed_rows`.
        **options: For `bucketed_dataset`.
    """
    if not shuffle:
        encoded = encoded.drawn(seed)
    inputs = encoded.inputs
    names = {tensor.name for tensor in model.inputs}
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
    lengths = batch_lengths(inputs, encoded.targets, names)
    rows = None
    if packing:
        given = options | {"balance": balance, "shuffle": shuffle, "buckets": buckets}
        rows = packed_rows(encoded, model, lengths, batch_size, packing, given, name)
    if rows is not None:
        names |= {POSITIONS, *([] if model.task.has_token_outputs else [STARTS])}
        dataset = packed_dataset(
            inputs,
            encoded.targets,
            lengths[TOKENS],
            rows,
            shuffle=shuffle,
            seed=seed,
            draw=encoded.draw,
            names=names,
            group=encoded.group,
        )
    else:
        dataset = bucketed_dataset(
            inputs,
            encoded.targets,
            batch_size=batch_size,
            bucket_lengths=bucket_lengths_of(lengths, model, max_length, buckets),
            shuffle=shuffle,
            seed=seed,
            group=encoded.group,
            draw=encoded.draw,
            names=names,
            **options,
        )
    if hasattr(model, "cached_features"):
        model.remember_features(dataset)
    dataset.labels = getattr(model, "labels", None)  # for `show`
    counts = class_counts(encoded, model.task) if hasattr(model, "task") else None
    if counts is not None:  # for class_weight="balanced"
        dataset.class_counts = np.sign(counts) if balance else counts
        dataset.is_sorted = not shuffle and are_in_order_of_classes(encoded, model.task)
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
) -> "tf.data.Dataset | ArrayDataset":
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
        A dataset of known cardinality, the same in each epoch; on JAX, an `ArrayDataset`, except
        with `augment`. A batch is (inputs, targets), or the inputs alone; inputs are
        (batch, length, …) or (batch, …) by name, in the dtype of their feature. The attention mask
        of each axis (`MASKS`), int32 with 1 for tokens and 0 for padding, is added unless it is
        among the inputs. The attribute `cursor`, a `Cursor`, reads and sets the epoch and the batch
        at which the next iterator begins. Datasets that are made of this one, by `map` or `take`,
        have no such attribute but follow this one's cursor.

    Raises:
        DataError: If inputs or targets disagree about the rows, a row is longer than the longest
            bucket or than `tokens_per_batch`, or there is no batch.
    """
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
    if uses_pipeline(augment):
        read_batch = batch_reader(inputs, targets, lengths, group, draw, names, total)
        dataset = dataset_of_epochs(
            next_epoch,
            read_batch,
            cursor,
            shapes=[(largest,), (len(lengths),)],
            augment=augment,
            drawn=2 * bool(draw),
        )
    else:
        read_arrays = BatchReader(inputs, targets, lengths, group, names, bool(draw))
        dataset = ArrayDataset(next_epoch, read_arrays, cursor, read_arrays.spec)
    # The functions that read rows refer to them weakly; see `rows`. Iterators keep this dataset.
    dataset.rows = [feature.rows for feature in (*inputs.values(), targets) if feature is not None]
    return dataset
