"""Batches in the form that tokenizers and collators return: labels may be among the inputs."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from keras import ops

from finetune_tf.errors import DataError

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
