"""Stages: any Functional Keras model as an ordered list of weighted pieces.

A model is cut wherever one single tensor carries everything from below to above. What is
computed from the inputs without a weight (a mask, position numbers) can be had again on the
other side of a cut, so it does not count. Residual blocks therefore stay whole, whatever
their layers are called.

A layer of ours that only says where tokens stand (`is_positional`) has weights, but gives the same
for every text of a length: it counts as part of the first stage, and what it gives is free.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import keras

from finetune_tf.arguments import shown
from finetune_tf.errors import ModelError
from finetune_tf.spelling import names_checked

Role = Literal["embeddings", "block", "norm", "pooler", "head"]


@dataclass(frozen=True)
class Stage:
    """A piece of a model between two cuts.

    Attributes:
        name: Of the layer, or what the names of its layers have in common.
        layers: The weighted layers inside, in order.
        role: "embeddings", "block", "norm" (after the last block), "pooler" (what the checkpoint
            trained between the blocks and the output layer) or "head". Several stages may share
            one.
    """

    name: str
    layers: tuple[keras.layers.Layer, ...]
    role: Role

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
    Sequential ones are cut as the module describes, models inside a model are opened, and of
    a subclassed model each weighted layer is a stage.

    Args:
        model: A built Keras model.

    Returns:
        At least one stage. Models of finetune_tf know their head: the layers that no checkpoint
        has trained. Of others, what looks up tokens at the bottom is "embeddings", with what
        normalises and projects them; "head" is what lies outside of `model.backbone`, as KerasHub
        calls it, or without one the last stage if it is made of Dense layers alone.

    Raises:
        ModelError: If the model has no weights yet.
    """
    require_model(model)
    pieces = _drop_unweighted(_pieces(model))
    if not pieces:
        raise ModelError(
            f"The model {model.name!r} has no weights yet, so it has no stages. "
            "Build it first: call it on one batch."
        )
    declared = getattr(getattr(model, "info", None), "head_layers", None)
    if declared is None:
        roles = _guessed_roles(model, pieces)
    else:
        roles = [_declared_role(layers, declared) for layers in pieces]
        if any(_looks_up_tokens(layer) for layer in pieces[0]):
            roles[0] = "embeddings"
    result: list[Stage] = []
    for layers, role in zip(pieces, roles, strict=True):
        result.append(Stage(_unique(_common_name(layers), result), tuple(layers), role))
    return result


def _declared_role(layers: list[keras.layers.Layer], head_layers: tuple[str, ...]) -> Role:
    """Of a model of ours, which knows its head and names its other layers after their role."""
    if any(layer.name in head_layers for layer in layers):
        return "head"
    # Below its output layer, ModernBERT has the same "transform" on tokens as on a pooled text.
    roles = {"final_norm": "norm", "pooler": "pooler", "transform": "pooler"}
    return roles.get(layers[-1].name, "block")


def _guessed_roles(model: keras.Model, pieces: list[list[keras.layers.Layer]]) -> list[Role]:
    """Of a model that says nothing of itself."""
    roles: list[Role] = ["block"] * len(pieces)
    last = len(pieces) - 1
    backbone = getattr(model, "backbone", None)
    if isinstance(backbone, keras.Model):
        inside = {id(layer) for layer in walk(backbone)}
        roles = ["head" if inside.isdisjoint(map(id, piece)) else "block" for piece in pieces]
    elif last and all(map(_is_dense, pieces[last])) and _role_on_top(pieces[last]) == "block":
        roles[last] = "head"

    if any(map(_looks_up_tokens, pieces[0])):
        roles[0] = "embeddings"
        for i in range(1, last):
            if roles[i] == "head" or not all(map(_is_of_embeddings, pieces[i])):
                break
            roles[i] = "embeddings"

    for i in reversed(range(len(pieces))):
        if roles[i] == "block":
            roles[i] = _role_on_top(pieces[i])
        if roles[i] in ("block", "embeddings"):
            break
    return roles


def _role_on_top(layers: list[keras.layers.Layer]) -> Role:
    """Of what may stand between the last block and the head."""
    if all(_is_dense(layer) and "pool" in layer.name for layer in layers):
        return "pooler"
    # A normalisation over batches belongs to the convolution before it.
    rows = all(is_normalization(layer) and "Batch" not in type(layer).__name__ for layer in layers)
    return "norm" if rows else "block"


def learnable_variables(layer: keras.layers.Layer) -> list[keras.Variable]:
    """Variables of a layer that were made to learn, whether or not they are frozen now.

    Moving statistics and random seeds are not among them.
    """
    found: dict[int, keras.Variable] = {}
    for part in walk(layer):
        # Keras keeps no public record of what a variable was made for: `trainable` is what
        # freezing changes, this list is not.
        for variable in part._trainable_variables:
            found.setdefault(id(variable), variable)
    return list(found.values())


