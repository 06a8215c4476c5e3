"""Which variables are pretrained: those that `load` filled from the checkpoint."""

import keras

from finetune_tf.base.keras_internals import all_layers
from finetune_tf.graph.pieces import learnable_variables
from finetune_tf.graph.stages import stages


def learns_pretrained(model: keras.Model) -> bool:
    """Returns whether a pretrained variable below the head is trainable.

    A model from `load`, even inside of another model, records which of its variables the checkpoint
    filled (`ModelInfo.pretrained`). All others are new, such as an adapter inside a pretrained
    block, additional layers on top, or all variables of a model that was made from a config.
    Without such a record, all variables below the head count as pretrained.
    """
    filled = _filled_by_load(model)
    return any(
        variable.trainable and (filled is None or id(variable) in filled)
        for stage in stages(model)
        if stage.role != "head"
        for variable in stage.variables
    )


def _filled_by_load(model: keras.Model) -> set[int] | None:
    """Returns the ids of the variables that a checkpoint filled, or None without any record."""
    found: set[int] | None = None
    for part in all_layers(model):
        paths = getattr(getattr(part, "info", None), "pretrained", None)
        if paths is not None:
            paths, found = set(paths), found or set()
            found.update(id(v) for v in learnable_variables(part) if v.path in paths)
    return found
