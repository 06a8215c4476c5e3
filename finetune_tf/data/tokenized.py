"""Rows that somebody tokenized already, as batches."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_tf.arguments import check, check_known
from finetune_tf.data.batching import batches_of
from finetune_tf.encodings import ENDS, LABELS
from finetune_tf.errors import DataError
from finetune_tf.tasks import Encoded
from finetune_tf.tasks.masking import Masking

if TYPE_CHECKING:
    import tensorflow as tf


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
        DataError: If there is no column of ids.
        ModelError: If tokens are to be hidden, and the tokenizer has no mask token.
    """
    check(batch_size=batch_size, pad_token_id=pad_token_id)
    check_known(**options)
    if mask_rate is not None:
        check(mask_rate=mask_rate)
    names = list(getattr(dataset, "column_names", None) or dataset)
    if "input_ids" not in names:
        raise DataError(
            f"A tokenized dataset has a column input_ids, found {', '.join(names)}. Tokenize it: "
            "dataset.map(lambda rows: tokenizer(rows['text'], truncation=True), batched=True)."
        )
    known = {tensor.name for tensor in model.inputs}
    features = {n: [np.asarray(row, "int32") for row in dataset[n]] for n in names if n in known}
    targets: Any = None
    draw = None
    if mask_rate is not None:
        draw = Masking(features["input_ids"], model.tokenizer, mask_rate).draw
    elif all(name in names for name in ENDS):
        targets = np.stack([np.asarray(dataset[name], "int32") for name in ENDS], axis=1)
    elif found := [name for name in LABELS if name in names]:
        rows = list(dataset[found[0]])
        lengths = [np.size(row) for row in rows]
        per_token = np.ndim(rows[0]) == 1 and lengths == list(map(len, features["input_ids"]))
        targets = [np.asarray(row, "int32") for row in rows] if per_token else np.asarray(rows)
    if pad_token_id is None:
        pad_token_id = model.config.get("pad_token_id") or 0
    encoded = Encoded(features, {"input_ids": pad_token_id}, targets, draw=draw)
    return batches_of(encoded, model, batch_size, shuffle=shuffle, **options)
