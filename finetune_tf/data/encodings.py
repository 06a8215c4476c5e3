"""Batches as tokenizers and collators give them: encodings, with labels among the inputs."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from keras import ops

from finetune_tf.errors import DataError

# What Hugging Face calls targets that stand among the inputs.
LABELS = ("labels", "label")
ENDS = ("start_positions", "end_positions")  # of an answer


def targets_of(x: Any, y: Any) -> Any:
    """Targets beside the inputs, or else among them; bare ids are never targets."""
    if y is None:
        return targets_in(x) if hasattr(x, "keys") else None
    return targets_in(y)


def with_targets(x: Any, y: Any, targets: Any) -> tuple[Any, Any]:
    """Inputs and targets with others in the place of those there, which stay where they stood.

    Args:
        x: Inputs.
        y: Targets, or None where they stand among the inputs.
        targets: (batch, …); of first and last tokens (batch, 2).
    """
    holder = x if y is None else y
    if not hasattr(holder, "keys"):
        return x, targets
    if all(name in holder for name in ENDS):
        new = {name: targets[:, place] for place, name in enumerate(ENDS)}
    else:
        new = {next(name for name in LABELS if name in holder): targets}
    holder = {**holder, **new}
    return (holder, y) if y is None else (x, holder)


def unwrapped(data: Any) -> Any:
    """Encodings as dicts, lists as arrays; everything else as it is."""
    if hasattr(data, "keys"):
        return {name: unwrapped(data[name]) for name in data if data[name] is not None}
    if isinstance(data, list) and data and not hasattr(data[0], "shape"):
        try:
            return np.asarray(data)
        except ValueError:
            raise DataError(
                "Rows of a batch have one length, found lists of several. Pad them: "
                "tokenizer(texts, padding=True, return_tensors='np'), or let "
                "ft.data.from_arrays(texts, labels).batches(model) do it."
            ) from None
    return data


def targets_in(given: Any) -> Any:
    """Targets in any of the ways that Hugging Face gives them.

    Args:
        given: Targets themselves, two arrays of first and last tokens, or a dict with targets
            under Hugging Face's names.

    Returns:
        An array; of first and last tokens (batch, 2). None if a dict has none.
    """
    if isinstance(given, Mapping) or hasattr(given, "keys"):
        if all(name in given for name in ENDS):
            given = [given[name] for name in ENDS]
        else:
            return next((given[name] for name in LABELS if name in given), None)
    two = isinstance(given, list | tuple) and len(given) == 2
    if two and not isinstance(given[0], int | float):  # two numbers are the labels of two texts
        return ops.stack([ops.reshape(end, (-1,)) for end in given], axis=1)
    return given
