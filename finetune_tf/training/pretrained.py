"""What somebody has trained before, known by variable: what a load filled, see `ModelInfo`."""

import keras

from finetune_tf.base.keras_internals import all_layers
from finetune_tf.graph.pieces import learnable_variables
from finetune_tf.graph.stages import stages


def learns_pretrained(model: keras.Model) -> bool:
    """Whether a variable below the head learns that somebody has trained before.

    A model from `load`, alone or inside of another one, knows which of its variables the checkpoint
    filled. All others are new: an adapter inside a pretrained block, layers on top. Where nothing
    is known, and in a model that is trained from scratch as a whole, what stands below the head is
    treated as if it was pretrained.
    """
    filled = _filled_by_load(model)
    return any(
        variable.trainable and (not filled or id(variable) in filled)
        for stage in stages(model)
        if stage.role != "head"
        for variable in stage.variables
    )


def _filled_by_load(model: keras.Model) -> set[int]:
    found: set[int] = set()
    for part in all_layers(model):
        if paths := set(getattr(getattr(part, "info", None), "pretrained", None) or ()):
            found.update(id(v) for v in learnable_variables(part) if v.path in paths)
    return found
