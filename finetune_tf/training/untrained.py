"""Detects heads that are still untrained.

A new head predicts noise until it is trained. Users may train it in any way (`fit`, a custom
training loop, `load_weights`), so detection is based on the values: `load` stores a checksum of
each randomly initialized variable of the head, and the head counts as untrained while all checksums
still match. A save records the names of such tensors, so that the next load knows them as
untrained.
"""

import zlib
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
from keras import ops

from finetune_tf.messages import say


def initial_weights(
    model: Any, new: Iterable[str], head_layers: Collection[str]
) -> dict[str, list]:
    """Returns shape and checksum of the newly initialized variables of a model's head.

    Args:
        model: A model that was just loaded.
        new: Paths of the variables that were not filled, or were filled by a tensor that was
            saved untrained.
        head_layers: Names of the layers that belong to the head.

    Returns:
        A dict by path. It is empty if no kernel is among the variables, because new biases are
        zero and harmless.
    """
    paths = {path for path in new if path.partition("/")[0] in head_layers}
    variables = [v for v in model.weights if v.path in paths]
    if not any(len(v.shape) > 1 for v in variables):
        return {}
    return {v.path: _fingerprint(v) for v in variables}


def untrained_layers(model: Any) -> list[str]:
    """Returns the layers of a model that still have their random initial weights.

    This is cheap: it reads only the new variables of the head, and nothing once one of them has
    changed.

    Args:
        model: Any model; the result is empty if it was not created by `load`.

    Returns:
        The names of the layers; empty if a new variable has changed since, or none was new.

    Example:
        >>> from finetune_tf.training.untrained import untrained_layers
        >>> untrained_layers(model)
        ['classifier']
    """
    info = getattr(model, "info", None)
    if info is None or not info.initial_weights:
        return []
    variables = {v.path: v for v in model.weights if v.path in info.initial_weights}
    # Variables that were resized since, such as the vocabulary bias, cannot be compared.
    same = [
        _fingerprint(variables[path]) == first
        for path, first in info.initial_weights.items()
        if path in variables and list(variables[path].shape) == first[0]
    ]
    if same and all(same):
        return list(dict.fromkeys(path.partition("/")[0] for path in info.initial_weights))
    info.initial_weights = {}
    return []


def untrained_variables(model: Any) -> list[Any]:
    """Returns the variables of a model's head that still have their random initial values."""
    if not untrained_layers(model):
        return []
    return [v for v in model.weights if v.path in model.info.initial_weights]


def untrained_message(model: Any) -> str | None:
    """Returns a message about an untrained head, or None if the head is trained."""
    layers = untrained_layers(model)
    if not layers:
        return None
    return (
        f"The head of this model ({', '.join(layers)}) is not trained: its weights are the random "
        "initial values, so its predictions are meaningless."
    )


def say_if_untrained(model: Any) -> None:
    """Prints a message if the head of a model is not trained."""
    if message := untrained_message(model):
        say(message)


def remember_as_initial(model: Any, path: str) -> None:
    """Stores the current value of a new variable as its initial value: it was set, not trained."""
    variable = next(v for v in model.weights if v.path == path)
    model.info.initial_weights[path] = _fingerprint(variable)


def _fingerprint(variable: Any) -> list:
    values = np.ascontiguousarray(ops.convert_to_numpy(ops.cast(variable.value, "float32")))
    return [list(variable.shape), zlib.crc32(values)]