def walk(layer: keras.layers.Layer) -> Iterator[keras.layers.Layer]:
    """The layer and all layers inside it, outer ones first."""
    yield layer
    for child in layer._layers:
        yield from walk(child)


def _pieces(model: keras.Model) -> list[list[keras.layers.Layer]]:
    """Layers between cuts, unweighted pieces included."""
    graph = _graph_of(model)
    if graph is None:
        return [[layer] for layer in model.layers]
    return [inner for cut in cuts(graph) for inner in _opened(list(cut.layers))]


@dataclass(frozen=True)
class Cut:
    """A place where one tensor carries everything from below to above.

    Attributes:
        layers: The weighted layers between the cut before and this one; may be none.
        tensor: What crosses it; None above the last layer, where the model has several outputs.
    """

    layers: tuple[keras.layers.Layer, ...]
    tensor: Any


def cuts(model: keras.Model) -> list[Cut]:
    """Every place where a Functional model can be cut, from its inputs to its outputs."""
    require_model(model)
    nodes = ordered_nodes(model)
    readers: dict[int, int] = {}  # how often a tensor is still to be read
    for node in nodes:
        for tensor in node.input_tensors:
            readers[id(tensor)] = readers.get(id(tensor), 0) + 1
    for tensor in model.outputs:
        readers[id(tensor)] = readers.get(id(tensor), 0) + 1

    free: set[int] = set()
    positional: list[keras.layers.Layer] = []
    waiting: dict[int, Any] = {}
    found: list[Cut] = []
    current: list[keras.layers.Layer] = []
    for node in nodes:
        layer = node.operation
        weighted = isinstance(layer, keras.layers.Layer) and bool(layer.weights)
        if weighted and getattr(layer, "is_positional", False):
            positional.append(layer)
            weighted = False
        if not weighted and all(id(tensor) in free for tensor in node.input_tensors):
            free.update(id(tensor) for tensor in node.output_tensors)
            continue
        for tensor in node.input_tensors:
            readers[id(tensor)] -= 1
            if not readers[id(tensor)]:
                waiting.pop(id(tensor), None)
        waiting |= {id(tensor): tensor for tensor in node.output_tensors if readers.get(id(tensor))}
        if weighted and layer not in current:
            current.append(layer)
        if len(waiting) == 1:
            found.append(Cut(tuple(current), *waiting.values()))
            current = []
    if current:
        found.append(Cut(tuple(current), None))
    if positional and found:
        i = next(i for i, cut in enumerate(found) if cut.layers)
        found[i] = Cut((*found[i].layers, *positional), found[i].tensor)
    return found


def ordered_nodes(model: keras.Model) -> list[Any]:
    """The calls that a Functional model consists of, each behind those that it depends on."""
    by_depth = model._nodes_by_depth
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]


def _opened(piece: list[keras.layers.Layer]) -> list[list[keras.layers.Layer]]:
    """The piece itself, or the pieces of the model that it consists of."""
    if len(piece) == 1 and isinstance(piece[0], keras.Model):
        return _pieces(piece[0])
    return [piece]


def _graph_of(model: keras.Model) -> Any:
    """The Functional graph of a model, or None where it has none."""
    if isinstance(model, keras.Sequential):
        return model._functional
    return model if hasattr(model, "_nodes_by_depth") else None


def _drop_unweighted(pieces: Iterable[list[keras.layers.Layer]]) -> list[list]:
    """Keeps what can learn, each shared layer at its first place."""
    seen: set[int] = set()
    kept = []
    for piece in pieces:
        fresh = [layer for layer in piece if learnable_variables(layer) and id(layer) not in seen]
        seen.update(id(layer) for layer in fresh)
        if fresh:
            kept.append(fresh)
    return kept


def _common_name(layers: list[keras.layers.Layer]) -> str:
    layers = [layer for layer in layers if not getattr(layer, "is_positional", False)]
    if len(layers) == 1:
        return layers[0].name
    return os.path.commonprefix([layer.name for layer in layers]).rstrip("_-./") or layers[0].name


def _unique(name: str, before: list[Stage]) -> str:
    taken = {stage.name for stage in before}
    candidates = (name if i == 0 else f"{name}_{i}" for i in range(len(taken) + 1))
    return next(candidate for candidate in candidates if candidate not in taken)


def _looks_up_tokens(layer: keras.layers.Layer) -> bool:
    return any(isinstance(part, keras.layers.Embedding) for part in walk(layer))


def _is_dense(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, keras.layers.Dense | keras.layers.EinsumDense)


def is_normalization(layer: keras.layers.Layer) -> bool:
    """Whether a layer is a normalisation of any kind, by the name of its class."""
    return any(name in type(layer).__name__ for name in ("LayerNorm", "Normalization"))


def _is_of_embeddings(layer: keras.layers.Layer) -> bool:
    projects = _is_dense(layer) and "embed" in layer.name
    return projects or is_normalization(layer) or "Embedding" in type(layer).__name__
