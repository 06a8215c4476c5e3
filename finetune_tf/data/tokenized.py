"""Batches of data that are tokenized already."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_tf.base.arguments import check, check_known, shown
from finetune_tf.base.labels import similar_key
from finetune_tf.base.spelling import names_checked
from finetune_tf.data.batching import batches_of
from finetune_tf.data.encodings import ENDS, LABELS
from finetune_tf.errors import DataError, DataTypeError
from finetune_tf.graph.stages import require_task
from finetune_tf.messages import warn
from finetune_tf.tasks import IGNORED, Encoded
from finetune_tf.tasks.causal_tokens import next_tokens
from finetune_tf.tasks.feature import Feature
from finetune_tf.tasks.masking import Masking

if TYPE_CHECKING:
    import tensorflow as tf

    from finetune_tf.data.array_dataset import ArrayDataset


_MASK = "attention_mask"
_OPTIONS = ("seed", "max_length", "drop_remainder", "tokens_per_batch", "buckets", "name")


@names_checked(also=_OPTIONS)
def tokenized_batches(
    dataset: Mapping[str, Any] | Any,
    model: Any,
    batch_size: int = 32,
    shuffle: bool = False,
    pad_token_id: int | None = None,
    mask_rate: float | None = None,
    **options: Any,
) -> "tf.data.Dataset | ArrayDataset":
    """Batches a tokenized `datasets.Dataset`, padded to few lengths.

    Args:
        dataset: Columns by name: a `datasets.Dataset` or a dict of lists. Columns that are inputs
            of the model are kept. The column "labels" (or "label"), with one label a row or one a
            token, or "start_positions" and "end_positions" become targets. For text generation,
            labels are the tokens themselves, as in transformers, and the target of a token is the
            label of the one after it.
        model: A model from `load`.
        batch_size: Rows a batch.
        shuffle: Whether each epoch has its own order.
        pad_token_id: Pads "input_ids"; by default the id that the config defines.
        mask_rate: For fill-mask, the share of the tokens that is masked, others in each epoch. The
            original tokens become the targets, whatever columns there are. None masks nothing.
        **options: As for `Examples.batches`.

    Returns:
        A dataset as `Examples.batches` returns it.

    Raises:
        ArgumentError: If a number is out of range.
        DataError: If there is no column of ids, or the model has no such target.
        ModelError: If the model has no such id or other input, or if tokens are to be masked and
            the tokenizer has no mask token.

    Example:
        >>> rows = {"input_ids": [[2, 7, 3], [2, 8, 9, 3]], "label": [0, 1]}
        >>> inputs, labels = next(iter(ft.data.tokenized_batches(rows, model, 2)))
        >>> inputs["attention_mask"].numpy().tolist()
        [[1, 1, 1, 0], [1, 1, 1, 1]]
    """
    check(batch_size=batch_size, pad_token_id=pad_token_id)
    check_known(**options)
    if mask_rate is not None:
        check(mask_rate=mask_rate)
    require_task(model)
    names = getattr(dataset, "column_names", None) or dataset
    is_streamed = hasattr(dataset, "__iter__") and not hasattr(dataset, "__len__")
    if (
        is_streamed
        or not isinstance(names, Iterable)
        or not all(isinstance(name, str) for name in names)
    ):
        raise DataTypeError(
            "A tokenized dataset is a datasets.Dataset that is not streamed, or a dict of columns, "
            f"found {shown(dataset)}."
        )
    form = getattr(dataset, "format", None) or {}
    names = [name for name in names if name in (form.get("columns") or names)]
    if "input_ids" not in names:
        raise DataError(
            f"A tokenized dataset has a column input_ids, found {', '.join(names)}. Tokenize it: "
            "dataset.map(lambda rows: tokenizer(rows['text'], truncation=True), batched=True)."
        )
    known = {tensor.name for tensor in model.inputs}
    if not len(dataset["input_ids"]):
        raise DataError("The tokenized dataset has no rows.")
    inputs = {}
    padding = model.config.get("pad_token_id") or 0 if pad_token_id is None else pad_token_id
    for name in names:
        if name in known:
            rows = [np.asarray(row) for row in dataset[name]]
            model.check_inputs({name: _concatenated(rows)})
            rows = [row.astype("int32") for row in rows]
            inputs[name] = Feature(rows, padding=padding if name == "input_ids" else 0)
    ids = inputs["input_ids"]
    if _MASK in known - inputs.keys():
        _warn_of_padding(ids, padding, model)
    draw = None if mask_rate is None else Masking(ids.rows, model.tokenizer, mask_rate).draw
    targets = _targets(dataset, names, model, ids) if draw is None else None
    encoded = Encoded(inputs, targets, draw=draw)
    return batches_of(encoded, model, batch_size, shuffle=shuffle, **options)


def _targets(dataset: Any, names: list[str], model: Any, ids: Feature) -> Feature | None:
    """The targets among the columns: of answers, of rows, or of tokens."""
    if all(name in names for name in ENDS):
        ends = np.stack([np.asarray(dataset[name]) for name in ENDS], axis=1)  # (rows, 2)
        for row, length in zip(ends, ids.lengths, strict=True):
            model.checked_targets(row[None], int(length))
        return Feature.of_array(ends.astype("int32"))
    found = [name for name in LABELS if name in names]
    if not found:
        return None
    _compare_names(dataset, found[0], model)
    rows = [np.asarray(row) for row in dataset[found[0]]]
    lengths = [row.size for row in rows]
    if rows[0].ndim == 1 and np.array_equal(lengths, ids.lengths):
        if model.task.targets_are_next_tokens:
            rows = _next_tokens(rows, ids)
        whole = model.checked_targets(_concatenated(rows)[None])[0]  # (tokens of all rows,)
        return Feature(np.split(whole, np.cumsum(lengths)[:-1]), padding=IGNORED)
    return Feature.of_array(np.asarray(model.checked_targets(np.asarray(rows))))


def _warn_of_padding(ids: Feature, padding: int, model: Any) -> None:
    """Warns about rows that are padded already, if nothing says which tokens are padding."""
    ends = np.ravel(model.config.get("eos_token_id", -1)).tolist()
    pair = [padding, padding]  # a single token may be the end of a text
    padded = sum(pair in (row[:2].tolist(), row[-2:].tolist()) for row in ids.rows)
    if padded and padding not in ends:
        warn(
            f"{padded:,} of {len(ids.rows):,} rows of the tokenized dataset are padded, but it has "
            f"no column {_MASK!r}, so that padding counts as text. Keep that column, or tokenize "
            "without padding=."
        )


def _compare_names(dataset: Any, column: str, model: Any) -> None:
    """Warns if a data set has names for its class numbers that the model gives to other numbers."""
    names = getattr((getattr(dataset, "features", None) or {}).get(column), "names", None)
    labels = model.labels
    if not names or not labels:
        return
    # Checkpoints write names in capital letters, data sets do not.
    of_data, of_model = (list(map(similar_key, map(str, each))) for each in (names, labels))
    if of_data != of_model and sorted(of_data) == sorted(of_model):
        warn(
            f"The class numbers in the column {column!r} of the tokenized dataset are those of "
            f"{', '.join(map(str, names))}, but the model has the labels in the order "
            f"{labels.listed()}, and numbers are read in the order of the model. Unless they are "
            "in that order already: dataset.align_labels_with_mapping({name: i for i, name in "
            f"enumerate(model.labels)}}, {column!r})."
        )


def _next_tokens(labels: list[np.ndarray], ids: Feature) -> list[np.ndarray]:
    """The targets of a causal language model: the label of the token after each one."""
    pairs = [(row, next_tokens(tokens)) for row, tokens in zip(labels, ids.rows, strict=True)]
    if all(((row == IGNORED) | (row == following)).all() for row, following in pairs):
        return labels  # they are the next tokens already
    return [next_tokens(row) for row in labels]


def _concatenated(rows: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(rows) if rows else np.zeros(0, "int32")
