"""A model in two: what nothing can change, and what learns above it; both share its weights."""

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import keras

from finetune_tf.base.keras_internals import graph_of
from finetune_tf.errors import CacheError
from finetune_tf.graph.pieces import Piece, learns, ordered_nodes, pieces

FEATURES = "cached_features"  # the input of the upper part that takes what was cached


@dataclass(frozen=True)
class SplitModel:
    """A model in two.

    Attributes:
        trunk: From the model's inputs to the tensors that are stored, a dict by name:
            "cached_features", and "cached_features_1" and so on where there are several. Nothing in
            it learns.
        inputs: Symbolic inputs of the upper half by name: the stored tensors, and those of the
            model's inputs that are needed above the trunk.
        outputs: Symbolic outputs of the upper half, in the structure of the model's.
        blocking: Names of layers that learn and are used in several places, so that frozen stages
            which read them cannot be a part of the trunk.
    """

    trunk: keras.Model
    inputs: dict[str, Any]
    outputs: Any
    blocking: tuple[str, ...]


def split_model(model: keras.Model) -> SplitModel:
    """Cuts a Functional model above the stages whose output no training step can change.

    A stage belongs to the trunk if nothing in it learns and all that it reads comes from the trunk.
    So each chain is cut by itself: one tower of two, or an encoder below a decoder that learns.
    What has no weights, such as an average over tokens, goes with the stage below it: a text that
    is pooled there is stored as one vector.

    Args:
        model: A Functional or Sequential model.

    Raises:
        CacheError: If the lowest stages learn, nothing does, or the model has no graph.
    """
    graph = graph_of(model)
    if graph is None:
        raise CacheError(
            f"The model {model.name!r} is no Functional model, so it cannot be cut and its "
            "features cannot be stored. Train the whole model."
        )
    graph = _with_inner_halves(graph)
    parts = pieces(graph)
    if not any(learns(layer) for part in parts for layer in part.layers):
        raise CacheError("Nothing in the model learns, so there is nothing to train on features.")
    fixed, rest = _divided(parts)
    crossing = _crossing(fixed, [*(t for part in rest for t in part.inputs), *graph.outputs])
    blocking = _blocking(rest)
    if not crossing:
        tied = f" ({', '.join(blocking)}, used in several places)" if blocking else ""
        raise CacheError(
            f"The lowest stage of the model learns{tied}, so every step changes all features and "
            "none can be stored. Freeze stages from below first, for example with "
            "ft.train_only(model, ft.select.head())."
        )
    stored = {f"{FEATURES}_{i}" if i else FEATURES: tensor for i, tensor in enumerate(crossing)}
    below = {given.name: given for given in graph.inputs}
    trunk = keras.Model(below, stored, name=f"{model.name}_trunk")
    return SplitModel(trunk, *_above(graph, stored), blocking)


def _with_inner_halves(model: keras.Model) -> keras.Model:
    """The same graph, in which a model inside that can be cut stands as its two halves."""
    nodes = ordered_nodes(model)
    inner: dict[int, SplitModel] = {}
    for node in nodes:
        if isinstance(node.operation, keras.Model) and graph_of(node.operation) is not None:
            with contextlib.suppress(CacheError):  # it is frozen as a whole, or learns as a whole
                inner[id(node)] = split_model(node.operation)
    if not inner:
        return model
    known = {id(tensor): tensor for tensor in model.inputs}

    def call(node: Any, arguments: tuple, options: dict) -> Any:
        if id(node) in inner:
            return _call_halves(inner[id(node)], node.operation, arguments[0])
        return _call(node, arguments, options)

    outputs = _computed(model, [node for node in nodes if node.input_tensors], known, call)
    return keras.Model(model.input, outputs, name=model.name)


def _call_halves(cut: SplitModel, model: keras.Model, inputs: Any) -> Any:
    """What a model gives, computed by its trunk and its upper half one after the other."""
    names = [tensor.name for tensor in graph_of(model).inputs]
    given = dict(zip(names, keras.tree.flatten(inputs), strict=True))
    given |= cut.trunk({tensor.name: given[tensor.name] for tensor in cut.trunk.inputs})
    upper = keras.Model(cut.inputs, cut.outputs, name=model.name)
    upper.ends_chain = True  # as the model that it is the upper half of
    return upper({name: given[name] for name in cut.inputs})


def _divided(parts: list[Piece]) -> tuple[list[Piece], list[Piece]]:
    """The pieces that no step can change, and the others."""
    fixed, rest, known = [], [], set()
    for part in parts:
        if any(map(learns, part.layers)) or any(id(tensor) not in known for tensor in part.inputs):
            rest.append(part)
        else:
            fixed.append(part)
            known.update(id(tensor) for tensor in part.outputs)
    return fixed, rest


def _crossing(fixed: list[Piece], wanted: list[Any]) -> list[Any]:
    """Which tensors to store, so that those which are wanted from the trunk can be had of them.

    What has no axis for rows in front, such as a table of relative positions, is computed again.
    """
    makers = {id(tensor): part for part in fixed for tensor in part.outputs}
    pending, kept = list(wanted), set()
    while pending:
        tensor = pending.pop()
        if id(tensor) in makers and tensor.shape[0] is None:
            kept.add(id(tensor))
        elif id(tensor) in makers:
            pending += makers[id(tensor)].inputs
    return [tensor for part in fixed for tensor in part.outputs if id(tensor) in kept]


def _blocking(rest: list[Piece]) -> tuple[str, ...]:
    """Layers that learn and are used in several pieces, where there are frozen ones above them."""
    used: dict[int, list[keras.layers.Layer]] = {}
    for part in rest:
        for layer in part.layers:
            used.setdefault(id(layer), []).append(layer)
    frozen = any(part.layers and not any(map(learns, part.layers)) for part in rest)
    tied = [found[0].name for found in used.values() if len(found) > 1 and learns(found[0])]
    return tuple(tied) if frozen else ()


def _above(model: keras.Model, stored: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Calls the layers above some tensors once more, on inputs that take their places."""
    inputs = {
        name: keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=name)
        for name, tensor in stored.items()
    }
    known = {id(tensor): inputs[name] for name, tensor in stored.items()}
    wanted = {id(tensor) for tensor in model.outputs} - known.keys()
    above = []
    for node in reversed(ordered_nodes(model)):
        if wanted.isdisjoint(map(id, node.output_tensors)):
            continue
        if node.input_tensors:
            above.append(node)
            wanted |= {id(tensor) for tensor in node.input_tensors} - known.keys()
        else:  # one of the model's inputs
            (given,) = node.output_tensors
            inputs[given.name] = known[id(given)] = given
    return inputs, _computed(model, above[::-1], known, _call)


def _call(node: Any, arguments: tuple, options: dict) -> Any:
    return node.operation(*arguments, **options)


def _computed(
    model: keras.Model, nodes: Iterable[Any], known: dict[int, Any], call: Callable[..., Any]
) -> Any:
    """The outputs of a model, after its calls were made once more on tensors that are known."""
    for node in nodes:
        made = keras.tree.flatten(call(node, *node.arguments.fill_in(known)))
        known |= {id(old): new for old, new in zip(node.output_tensors, made, strict=True)}
    return keras.tree.map_structure(lambda tensor: known[id(tensor)], model.output)
