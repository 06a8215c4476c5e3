"""What has to be the same for a run to continue exactly, and what differs."""

import json
import platform
import re
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import keras
import numpy as np

from finetune_tf._version import __version__
from finetune_tf.base.adapter_records import adapters_recorded
from finetune_tf.base.arguments import shown
from finetune_tf.base.keras_fits import RunningFit
from finetune_tf.base.keras_internals import all_layers, compiled_with
from finetune_tf.errors import ModelError

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_COUNT = re.compile(r"_\d+$")
_PACKAGES = {"tensorflow": ("tensorflow", "keras", "numpy"), "jax": ("jax", "keras", "numpy")}

_ADVICE = {
    "epochs": "With another number of epochs, the learning rates of all steps would be others. "
    "Finish this run, and train its final weights in another folder: "
    "ft.callbacks.Resume(folder).load_weights(model).",
    "data": "The rows, their order and the batch size have to be those of the interrupted run.",
    "backend": "Backends round differently. Set KERAS_BACKEND as in the interrupted run.",
    "versions": "Other versions may compute other numbers. Install those of the interrupted run.",
}
_USUAL_ADVICE = "Use the same settings as before to continue it, or another folder to start anew."


def settings_of(fit: RunningFit, callbacks: Iterable[Any], data: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings of a fit that decide its results, as JSON can hold them.

    Args:
        fit: The fit, before its first epoch.
        callbacks: The callbacks whose state is saved.
        data: The fingerprint of the data.
    """
    model = fit.model
    weights = getattr(model, "_train_class_weights", None)  # our models give Keras none
    backend = keras.backend.backend()
    settings = {
        "backend": backend,
        "versions": {"finetune_tf": __version__, "python": platform.python_version()}
        | {name: _version(name) for name in _PACKAGES[backend]},
        "epochs": fit.epochs,
        "initial_epoch": fit.initial_epoch,
        "data": data,
        "devices": _devices(model),
        "optimizer": _config(model.optimizer),
        "loss": _config(compiled_with(model, "loss")),
        "loss_weights": compiled_with(model, "loss_weights"),
        "objectives": [
            {"class": type(each).__name__, **each.settings()}
            for each in getattr(model, "objectives", ())
        ],
        "metrics": _config(compiled_with(model, "metrics")),
        "steps_per_execution": model.steps_per_execution,
        "jit_compile": model.jit_compile,
        "class_weight": fit.class_weight if weights is None else np.asarray(weights).tolist(),
        "layers": [[type(layer).__name__, _config(layer)] for layer in all_layers(model)][1:],
        "variables": [[list(v.shape), v.dtype] for v in model.variables],
        "callbacks": [[type(callback).__name__, _settings(callback)] for callback in callbacks],
    }
    return _normal(json.loads(json.dumps(settings, default=str)))


def require_same(saved: dict[str, Any], now: dict[str, Any], place: Any) -> None:
    """Refuses to continue a run with other settings.

    Args:
        saved: The settings of the interrupted run.
        now: The settings of this one.
        place: The folder of the run, for the message.

    Raises:
        ModelError: If a setting differs; the message names it with both values.
    """
    for name in now:
        difference = _difference(saved.get(name), now[name], name)
        if difference is not None:
            path, before, after = difference
            raise ModelError(
                f"The run in {place} cannot be continued: {path} was {shown(before)} and is "
                f"{shown(after)} now. {_ADVICE.get(name, _USUAL_ADVICE)}"
            )


def _difference(saved: Any, now: Any, path: str) -> tuple[str, Any, Any] | None:
    """Returns the path and both values of the first difference, or None."""
    if isinstance(saved, dict) and isinstance(now, dict):
        for name in [*now, *(name for name in saved if name not in now)]:
            found = _difference(saved.get(name), now.get(name), f"{path}: {name}")
            if found is not None:
                return found
        return None
    is_list = isinstance(saved, list) and isinstance(now, list)
    if is_list and len(saved) == len(now) and any(isinstance(i, list | dict) for i in now):
        for place, (before, after) in enumerate(zip(saved, now, strict=True)):
            if (found := _difference(before, after, f"{path}: {place}")) is not None:
                return found
        return None
    return None if saved == now else (path, saved, now)


def _config(part: Any) -> Any:
    """Returns the config of a layer, an optimizer, a loss or a structure of these."""
    if isinstance(part, dict):
        return {name: _config(value) for name, value in part.items()}
    if isinstance(part, list | tuple):
        return [_config(value) for value in part]
    if part is None or isinstance(part, str | int | float):
        return part
    config = {}
    if hasattr(part, "get_config"):
        try:
            with adapters_recorded():  # their variables are compared
                config = dict(part.get_config())
        except (NotImplementedError, ValueError, TypeError):  # of a class that cannot be saved
            config = {}
    config.pop("state_memory", None)  # where the moments of an optimizer are changes no number
    name = getattr(part, "__name__", type(part).__name__)
    return {"class": name, **config} if not isinstance(part, keras.layers.Layer) else config


def _settings(callback: Any) -> dict[str, Any]:
    """Returns what decides how a callback of Keras or of this library changes a fit.

    Of one of Keras's, these are the numbers among its attributes, such as `patience`, and what it
    monitors; one of this library says it itself.
    """
    module = type(callback).__module__
    if module.startswith("finetune_tf."):
        return callback.settings() if hasattr(callback, "settings") else {}
    if not module.startswith("keras."):
        return {}
    return {
        name: value
        for name, value in vars(callback).items()
        if (type(value) in (bool, int, float) and not name.startswith("_"))
        or (name == "monitor" and isinstance(value, str))
    }


def _normal(value: Any, name: str = "") -> Any:
    """Removes what differs between two runs of one script: addresses, counts in names, states."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if not (k == "state" and name == "learning_rate")}
        kept = {k: v for k, v in kept.items() if k != "trainable"}  # is restored
        return {k: _normal(v, k if k != "config" else name) for k, v in kept.items()}
    if isinstance(value, list):
        return [_normal(item, name) for item in value]
    if isinstance(value, str):
        return _COUNT.sub("", value) if name == "name" else _ADDRESS.sub("", value)
    return value


def _devices(model: keras.Model) -> int:
    """Returns how many devices share a batch or the weights."""
    strategy = getattr(model, "distribute_strategy", None)  # TensorFlow has it, JAX does not
    if strategy is not None:
        return strategy.num_replicas_in_sync
    distribution = keras.distribution.distribution()
    return 1 if distribution is None else distribution.device_mesh.devices.size


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # as a build under another name, such as tensorflow-cpu
        return None
