"""Rows that somebody tokenized already, as batches."""

import inspect
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_tf.base.arguments import check, check_known, shown
from finetune_tf.base.spelling import names_checked
from finetune_tf.data.batching import batches_of, bucketed_dataset
from finetune_tf.data.encodings import ENDS, LABELS
from finetune_tf.errors import DataError, DataTypeError
from finetune_tf.graph.stages import require_task
from finetune_tf.tasks import Encoded
from finetune_tf.tasks.masking import Masking

if TYPE_CHECKING:
    import tensorflow as tf


def _batch_options() -> list[str]:
    return ["max_length", "name", "shapes", *inspect.signature(bucketed_dataset).parameters]


@names_checked(also=_batch_options)
def tokenized_batches(
    dataset: Mapping[str, Any] | Any,
    model: Any,
    batch_size: int = 32,
    shuffle: bool = False,
    pad_token_id: int | None = None,
    mask_rate: float | None = None,
    **options: Any,
) -> "tf.data.Dataset":
    """Batches a tokenized `datasets.Dataset`, padded to few lengths.

    Args:
        dataset: Columns by name: a `datasets.Dataset` or a dict of lists. Columns that are inputs
            of the model are kept; "labels" (or "label"), a number a row or one a token, or
            "start_positions" and "end_positions" become targets.
        model: A model from `load`.
        batch_size: Rows a batch.
        shuffle: Whether each epoch has its own order.
        pad_token_id: What ids are padded with; by default as the config says.
        mask_rate: For fill-mask, the share of the tokens that is hidden, others in each epoch;
            what was there becomes the target, whatever columns there are. None hides nothing.
        **options: As for `Examples.batches`.

    Raises:
        ArgumentError: If a number is out of range.
        DataError: If there is no column of ids, or a target is none that the model has.
        ModelError: If an id, or another input, is none that the model has; or if tokens are to be
            hidden and the tokenizer has no mask token.
    """
    check(batch_size=batch_size, pad_token_id=pad_token_id)
    check_known(**options)
    if mask_rate is not None:
        check(mask_rate=mask_rate)
    require_task(model)
    names = getattr(dataset, "column_names", None) or dataset
    if not isinstance(names, Iterable) or not all(isinstance(name, str) for name in names):
        raise DataTypeError(
            "A tokenized dataset is a datasets.Dataset or a dict of columns, found "
            f"{shown(dataset)}."
        )
    names = list(names)
    if "input_ids" not in names:
        raise DataError(
            f"A tokenized dataset has a column input_ids, found {', '.join(names)}. Tokenize it: "
            "dataset.map(lambda rows: tokenizer(rows['text'], truncation=True), batched=True)."
        )
    known = {tensor.name for tensor in model.inputs}
    if not len(dataset["input_ids"]):
        raise DataError("The tokenized dataset has no rows.")
    features = {}
    for name in names:
        if name in known:
            rows = [np.asarray(row) for row in dataset[name]]
            model.check_inputs({name: _on_end(rows)})
            features[name] = [row.astype("int32") for row in rows]
    targets: Any = None
    draw = None
    if mask_rate is not None:
        draw = Masking(features["input_ids"], model.tokenizer, mask_rate).draw
    elif all(name in names for name in ENDS):
        targets = np.stack([np.asarray(dataset[name]) for name in ENDS], axis=1)
        for row, ids in zip(targets, features["input_ids"], strict=True):
            model.checked_targets(row[None], len(ids))
        targets = targets.astype("int32")
    elif found := [name for name in LABELS if name in names]:
        targets = [np.asarray(row) for row in dataset[found[0]]]
        lengths = [row.size for row in targets]
        if targets[0].ndim == 1 and lengths == list(map(len, features["input_ids"])):
            ends = np.cumsum(lengths)[:-1]
            whole = model.checked_targets(_on_end(targets)[None])[0]  # (1, tokens of all rows)
            targets = np.split(whole, ends)
        else:
            targets = model.checked_targets(np.asarray(targets))
    if pad_token_id is None:
        pad_token_id = model.config.get("pad_token_id") or 0
    encoded = Encoded(features, {"input_ids": pad_token_id}, targets, draw=draw)
    return batches_of(encoded, model, batch_size, shuffle=shuffle, **options)


def _on_end(rows: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(rows) if rows else np.zeros(0, "int32")
