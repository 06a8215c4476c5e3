"""The tf.data pipeline of batches whose plan is made anew when an epoch begins."""

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from finetune_tf.data.augmentation import Augmentation
from finetune_tf.data.cursor import Cursor

if TYPE_CHECKING:
    import tensorflow as tf

# Fixed, and not `tf.data.AUTOTUNE`: its tuning thread sleeps for longer and longer, up to many
# seconds, and the end of an epoch waits until it wakes.
_WORKERS = 2  # batches that are made at the same time
_AHEAD = 8  # batches that are made before they are needed


def uses_pipeline(augment: Augmentation | None = None) -> bool:
    """Whether batches come from a tf.data pipeline, and not from an `ArrayDataset`.

    Args:
        augment: Changes images; it consists of TensorFlow operations.
    """
    return keras.backend.backend() != "jax" or augment is not None


def dataset_of_epochs(
    next_epoch: Callable[[], tuple[np.ndarray, ...]],
    read_batch: Callable,
    cursor: Cursor,
    shapes: Sequence[tuple[int, ...]],
    augment: Augmentation | None = None,
    drawn: int = 0,
) -> "tf.data.Dataset":
    """Returns the dataset that makes the plan of an epoch when it begins, and reads its batches.

    Args:
        next_epoch: Returns the plan: int64 arrays (batches, …), then with `augment` the seed of
            each batch (batches, 2), then flat int32 arrays that were drawn for the epoch.
        read_batch: Makes a batch of a list of what was drawn and of its part of each array.
        cursor: Knows the number of batches, and is moved on by `next_epoch`.
        shapes: The shapes of a batch's parts of the arrays.
        augment: Changes images.
        drawn: The number of arrays that are drawn.
    """
    import tensorflow as tf

    types = [tf.int64] * (len(shapes) + bool(augment)) + [tf.int32] * drawn
    plain = tf.autograph.experimental.do_not_convert  # there is no control flow to convert

    def epoch(_: tf.Tensor) -> tf.data.Dataset:
        # Not `from_generator`: its first use makes malloc return every large buffer at once,
        # so that each step waits for the pages of its buffers.
        found = tf.numpy_function(next_epoch, [], types)
        parts, others = found[: len(shapes)], found[len(shapes) :]
        parts = [
            tf.ensure_shape(part, (None, *shape)) for part, shape in zip(parts, shapes, strict=True)
        ]
        seeds, flat = others[: bool(augment)], others[bool(augment) :]
        flat = [tf.ensure_shape(each, (None,)) for each in flat]
        batches = tf.data.Dataset.from_tensor_slices(tuple(parts)).map(
            plain(functools.partial(read_batch, flat)),
            num_parallel_calls=_WORKERS,
            deterministic=True,
        )
        return augment(batches, tf.ensure_shape(seeds[0], (None, 2))) if augment else batches

    dataset = tf.data.Dataset.range(1).flat_map(plain(epoch))
    dataset = _with_cardinality(dataset, cursor.batch_count)
    options = tf.data.Options()
    options.autotune.enabled = False
    dataset = dataset.prefetch(_AHEAD).with_options(options)
    dataset.cursor = cursor
    return dataset


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
