"""Batches that a collator of transformers, or a function of the user, makes of tokenized rows."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from finetune_tf.compat.arguments import TARGETS
from finetune_tf.data.encodings import LABELS, targets_in
from finetune_tf.errors import DataError


def collated_batches(
    model: keras.Model,
    dataset: Any,
    collate: Callable[[list[dict]], Any],
    batch_size: int,
    shuffle: bool,
    drop_remainder: bool,
) -> Any:
    """Batches rows as transformers 4 did: a collator makes each batch.

    Rows are read when their batch is made, so that `dataset.with_transform` may prepare images.

    Args:
        model: The model, which determines the columns that are kept.
        dataset: A `datasets.Dataset`, or columns by name in a dict of lists.
        collate: Called with a list of rows, which are dicts; returns a dict of arrays.
        batch_size: The number of rows per batch.
        shuffle: Whether each epoch has its own order, which `tf.random.set_seed` determines.
        drop_remainder: Whether to drop an incomplete last batch.

    Returns:
        A `tf.data.Dataset` of (inputs, labels), or of inputs alone if there are no labels.

    Raises:
        DataError: If there are no rows, or the collator returns no dict of arrays.
    """
    import tensorflow as tf

    known = {tensor.name for tensor in model.inputs} | {*TARGETS, *LABELS}
    rows_at, count = _rows_of(dataset, known)
    size = min(batch_size, count) if drop_remainder else batch_size
    starts = range(0, count - count % size if drop_remainder else count, size) if count else ()
    if not count:
        raise DataError("The dataset has no rows with an input of the model.")

    def batches() -> Iterator[Any]:
        order = np.arange(count)
        if shuffle:
            order = tf.random.shuffle(order).numpy()
        for start in starts:
            rows = order[start : start + size]
            yield _collated(collate, rows_at(rows))

    first = next(batches())
    signature = tf.nest.map_structure(
        lambda array: tf.TensorSpec([None] * array.ndim, array.dtype), first
    )
    made = tf.data.Dataset.from_generator(batches, output_signature=signature)
    return made.apply(tf.data.experimental.assert_cardinality(len(starts))).prefetch(2)


def _rows_of(dataset: Any, known: set[str]) -> tuple[Callable[[np.ndarray], list[dict]], int]:
    """Returns the number of rows, after a function from indices to rows, dicts of known columns."""
    if hasattr(dataset, "column_names"):
        count = len(dataset)

        def read(indices: np.ndarray) -> dict[str, Any]:
            found = dataset[indices.tolist()]  # one access; a transform may make the columns
            return {name: found[name] for name in found if name in known}

        if count and not read(np.arange(1)):
            count = 0
    else:
        columns = {name: list(dataset[name]) for name in dataset if name in known}
        count = len(next(iter(columns.values()), ()))

        def read(indices: np.ndarray) -> dict[str, Any]:
            return {name: [column[i] for i in indices] for name, column in columns.items()}

    def rows_at(indices: np.ndarray) -> list[dict]:
        columns = read(indices)
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    return rows_at, count


def _collated(collate: Callable[[list[dict]], Any], rows: list[dict]) -> Any:
    """Returns the inputs and labels of a batch as arrays, integers as int32."""
    options = {"return_tensors": "np"} if hasattr(collate, "return_tensors") else {}
    batch = collate(rows, **options)
    if not hasattr(batch, "keys"):
        raise DataError(
            f"A collate_fn returns a dict of arrays by name, found {type(batch).__name__}."
        )
    arrays = {}
    for name in batch.keys():  # noqa: SIM118  (a BatchEncoding iterates over something else)
        if batch[name] is None:
            continue
        array = np.asarray(batch[name])
        if array.dtype == object:
            raise DataError(
                f"The collate_fn returned rows of different lengths for {name!r}. Pad them, for "
                "example with DataCollatorForSeq2Seq(tokenizer, model=model)."
            )
        arrays[name] = array.astype("int32") if array.dtype.kind in "iub" else array
    labels = targets_in(arrays)
    if labels is None:
        return arrays
    return {n: a for n, a in arrays.items() if n not in TARGETS + LABELS}, np.asarray(labels)
