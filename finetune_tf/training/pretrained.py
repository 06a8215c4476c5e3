"""Which variables are pretrained: those that `load` filled from the checkpoint."""

from collections.abc import Iterable

import keras

from finetune_tf.base.keras_internals import all_layers
from finetune_tf.graph.pieces import learnable_variables
from finetune_tf.graph.stages import stages


def learns_pretrained(model: keras.Model) -> bool:
    """Returns whether a pretrained variable below the head is trainable."""
    return bool(learning_pretrained(model))


def learning_pretrained(model: keras.Model) -> list[keras.Variable]:
    """Returns the pretrained variables below the head that are trainable.

    A model from `load`, even inside of another model, records which of its variables the checkpoint
    filled (`ModelInfo.pretrained`). All others are new, such as an adapter inside a pretrained
    block or additional layers on top. Without such a record, and in a model that is trained from
    scratch, all variables below the head count as pretrained.
    """
    filled = _filled_by_load(model)
    adapters = {id(v) for part in _adapters_in(model) for v in learnable_variables(part)}
    return [
        variable
        for stage in stages(model)
        if stage.role != "head"
        for variable in stage.variables
        if variable.trainable
        and id(variable) not in adapters
        and (not filled or id(variable) in filled)
    ]


def rate_of_adapters(model: keras.Model) -> float | None:
    """Returns the lowest usual learning rate of the trainable adapters; None if there are none."""
    rates = [
        part.usual_rate
        for part in _adapters_in(model)
        if any(variable.trainable for variable in learnable_variables(part))
    ]
    return min(rates, default=None)


def _adapters_in(model: keras.Model) -> list[keras.layers.Layer]:
    return [part for part in all_layers(model) if hasattr(part, "adapter_name")]


def pretrained_ids(model: keras.Model) -> set[int]:
    """Returns the ids of the pretrained variables of a model; see `learns_pretrained`."""
    if filled := _filled_by_load(model):
        return filled
    below = [stage for stage in stages(model) if stage.role != "head"]
    return {id(variable) for stage in below for variable in stage.variables}


def is_from_scratch(model: keras.Model) -> bool:
    """Returns whether `load` created the model from a config, without any trained weights."""
    infos = [getattr(part, "info", None) for part in all_layers(model)]
    records = [getattr(info, "pretrained", None) for info in infos if info is not None]
    return bool(records) and all(record == () for record in records)


def _filled_by_load(model: keras.Model) -> set[int]:
    found: set[int] = set()
    for part in all_layers(model):
        if paths := set(getattr(getattr(part, "info", None), "pretrained", None) or ()):
            found.update(id(v) for v in learnable_variables(part) if v.path in paths)
    return found


def remember_changed(model: keras.Model, variables: Iterable[keras.Variable]) -> None:
    """Records that pretrained variables have other values than in the checkpoint of a model.

    An adapter that is saved later belongs to the new values.

    Args:
        model: A model; nothing is recorded unless `load` filled it from a checkpoint.
        variables: Its variables that were trained, or replaced.
    """
    info = getattr(model, "info", None)
    if info is not None and info.pretrained:
        changed = {variable.path for variable in variables} & set(info.pretrained)
        known = info.record.get("changed", [])
        if new := sorted(changed - set(known)):
            info.record["changed"] = [*known, *new]
