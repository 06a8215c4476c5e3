"""Batches in the form that tokenizers and collators return: labels may be among the inputs."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from keras import ops

from finetune_tf.base.values import check_range
from finetune_tf.errors import DataError
from finetune_tf.tasks.feature import IGNORED

# Hugging Face's names of targets that are among the inputs.
LABELS = ("labels", "label")
ENDS = ("start_positions", "end_positions")  # the first and the last token of an answer


def targets_of(x: Any, y: Any) -> Any:
    """Returns the targets: those beside the inputs, else those among them; None if there are none.

    Args:
        x: Inputs. Only a mapping can have targets among them.
        y: Targets, or None.
    """
    if y is None:
        return targets_in(x) if hasattr(x, "keys") else None
    return targets_in(y)


def with_targets(x: Any, y: Any, targets: Any) -> tuple[Any, Any]:
    """Replaces the targets, beside or among the inputs; returns the new inputs and targets.

    Args:
        x: Inputs.
        y: Targets, or None where they are among the inputs.
        targets: The new targets (batch, …); of first and last tokens (batch, 2).
    """
    holder = x if y is None else y
    if not hasattr(holder, "keys"):
        return x, targets
    if all(name in holder for name in ENDS):
        new = {name: targets[:, column] for column, name in enumerate(ENDS)}
    else:
        new = {next(name for name in LABELS if name in holder): targets}
    holder = {**holder, **new}
    return (holder, y) if y is None else (x, holder)


def unwrapped(data: Any) -> Any:
    """Converts encodings to dicts and lists to arrays; other values stay unchanged."""
    if hasattr(data, "keys"):
        return {name: unwrapped(data[name]) for name in data if data[name] is not None}
    if isinstance(data, list) and data and not hasattr(data[0], "shape"):
        try:
            return np.asarray(data)
        except ValueError:
            raise DataError(
                "The rows of a batch have one length, found lists of several. Pad them: "
                "tokenizer(texts, padding=True, return_tensors='np'), or let "
                "ft.data.from_arrays(texts, labels).batches(model) do it."
            ) from None
    return data


def targets_in(values: Any) -> Any:
    """Reads targets in any of the forms that Hugging Face uses.

    Args:
        values: The targets, two arrays of first and last tokens, or a dict with targets under
            Hugging Face's names.

    Returns:
        An array; of first and last tokens (batch, 2). None if a dict has no targets.
    """
    if isinstance(values, Mapping) or hasattr(values, "keys"):
        if all(name in values for name in ENDS):
            values = [values[name] for name in ENDS]
        else:
            return next((values[name] for name in LABELS if name in values), None)
    is_pair = isinstance(values, list | tuple) and len(values) == 2
    if is_pair and not isinstance(values[0], int | float):  # two numbers are labels of two texts
        return ops.stack([ops.reshape(end, (-1,)) for end in values], axis=1)
    return values


def next_labels(labels: Any) -> Any:
    """Returns the target of each token of a causal language model: the label of the token after it.

    Args:
        labels: (B, T), the tokens themselves, or -100 for those that are not learned.

    Example:
        >>> from finetune_tf.data.encodings import next_labels
        >>> next_labels(np.array([[5, 6, 7]])).numpy().tolist()
        [[6, 7, -100]]
    """
    labels = ops.cast(labels, "int32")
    return ops.concatenate([labels[:, 1:], ops.full_like(labels[:, :1], IGNORED)], axis=1)


def next_labels_once(labels: Any, ids: Any) -> Any:
    """Returns `next_labels`, or the labels themselves if they are the next tokens already.

    The batches of this library have the token after each one as its target, and -100 for the last.

    Args:
        labels: (B, T).
        ids: (B, T), the tokens.

    Example:
        >>> from finetune_tf.data.encodings import next_labels_once
        >>> ids = np.array([[5, 6, 7]])
        >>> next_labels_once(ids, ids).numpy().tolist()
        [[6, 7, -100]]
        >>> next_labels_once(np.array([[6, 7, -100]]), ids).numpy().tolist()
        [[6, 7, -100]]
    """
    return ops.where(_are(labels, next_labels(ids)), ops.cast(labels, "int32"), next_labels(labels))


def with_next_tokens(inputs: Mapping[str, Any]) -> tuple[Any, Any]:
    """Returns inputs of a causal language model without labels, and the targets made of them.

    Under the name "labels", transformers expects the tokens themselves, and its models shift them.

    Args:
        inputs: The inputs by name, with or without labels.
    """
    labels, ids = targets_in(inputs), inputs.get("input_ids")
    if labels is None:
        return inputs, None
    inputs = {name: inputs[name] for name in inputs if name not in LABELS}
    if not _have_one_shape(labels, ids):
        return inputs, labels  # an error says so later
    targets = next_labels_once(labels, ids)
    return inputs, ops.convert_to_numpy(targets) if isinstance(labels, np.ndarray) else targets


def check_next_tokens(inputs: Any, targets: Any) -> None:
    """Checks that the targets of a causal language model are not the tokens themselves.

    Args:
        inputs: Token ids (B, T), or a dict of inputs.
        targets: (B, T).

    Raises:
        DataError: If they are, so that the model would learn to copy its input; see
            `values.check_range` for symbolic tensors.
    """
    ids = inputs.get("input_ids") if hasattr(inputs, "keys") else inputs
    if not _have_one_shape(targets, ids):
        return
    copies = _are(targets, ids) & ~_are(targets, next_labels(ids))
    check_range(
        ops.cast(copies, "int32"),
        0,
        0,
        "The targets are the tokens themselves, so that the model would learn to copy its input. "
        "The target of a token is the one after it: use Examples.batches(model), or give the "
        "tokens as inputs['labels'], which are shifted as in transformers.",
    )


def _are(labels: Any, values: Any) -> Any:
    """Whether all labels equal values or are ignored: a boolean scalar."""
    labels, values = ops.cast(labels, "int32"), ops.cast(values, "int32")
    return ops.all(ops.equal(labels, IGNORED) | ops.equal(labels, values))


def _have_one_shape(labels: Any, ids: Any) -> bool:
    shapes = [getattr(value, "shape", None) for value in (labels, ids)]
    if any(shape is None or len(shape) != 2 for shape in shapes):
        return False
    return all(None in pair or pair[0] == pair[1] for pair in zip(*shapes, strict=True))
