"""A block in which a model is trained on trial, and after which everything is as it was before."""

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from finetune_tf.base.keras_fits import random_state, set_random_state
from finetune_tf.base.keras_internals import sync_state
from finetune_tf.tasks.decisions import forget_decisions


@contextlib.contextmanager
def untouched(model: keras.Model, batches: Any) -> Iterator[None]:
    """Restores a model, the place in its data and all random states at the end of the block.

    Inside the block, the model may be compiled and fitted. Restored are the values of its variables
    (also those of its random seeds), its attributes (such as the compiled optimizer and loss), its
    record of fits and its config (with thresholds and calibration), the random states of Python,
    NumPy, Keras and TensorFlow, and the `cursor` of the batches.
    The optimizer of the model itself has to be replaced in the block: what it holds is not copied.

    Args:
        model: The model.
        batches: The data that the block iterates over. Only data with a `cursor` return to their
            place.
    """
    sync_state(model)
    values = [(variable, host_copy(variable)) for variable in model.variables]
    attributes = dict(vars(model))
    info = getattr(model, "info", None)
    described = [] if info is None else [info.record, info.config]
    before = copy.deepcopy([dict(part) for part in described])
    random_before = random_state()
    cursor = getattr(batches, "cursor", None)
    place = None if cursor is None else cursor.state_dict()
    try:
        if info is not None:
            forget_decisions(info.config)  # a fit would say that they no longer apply
        yield
    finally:
        sync_state(model)
        # Not by setattr: Keras would track objects that it tracks already.
        vars(model).clear()
        vars(model).update(attributes)
        for variable, value in values:
            variable.assign(value)
        for part, content in zip(described, before, strict=True):
            part.clear()
            part.update(content)
        set_random_state(random_before)
        if cursor is not None:
            cursor.load_state_dict(place)


def host_copy(variable: keras.Variable) -> np.ndarray:
    """Returns the value of a variable as an array of its own, also if it is on several devices."""
    return np.array(keras.ops.convert_to_numpy(keras.ops.copy(variable)))
