"""Whether anybody has trained the layers that a checkpoint did not fill.

A new head predicts noise until it is trained. How it is trained is the user's affair (`fit`, a loop
of their own, `load_weights`), so this goes by the values: those drawn at the load are remembered by
a checksum, and as long as all of them are the same, nobody trained the head. A save notes the names
of such tensors beside them, so that the next load knows them for what they are.
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
    """Shape and checksum of the variables of a model's head that were drawn anew.

    Args:
        model: Just loaded.
        new: Paths of its variables that no tensor filled, or one that was saved untrained.
        head_layers: Names of the layers that count as head.

    Returns:
        By path; empty if no kernel is among them, because biases start at zero and harm nothing.
    """
    paths = {path for path in new if path.partition("/")[0] in head_layers}
    variables = [v for v in model.weights if v.path in paths]
    if not any(len(v.shape) > 1 for v in variables):
        return {}
    return {v.path: _fingerprint(v) for v in variables}


def untrained_layers(model: Any) -> list[str]:
    """The layers of a model that still have their first, random weights.

    Cheap: it reads the new variables of the head, and nothing more once one of them was trained.

    Args:
        model: Any model; one that did not come from `load` has none.

    Returns:
        Their names; empty if one of the new variables has changed since, or none was new.
    """
    info = getattr(model, "info", None)
    if info is None or not info.initial_weights:
        return []
    variables = {v.path: v for v in model.weights if v.path in info.initial_weights}
    # One that was resized since, such as the bias of a vocabulary, says nothing.
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
    """The variables of a model's head that still have their first, random values."""
    if not untrained_layers(model):
        return []
    return [v for v in model.weights if v.path in model.info.initial_weights]


def untrained_message(model: Any) -> str | None:
    """One sentence about a model whose head nobody has trained, else None."""
    layers = untrained_layers(model)
    if not layers:
        return None
    return (
        f"Nobody has trained the head of this model ({', '.join(layers)}): its weights are the "
        "random ones of the load, so what it says about texts means nothing."
    )


def say_if_untrained(model: Any) -> None:
    """Says in one line that nobody has trained the head of a model, if that is so."""
    if message := untrained_message(model):
        say(message)


def remember_as_initial(model: Any, path: str) -> None:
    """Notes the present value of a new variable as its first one: it was set, not trained."""
    variable = next(v for v in model.weights if v.path == path)
    model.info.initial_weights[path] = _fingerprint(variable)


def _fingerprint(variable: Any) -> list:
    values = np.ascontiguousarray(ops.convert_to_numpy(ops.cast(variable.value, "float32")))
    return [list(variable.shape), zlib.crc32(values)]
