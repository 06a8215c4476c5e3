"""The states of the callbacks of a fit, of its history and of the global random generators."""

import copy
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from finetune_tf.base.keras_fits import random_state, set_random_state
from finetune_tf.data.cursor import Cursor
from finetune_tf.errors import ModelError
from finetune_tf.messages import say
from finetune_tf.training.resuming.values import NotPlainError, pack, same, unpack

# Attributes that Keras sets in every fit.
_SET_BY_KERAS = {"params", "_model", "model", "validation_data"}
_KNOWN_PACKAGES = ("keras.", "finetune_tf.")
_Arrays = dict[str, np.ndarray]


class CallbackStates:
    """The states of the callbacks of a fit.

    A callback with `state_dict` and `load_state_dict` decides itself. Of the others, attributes
    that changed since the beginning of the fit are saved if they are plain values. Those that are
    not plain are named in a message, since only the user knows whether they change.

    Args:
        callbacks: The callbacks, after their `on_train_begin`.
        history: The History callback.
    """

    def __init__(self, callbacks: Sequence[Any], history: Any) -> None:
        self._callbacks, self._history = list(callbacks), history
        self._before = []
        for callback in self._callbacks:
            plain, other = _attributes(callback)
            self._before.append(copy.deepcopy(plain))
            is_known = f"{type(callback).__module__}.".startswith(_KNOWN_PACKAGES)
            if other and not is_known and not _has_protocol(callback):
                self._say_unknown(callback, other)

    def state_dict(self, arrays: _Arrays) -> dict[str, Any]:
        """Returns what JSON can hold; `arrays` gets the arrays."""
        found = []
        for callback, before in zip(self._callbacks, self._before, strict=True):
            if _has_protocol(callback):
                state = callback.state_dict()
            else:
                state = {
                    name: value
                    for name, value in _attributes(callback)[0].items()
                    if name not in before or not same(value, before[name])
                }
            cursors = {name: cursor.state_dict() for name, cursor in _cursors(callback)}
            found.append([pack(state, arrays), cursors])
        history = {"history": self._history.history, "epoch": self._history.epoch}
        return {
            "callbacks": found,
            "history": pack(history, arrays),
            "random": pack(random_state(), arrays),
        }

    def load_state_dict(self, state: dict[str, Any], arrays: _Arrays) -> None:
        """Sets the callbacks, the history and the generators to a state from `state_dict`."""
        for callback, (packed, cursors) in zip(self._callbacks, state["callbacks"], strict=True):
            values = unpack(packed, arrays)
            if _has_protocol(callback):
                callback.load_state_dict(values)
            else:
                for name, value in values.items():
                    _set(callback, name, value)
            for name, cursor in _cursors(callback):
                cursor.load_state_dict(cursors[name])
        for name, value in unpack(state["history"], arrays).items():
            setattr(self._history, name, value)
        set_random_state(unpack(state["random"], arrays))

    @staticmethod
    def _say_unknown(callback: Any, names: list[str]) -> None:
        kind = type(callback).__name__
        values = vars(callback)
        shown = ", ".join(f"{kind}.{n} (a {type(values[n]).__name__})" for n in names)
        say(
            f"Resume does not save {shown}. If the fit changes it, give {kind} the methods "
            "state_dict and load_state_dict."
        )


def refuse_inexact(callback: Any) -> None:
    """Refuses a callback that cannot take part in a fit with `Resume`.

    Raises:
        ModelError: If it restores a fit itself, or loses what it wrote when a fit begins.
    """
    if isinstance(callback, keras.callbacks.BackupAndRestore):
        raise ModelError(
            "BackupAndRestore and Resume both continue a fit, and would do so twice. Leave "
            "BackupAndRestore out."
        )
    if isinstance(callback, keras.callbacks.CSVLogger) and not callback.append:
        raise ModelError(
            "CSVLogger empties its file whenever a fit begins, also if it is continued. Write "
            "keras.callbacks.CSVLogger(filename, append=True)."
        )


def _has_protocol(callback: Any) -> bool:
    return hasattr(callback, "state_dict") and hasattr(callback, "load_state_dict")


def _attributes(callback: Any) -> tuple[dict[str, Any], list[str]]:
    """Returns the attributes that are plain, and the names of those that may hold a state."""
    plain, other = {}, []
    for name, value in vars(callback).items():
        if name in _SET_BY_KERAS:
            continue
        try:
            pack(value, {})
        except NotPlainError:
            if not _is_configuration(value):
                other.append(name)
        else:
            plain[name] = value
    return plain, other


def _is_configuration(value: Any) -> bool:
    """Whether a value is not a state of a callback: a function, a model, a dataset, a variable."""
    if hasattr(value, "cursor"):
        return True
    kinds = keras.Model | keras.layers.Layer | keras.optimizers.Optimizer
    return callable(value) or isinstance(value, kinds) or hasattr(value, "element_spec")


def _cursors(callback: Any) -> list[tuple[str, Cursor]]:
    """Returns the cursors of the datasets that a callback reads, by attribute."""
    found = ((name, getattr(value, "cursor", None)) for name, value in vars(callback).items())
    return [(name, cursor) for name, cursor in found if isinstance(cursor, Cursor)]


def _set(callback: Any, name: str, value: Any) -> None:
    """Sets an attribute; a random generator that is there goes on, since others may hold it."""
    held = getattr(callback, name, None)
    if isinstance(held, np.random.Generator) and isinstance(value, np.random.Generator):
        held.bit_generator.state = value.bit_generator.state
    else:
        setattr(callback, name, value)
