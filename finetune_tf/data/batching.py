"""Token sequences to batches of few different lengths.

Padding everything to one length wastes most of the work on real text, and padding to the
longest row of each batch makes a new shape, hence a new compilation, out of nearly every batch.
A few fixed lengths avoid both.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_tf.errors import DataError
from finetune_tf.tasks import IGNORED, Encoded

if TYPE_CHECKING:
    import tensorflow as tf

SHORTEST_BUCKET = 16
_NO_ROW = -1


def length_buckets(lengths: Sequence[int] | np.ndarray, max_length: int) -> list[int]:
    """Chooses the lengths that batches may have: 16, 24, 32, 48, 64, 96, … up to `max_length`.

    Args:
        lengths: Tokens in each row.
        max_length: Tokens a row may have; the longest bucket there can be.

    Returns:
        Those of the lengths, ascending, that are the next one up for some row.

    Raises:
        DataError: If a row is longer than `max_length`.
    """
    if np.max(lengths) > max_length:
        raise DataError(
            f"A row has {np.max(lengths)} tokens, more than max_length={max_length}. Cut it first."
        )
    grid: list[int] = []
    size = SHORTEST_BUCKET
    while size < max_length:
        grid += [size, size * 3 // 2]
        size *= 2
    grid = [length for length in grid if length < max_length] + [max_length]
    return np.unique(np.asarray(grid)[np.searchsorted(grid, lengths)]).tolist()


def batches_of(
    encoded: Encoded,
    model: Any,
    batch_size: int,
    max_length: int | None = None,
    **options: Any,
) -> "tf.data.Dataset":
    """Batches encoded rows for a model.

    Args:
        encoded: From the model's task.
        model: A model from `finetune_tf.load`; only inputs that it has are kept.
        batch_size: Rows a batch.
        max_length: The longest bucket; by default what the model can take.
        **options: For `bucketed_dataset`.
    """
    known = {tensor.name for tensor in model.inputs}
    features = {name: rows for name, rows in encoded.features.items() if name in known}
    lengths = [len(row) for row in features["input_ids"]]
    return bucketed_dataset(
        features,
        encoded.pad_values,
        encoded.targets,
        batch_size=batch_size,
        buckets=length_buckets(lengths, max_length or model.max_length),
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
) -> "tf.data.Dataset":
    """Batches token sequences, each batch padded to one of a few lengths.

    With `shuffle`, rows of one bucket come together and both rows and batches are in an order
    drawn from (seed, epoch); rows left over in a bucket fill up the next longer one, so only one
    batch can be smaller than the others. Without it, rows keep their order, and consecutive ones
    are padded to the bucket of the longest among them.

    Args:
        features: Per name one array of ids a row; all features of a row have one length.
        pad_values: What fills each feature up to the length of its batch.
        targets: (rows, …); or one array a row with a number for each token, padded like the
            features, with -100; or None without labels.
        batch_size: Rows a batch.
        buckets: Lengths that batches may have, ascending; see `length_buckets`.
        shuffle: Whether each epoch has its own order.
        seed: Decides the orders.
        drop_remainder: Leaves out the rows (with `shuffle`, others in each epoch) that do not
            fill a batch.

    Returns:
        A dataset of known cardinality, the same in each epoch. A batch is (inputs, targets), or
        the inputs alone; inputs are int32 (batch, bucket) by name. "attention_mask", 1 for tokens
        and 0 for padding, is added unless it is among the features.

    Raises:
        DataError: If features or targets disagree about the rows, a row is longer than the
            longest bucket, or no batch comes together.
    """
    import tensorflow as tf

    lengths = _row_lengths(features, targets)
    buckets = np.asarray(buckets)
    if lengths.max() > buckets[-1]:
        raise DataError(
            f"A row has {lengths.max()} tokens, more than the longest bucket, {buckets[-1]}."
        )
    row_buckets = buckets[np.searchsorted(buckets, lengths)]
    batch_count = len(lengths) // batch_size if drop_remainder else -(-len(lengths) // batch_size)
    if batch_count < 1:
        raise DataError(
            f"{len(lengths)} rows do not fill one batch of {batch_size}: choose a smaller "
            "batch_size or drop_remainder=False."
        )

    row_count = min(batch_count * batch_size, len(lengths))
    if shuffle:
        dataset = tf.data.Dataset.from_generator(
            _shuffled_epochs(row_buckets, row_count, batch_size, seed),
            output_signature=(
                tf.TensorSpec((batch_count, batch_size), tf.int64),
                tf.TensorSpec((batch_count,), tf.int64),
            ),
        ).unbatch()
    else:
        plan = _plan(np.arange(row_count), row_buckets, batch_size)
        dataset = tf.data.Dataset.from_tensor_slices(plan)

    # Integer work of the input pipeline: a GPU would only hold a second copy of the data.
    with tf.device("CPU:0"):
        row_splits = np.concatenate([[0], np.cumsum(lengths)])
        columns = {
            name: tf.RaggedTensor.from_row_splits(_flat(rows), row_splits, validate=False)
            for name, rows in features.items()
        }
        if "attention_mask" not in columns:
            columns["attention_mask"] = tf.ones_like(next(iter(columns.values())))
        per_token = isinstance(targets, list | tuple)
        if per_token:
            all_targets = tf.RaggedTensor.from_row_splits(
                _flat(targets), row_splits, validate=False
            )
        else:
            all_targets = None if targets is None else tf.constant(targets)

    def batch(rows: tf.Tensor, length: tf.Tensor) -> dict | tuple:
        rows = tf.boolean_mask(rows, rows != _NO_ROW)
        shape = tf.stack([tf.constant(-1, tf.int64), length])
        inputs = {}
        for name, column in columns.items():
            padded = tf.gather(column, rows).to_tensor(pad_values.get(name, 0), shape=shape)
            inputs[name] = tf.ensure_shape(padded, (None, None))  # (batch, bucket)
        if all_targets is None:
            return inputs
        wanted = tf.gather(all_targets, rows)
        if per_token:
            wanted = tf.ensure_shape(wanted.to_tensor(IGNORED, shape=shape), (None, None))
        return inputs, wanted

    return (
        dataset.map(batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .apply(tf.data.experimental.assert_cardinality(batch_count))
        .prefetch(tf.data.AUTOTUNE)
    )


def _row_lengths(
    features: Mapping[str, Sequence[np.ndarray]],
    targets: np.ndarray | Sequence[np.ndarray] | None,
) -> np.ndarray:
    lengths = {
        name: np.fromiter((len(row) for row in rows), dtype="int64", count=len(rows))
        for name, rows in features.items()
    }
    first_name, first = next(iter(lengths.items()))
    for name, other in lengths.items():
        if not np.array_equal(first, other):
            raise DataError(f"{first_name!r} and {name!r} differ in the lengths of their rows.")
    if isinstance(targets, list | tuple) and [len(row) for row in targets] != first.tolist():
        raise DataError("Targets and inputs differ in the lengths of their rows.")
    if targets is not None and len(targets) != len(first):
        raise DataError(f"There are {len(first)} rows of inputs but {len(targets)} targets.")
    return first


def _flat(rows: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(rows).astype("int32", copy=False)


def _shuffled_epochs(row_buckets: np.ndarray, row_count: int, batch_size: int, seed: int):
    epochs = itertools.count()

    def one_epoch() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        random = np.random.default_rng((seed, next(epochs)))
        order = random.permutation(len(row_buckets))[:row_count]
        order = order[np.argsort(row_buckets[order], kind="stable")]
        rows, lengths = _plan(order, row_buckets, batch_size)
        batches = random.permutation(len(rows))
        yield rows[batches], lengths[batches]

    return one_epoch


def _plan(
    order: np.ndarray, row_buckets: np.ndarray, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cuts an order of rows into batches.

    Returns:
        The rows of each batch (batches, batch_size), filled up with -1, and the bucket of its
        longest row (batches,).
    """
    batch_count = -(-len(order) // batch_size)
    rows = np.full(batch_count * batch_size, _NO_ROW, dtype="int64")
    rows[: len(order)] = order
    rows = rows.reshape(batch_count, batch_size)  # (batches, batch_size)
    lengths = np.where(rows == _NO_ROW, 0, row_buckets[rows]).max(axis=1)
    return rows, lengths
