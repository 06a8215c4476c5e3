"""Stages: any Functional Keras model as an ordered list of weighted pieces.

`finetune_tf.graph.pieces` defines where a model is cut, and `finetune_tf.graph.roles` defines the
roles of the pieces. A residual block is never cut, whatever the names of its layers are.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import keras

from finetune_tf.base.arguments import shown
from finetune_tf.base.keras_internals import graph_of
from finetune_tf.base.spelling import names_checked
from finetune_tf.errors import ModelError
from finetune_tf.graph.pieces import learnable_variables, pieces
from finetune_tf.graph.roles import Part, Role, roles_of


@dataclass(frozen=True)
class Stage:
    """A part of a model that is frozen, trained and selected as a unit; `stages` returns them.

    Attributes:
        name: The name of its layer, or the common prefix of the names of its layers; "chain/name"
            for a stage in a named chain.
        layers: The layers with weights, in order.
        role: "embeddings", "block", "norm" (a normalisation after the last block), "pooler" (layers
            between the blocks and the output layer that the checkpoint has trained) or "head".
            Several stages may have the same role.
        chain: The name of the chain that it belongs to, such as "encoder" or "text"; empty in a
            model that is a single chain.

    Example:
        >>> stage = ft.stages(model)[0]
        >>> stage.name, stage.role, len(stage.variables)
        ('embeddings', 'embeddings', 5)
    """

    name: str
    layers: tuple[keras.layers.Layer, ...]
    role: Role
    chain: str = ""

    @property
    def variables(self) -> list[keras.Variable]:
        """All variables that can be trained, including those that are frozen now."""
        return [variable for layer in self.layers for variable in learnable_variables(layer)]


def require_model(model: Any) -> None:
    """Checks that an argument is a Keras model.

    Raises:
        ModelError: If it is something else.
    """
    if not isinstance(model, keras.Model):
        raise ModelError(f"Expected a Keras model, for example from ft.load, found {shown(model)}.")


def require_task(model: Any) -> Any:
    """Checks that a model has a task and labels, and returns it.

    Raises:
        ModelError: If it does not.
    """
    if not (hasattr(model, "task") and hasattr(model, "labels")):
        raise ModelError(
            f"Expected a model with a task and labels, as returned by ft.load, "
            f"found {type(model).__name__}."
        )
    return model


@names_checked
def stages(model: keras.Model) -> list[Stage]:
    """Returns the stages of a model, from its inputs to its outputs.

    The model may be from `load` or any other built Keras model. Functional and Sequential models,
    including the models inside of them, are cut as `finetune_tf.graph.pieces` describes. In a
    subclassed model, each layer with weights is a stage.

    The layers of finetune_tf declare their roles, and its models declare as head the layers that no
    checkpoint has trained. For other models roles are guessed: "embeddings" are the token or patch
    embeddings at the bottom with their normalisations and projections; "head" is what is outside of
    `model.backbone` (the name in KerasHub), or the last stage if it consists only of Dense layers.

    Args:
        model: A built Keras model.

    Returns:
        At least one stage. In a model with several chains (encoder and decoder, two towers), the
        stages of each chain are consecutive.

    Raises:
        ModelError: If `model` is not a Keras model or has no weights yet.

    Example:
        >>> [stage.name for stage in ft.stages(model)]
        ['embeddings', 'block_0', 'block_1', 'pooler', 'classifier']
    """
    require_model(model)
    parts = _drop_unweighted(_layers_of_pieces(model))
    if not parts:
        raise ModelError(
            f"The model {model.name!r} has no weights yet, so it has no stages. "
            "Build it first: call it on one batch."
        )
    result: list[Stage] = []
    for (chain, layers), role in zip(parts, roles_of(model, parts), strict=True):
        name = _unique_name(_name_in_chain(layers, chain), result)
        result.append(Stage(name, tuple(layers), role, chain))
    return result


def _layers_of_pieces(model: keras.Model, chain: str = "") -> list[Part]:
    """Returns the layers of each piece, without weights too; inner models are cut as well."""
    graph = graph_of(model)
    if graph is None:
        return [(chain, [layer]) for layer in model.layers]
    parts: list[Part] = []
    for piece in pieces(graph):
        layers, inner = list(piece.layers), "/".join(filter(None, (chain, piece.chain)))
        if len(layers) == 1 and isinstance(layers[0], keras.Model):
            parts += _layers_of_pieces(layers[0], inner)
        else:
            parts.append((inner, layers))
    return parts


def _drop_unweighted(parts: Iterable[Part]) -> list[Part]:
    """Drops layers without trainable variables and all but the first use of shared layers."""
    seen: set[int] = set()
    remaining: list[Part] = []
    carried: list[keras.layers.Layer] = []  # carried layers belong to the stage that follows them
    for chain, layers in parts:
        new_layers = [
            layer for layer in layers if learnable_variables(layer) and id(layer) not in seen
        ]
        seen.update(id(layer) for layer in new_layers)
        if all(getattr(layer, "carried", False) for layer in new_layers):
            carried += new_layers
        else:
            remaining.append((chain, carried + new_layers))
            carried = []
    return [*remaining, (chain, carried)] if carried else remaining


def _name_in_chain(layers: list[keras.layers.Layer], chain: str) -> str:
    name = _common_name(layers)
    # Names of layers are unique in a graph, so those of a chain often begin with its name.
    return f"{chain}/{name.removeprefix(f'{chain}_')}" if chain else name


def _common_name(layers: list[keras.layers.Layer]) -> str:
    layers = [layer for layer in layers if not getattr(layer, "carried", False)] or layers
    if len(layers) == 1:
        return layers[0].name
    return os.path.commonprefix([layer.name for layer in layers]).rstrip("_-./") or layers[0].name


def _unique_name(name: str, stages_before: list[Stage]) -> str:
    taken = {stage.name for stage in stages_before}
    candidates = (name if i == 0 else f"{name}_{i}" for i in range(len(taken) + 1))
    return next(candidate for candidate in candidates if candidate not in taken)
