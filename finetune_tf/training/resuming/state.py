"""Everything that a running fit depends on besides its data, read from objects and set again."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from finetune_tf.base.keras_fits import (
    build_metrics,
    kept_value,
    metrics_of,
    parts_of,
)
from finetune_tf.base.keras_internals import (
    all_layers,
    optimized_variables,
    set_trainable_flag,
    sync_state,
    trainable_flag,
)
from finetune_tf.errors import ModelError
from finetune_tf.graph.pieces import learnable_variables
from finetune_tf.training.freezing import build_optimizer, renew_training
from finetune_tf.training.resuming.files import Stored
from finetune_tf.training.schedules import schedule_of

_SMALL = 2**14  # bytes of a variable that is always saved


class ModelState:
    """The variables, flags, optimizer, schedule and metrics of a fitted model.

    Args:
        model: The model, whose optimizer is built here if it is not yet. Large variables that are
            frozen now are not saved as long as they keep their values; their hash is.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        if getattr(model, "optimizer", None) is not None:
            build_optimizer(model)
        trained = {id(variable) for variable in model.trainable_variables}
        self._frozen = {
            name: _digest(_array(part))
            for index, variable in enumerate(model.variables)
            if id(variable) not in trained
            if _bytes(variable) > _SMALL
            for name, part in _named_parts("model", index, variable)
        }

    def state_dict(self, with_metrics: bool) -> tuple[dict[str, Any], dict[str, Stored]]:
        """Returns what JSON can hold, and the arrays.

        The arrays are tensors that a later step does not change; they are read when they are
        written.
        """
        model = self._model
        self._refuse_unfollowed_flags()  # first, because the state of JAX is in their order
        sync_state(model)
        arrays = {}
        sources = {"model": model.variables, "optimizer": model.optimizer.variables}
        if with_metrics:
            sources["metrics"] = metrics_of(model)
        for source, variables in sources.items():
            for index, variable in enumerate(variables):
                for name, part in _named_parts(source, index, variable):
                    arrays[name] = _stored(part, source == "model")
        schedule = schedule_of(model.optimizer)
        return {
            "flags": _flags(model),
            "schedule": None if schedule is None else schedule.state_dict(),
            "optimizer": _own_state(model.optimizer),
            "stop_training": bool(model.stop_training),
        }, arrays

    def without_frozen(self, arrays: dict[str, Stored]) -> tuple[dict[str, Stored], dict[str, str]]:
        """Leaves out arrays that are those of frozen variables at the beginning of the fit.

        Best weights that a callback keeps contain them as well.

        Returns:
            The arrays to be saved, and the names of variables by the names of the others.
        """
        known: dict[tuple, str] = {}
        for name, digest in self._frozen.items():
            known.setdefault((arrays[name].shape, arrays[name].dtype, digest), name)
        shapes = {key[:2] for key in known}
        kept, left_out = {}, {}
        for name, array in arrays.items():
            key = array.shape, array.dtype
            is_candidate = name in self._frozen or not name.startswith(("model/", "optimizer/"))
            same = None
            if is_candidate and key in shapes and array.size > _SMALL:
                same = known.get((*key, _digest(array.read())))
            if same is None:
                kept[name] = array
            else:
                left_out[name] = same
        return kept, left_out

    def digests(self) -> dict[str, str]:
        """Returns the hashes of the frozen variables at the beginning of the fit."""
        return self._frozen

    def with_frozen(
        self, arrays: Mapping[str, np.ndarray], state: Mapping[str, Any], place: Any
    ) -> dict[str, np.ndarray]:
        """Adds the arrays that `without_frozen` left out, from the variables of the model.

        Raises:
            ModelError: If a frozen variable has other values than in the interrupted run.
        """
        parts = dict(
            named
            for index, variable in enumerate(self._model.variables)
            for named in _named_parts("model", index, variable)
        )
        for name in set(state["left_out"].values()):
            now = self._frozen.get(name) or _digest(_array(parts[name]))
            if now != state["frozen"][name]:
                path = self._model.variables[int(name.split("/")[1])].path
                raise ModelError(
                    f"The run in {place} cannot be continued: the frozen variable {path} has "
                    "other values than in the interrupted run. Begin with the same checkpoint, and "
                    "freeze the same layers before fit."
                )
        return {**arrays, **{n: _array(parts[same]) for n, same in state["left_out"].items()}}

    def load_state_dict(
        self, state: Mapping[str, Any], arrays: Mapping[str, np.ndarray], data: Any
    ) -> None:
        """Sets everything to a state from `state_dict`.

        Args:
            state: What JSON held.
            arrays: The arrays, complete.
            data: `RunningFit.data` to set the metrics as well; else None.
        """
        model = self._model
        _set_flags(model, state["flags"])
        renew_training(model)
        sources = {"model": model.variables, "optimizer": model.optimizer.variables}
        if data is not None:
            build_metrics(model, data)
            sources["metrics"] = metrics_of(model)
        for source, variables in sources.items():
            for index, variable in enumerate(variables):
                for name, part in _named_parts(source, index, variable):
                    part.assign(arrays[name])
        schedule = schedule_of(model.optimizer)
        if schedule is not None and state["schedule"] is not None:
            schedule.load_state_dict(state["schedule"])
        if state["optimizer"] is not None:
            model.optimizer.load_state_dict(state["optimizer"])
        model.stop_training = state["stop_training"]

    def load_weights(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Sets the variables of the model alone, and not those of its random numbers."""
        weights = {id(variable) for variable in self._model.weights}
        for index, variable in enumerate(self._model.variables):
            for name, part in _named_parts("model", index, variable):
                if id(variable) in weights:
                    part.assign(arrays[name])

    def _refuse_unfollowed_flags(self) -> None:
        model = self._model
        optimized = optimized_variables(model.optimizer)
        if [id(v) for v in optimized] != [id(v) for v in model.trainable_variables]:
            raise ModelError(
                "A callback changed `trainable` during the fit, which Keras ignores until the next "
                "one. Add ft.callbacks.FollowTrainable() to the callbacks, after the one that sets "
                "`trainable`."
            )


def _named_parts(source: str, index: int, variable: keras.Variable) -> Iterator[tuple[str, Any]]:
    """Yields what holds the values of a variable, for each device, with its name in a save."""
    for device, part in enumerate(parts_of(variable)):
        yield f"{source}/{index}" + (f"/{device}" if device else ""), part


def _stored(part: Any, must_be_finite: bool) -> Stored:
    tensor = kept_value(part)
    shape, dtype = tuple(tensor.shape), keras.backend.standardize_dtype(tensor.dtype)
    on_device = tensor if keras.backend.backend() == "jax" else None
    return Stored(shape, dtype, lambda: np.asarray(tensor), must_be_finite, on_device)


def _array(part: Any) -> np.ndarray:
    return np.asarray(kept_value(part))


def _bytes(variable: keras.Variable) -> int:
    array = np.empty(0, keras.backend.standardize_dtype(variable.dtype))
    return int(np.prod(variable.shape, dtype="int64")) * array.itemsize


def _digest(array: np.ndarray) -> str:
    # The fastest hash of the standard library that two different arrays never share in practice.
    content = np.ascontiguousarray(array).reshape(-1).view("uint8")
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _flags(model: keras.Model) -> list[bool]:
    flags = [trainable_flag(layer) for layer in all_layers(model)]
    return flags + [bool(variable.trainable) for variable in learnable_variables(model)]


def _set_flags(model: keras.Model, flags: list[bool]) -> None:
    layers, variables = list(all_layers(model)), learnable_variables(model)
    for layer, flag in zip(layers, flags, strict=False):
        set_trainable_flag(layer, flag)
    for variable, flag in zip(variables, flags[len(layers) :], strict=True):
        variable.trainable = flag


def _own_state(optimizer: Any) -> Any:
    """Returns the state that an optimizer has besides its variables, or None."""
    return optimizer.state_dict() if hasattr(optimizer, "state_dict") else None
