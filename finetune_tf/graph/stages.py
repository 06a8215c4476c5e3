"""Stages: any Functional Keras model as an ordered list of weighted pieces.

Where a model is cut is said in `finetune_tf.graph.pieces`, what the pieces are for in
`finetune_tf.graph.roles`. Residual blocks stay whole, whatever their layers are called.
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
    """A piece of a model between two cuts.

    Attributes:
        name: Of the layer, or what the names of its layers have in common. Of a stage in a chain
            it is "chain/name".
        layers: The weighted layers inside, in order.
        role: "embeddings", "block", "norm" (after the last block), "pooler" (what the checkpoint
            trained between the blocks and the output layer) or "head". Several stages may share
            one.
        chain: The name of the chain that it is a part of, such as "encoder" or "text"; empty in a
            model that is one chain as a whole.
    """

    name: str
    layers: tuple[keras.layers.Layer, ...]
    role: Role
    chain: str = ""

    @property
    def variables(self) -> list[keras.Variable]:
        """Every variable that can learn, frozen or not."""
        return [variable for layer in self.layers for variable in learnable_variables(layer)]


def require_model(model: Any) -> None:
    """Refuses what is no Keras model.

    Raises:
        ModelError: If it is something else.
    """
    if not isinstance(model, keras.Model):
        raise ModelError(f"A Keras model is needed, such as ft.load gives, found {shown(model)}.")


def require_task(model: Any) -> Any:
    """Returns the model if it knows its task and labels.

    Raises:
        ModelError: If not.
    """
    if not (hasattr(model, "task") and hasattr(model, "labels")):
        raise ModelError(
            f"Expected a model that knows its task and labels, as finetune_tf.load gives it; "
            f"found {type(model).__name__}."
        )
    return model


@names_checked
def stages(model: keras.Model) -> list[Stage]:
    """The stages of a model, from its inputs to its outputs.

    Works on models of finetune_tf and on any other built Keras model: Functional and
    Sequential ones are cut as `finetune_tf.graph.pieces` describes, models inside a model are
    opened, and of a subclassed model each weighted layer is a stage.

    Args:
        model: A built Keras model.

    Returns:
        At least one stage. Layers of finetune_tf declare their roles, and its models know their
        head: the layers that no checkpoint has trained. Of others, what looks up tokens or cuts
        pictures into patches at the bottom is "embeddings", with what normalises and projects
        them; "head" is what lies outside of `model.backbone`, as KerasHub calls it, or without one
        the last stage if it is made of Dense layers alone. Where a model has several chains
        (encoder and decoder, two towers), the stages of one come after those of another.

    Raises:
        ModelError: If the model has no weights yet.
    """
    require_model(model)
    parts = _drop_unweighted(_parts(model))
    if not parts:
        raise ModelError(
            f"The model {model.name!r} has no weights yet, so it has no stages. "
            "Build it first: call it on one batch."
        )
    result: list[Stage] = []
    for (chain, layers), role in zip(parts, roles_of(model, parts), strict=True):
        name = _unique(_name_in_chain(layers, chain), result)
        result.append(Stage(name, tuple(layers), role, chain))
    return result


def _parts(model: keras.Model, chain: str = "") -> list[Part]:
    """Layers between cuts, unweighted pieces included; models inside the model are opened."""
    graph = graph_of(model)
    if graph is None:
        return [(chain, [layer]) for layer in model.layers]
    parts: list[Part] = []
    for piece in pieces(graph):
        layers, inner = list(piece.layers), "/".join(filter(None, (chain, piece.chain)))
        if len(layers) == 1 and isinstance(layers[0], keras.Model):
            parts += _parts(layers[0], inner)
        else:
            parts.append((inner, layers))
    return parts


def _drop_unweighted(parts: Iterable[Part]) -> list[Part]:
    """Keeps what can learn, each shared layer at its first place."""
    seen: set[int] = set()
    kept: list[Part] = []
    carried: list[keras.layers.Layer] = []  # such a layer is a part of the stage that follows it
    for chain, layers in parts:
        fresh = [layer for layer in layers if learnable_variables(layer) and id(layer) not in seen]
        seen.update(id(layer) for layer in fresh)
        if all(getattr(layer, "carried", False) for layer in fresh):
            carried += fresh
        else:
            kept.append((chain, carried + fresh))
            carried = []
    return [*kept, (chain, carried)] if carried else kept


def _name_in_chain(layers: list[keras.layers.Layer], chain: str) -> str:
    name = _common_name(layers)
    # In one graph, names of layers differ, so those of a chain often begin with its name.
    return f"{chain}/{name.removeprefix(f'{chain}_')}" if chain else name


def _common_name(layers: list[keras.layers.Layer]) -> str:
    layers = [layer for layer in layers if not getattr(layer, "carried", False)] or layers
    if len(layers) == 1:
        return layers[0].name
    return os.path.commonprefix([layer.name for layer in layers]).rstrip("_-./") or layers[0].name


def _unique(name: str, before: list[Stage]) -> str:
    taken = {stage.name for stage in before}
    candidates = (name if i == 0 else f"{name}_{i}" for i in range(len(taken) + 1))
    return next(candidate for candidate in candidates if candidate not in taken)
