"""Splits a model into a frozen lower part and a trainable upper part, which share its weights."""

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from finetune_tf.base.keras_internals import graph_of
from finetune_tf.errors import CacheError
from finetune_tf.graph.pieces import Piece, learns, ordered_nodes, pieces, rows_of_each

FEATURES = "cached_features"  # the input of the upper part that takes what was cached


@dataclass(frozen=True)
class SplitModel:
    """A model that is split into two parts.

    Attributes:
        trunk: The frozen lower part, from the model's inputs to the tensors to cache. Its output is
            a dict by name: "cached_features", and "cached_features_1" and so on if there are
            several.
        inputs: Symbolic inputs of the upper part by name: the cached tensors, and those of the
            model's inputs that the upper part reads.
        outputs: Symbolic outputs of the upper part, in the structure of the model's outputs.
        blocking: Names of trainable layers that are used in several places. Frozen stages that read
            them cannot be in the lower part.
    """

    trunk: keras.Model
    inputs: dict[str, Any]
    outputs: Any
    blocking: tuple[str, ...]


def split_model(model: keras.Model) -> SplitModel:
    """Splits a Functional model above the stages whose output no training step can change.

    A stage belongs to the lower part if all its variables are frozen and it reads only outputs of
    the lower part. Each chain is split separately: for example one of two towers, or an encoder
    below a trainable decoder. A piece without weights, such as an average over tokens, belongs to
    the stage below it, so that a pooled text is cached as a single vector.

    Args:
        model: A Functional or Sequential model.

    Raises:
        CacheError: If the lowest stages are trainable, no stage is trainable, or the model has no
            graph.

    Example:
        >>> ft.train_only(model, ft.select.head())
        >>> parts = split_model(model)
        >>> list(parts.trunk.output), parts.trunk.trainable_variables
        (['cached_features'], [])
    """
    graph = graph_of(model)
    if graph is None:
        raise CacheError(
            f"The model {model.name!r} is not a Functional model, so it cannot be split and its "
            "features cannot be cached. Train the whole model."
        )
    graph = _split_inner_models(graph)
    parts = pieces(graph)
    if not any(learns(layer) for part in parts for layer in part.layers):
        raise CacheError(
            "The model has no trainable variables, so there is nothing to train on cached features."
        )
    frozen_pieces, other_pieces = _partition_pieces(parts)
    to_cache = _tensors_to_cache(
        frozen_pieces, [*(t for part in other_pieces for t in part.inputs), *graph.outputs]
    )
    blocking = _blocking_layers(other_pieces)
    if not to_cache:
        tied = f" ({', '.join(blocking)}, used in several places)" if blocking else ""
        raise CacheError(
            f"The lowest stage of the model is trainable{tied}, so every training step changes all "
            "features and none can be cached. Freeze the lowest stages first, for example with "
            "ft.train_only(model, ft.select.head())."
        )
    stored = {f"{FEATURES}_{i}" if i else FEATURES: tensor for i, tensor in enumerate(to_cache)}
    inputs = {tensor.name: tensor for tensor in graph.inputs}
    outputs = {
        name: _collected(tensor, rows_of_each(graph, tensor)) for name, tensor in stored.items()
    }
    trunk = keras.Model(inputs, outputs, name=f"{model.name}_trunk")
    return SplitModel(trunk, *upper_part(graph, stored), blocking)


def _collected(tensor: Any, rows: int) -> Any:
    """The rows (B R, …) of a tensor for each row of the inputs, (B, R, …)."""
    return tensor if rows == 1 else ops.reshape(tensor, (-1, rows, *tensor.shape[1:]))


def _split_inner_models(model: keras.Model) -> keras.Model:
    """Returns the same graph with each inner model that can be split replaced by its two parts."""
    nodes = ordered_nodes(model)
    inner: dict[int, SplitModel] = {}
    for node in nodes:
        if isinstance(node.operation, keras.Model) and graph_of(node.operation) is not None:
            with contextlib.suppress(CacheError):  # all of it is frozen, or all of it is trainable
                inner[id(node)] = split_model(node.operation)
    if not inner:
        return model
    known = {id(tensor): tensor for tensor in model.inputs}

    def call(node: Any, arguments: tuple, options: dict) -> Any:
        if id(node) in inner:
            return _call_split_model(inner[id(node)], node.operation, arguments[0])
        return _call_layer(node, arguments, options)

    outputs = _replay_calls(model, [node for node in nodes if node.input_tensors], known, call)
    return keras.Model(model.input, outputs, name=model.name)


def _call_split_model(cut: SplitModel, model: keras.Model, inputs: Any) -> Any:
    """Computes the outputs of a model by calling its lower part and then its upper part."""
    names = [tensor.name for tensor in graph_of(model).inputs]
    tensors = dict(zip(names, keras.tree.flatten(inputs), strict=True))
    tensors |= cut.trunk({tensor.name: tensors[tensor.name] for tensor in cut.trunk.inputs})
    upper = keras.Model(cut.inputs, cut.outputs, name=model.name)
    upper.ends_chain = True  # like the model that it is a part of
    return upper({name: tensors[name] for name in cut.inputs})


def _partition_pieces(parts: list[Piece]) -> tuple[list[Piece], list[Piece]]:
    """Partitions pieces into those that no training step can change, and the others."""
    frozen_pieces, other_pieces, known = [], [], set()
    for part in parts:
        if any(map(learns, part.layers)) or any(id(tensor) not in known for tensor in part.inputs):
            other_pieces.append(part)
        else:
            frozen_pieces.append(part)
            known.update(id(tensor) for tensor in part.outputs)
    return frozen_pieces, other_pieces


def _tensors_to_cache(frozen_pieces: list[Piece], required: list[Any]) -> list[Any]:
    """Returns the tensors to cache, from which all required tensors can be computed.

    A tensor without a batch axis, such as a table of relative positions, is recomputed instead.
    """
    producers = {id(tensor): part for part in frozen_pieces for tensor in part.outputs}
    pending, cached = list(required), set()
    while pending:
        tensor = pending.pop()
        if id(tensor) in producers and tensor.shape[0] is None:
            cached.add(id(tensor))
        elif id(tensor) in producers:
            pending += producers[id(tensor)].inputs
    return [tensor for part in frozen_pieces for tensor in part.outputs if id(tensor) in cached]


def _blocking_layers(other_pieces: list[Piece]) -> tuple[str, ...]:
    """Returns names of trainable layers used in several pieces, if frozen pieces read them."""
    used: dict[int, list[keras.layers.Layer]] = {}
    for part in other_pieces:
        for layer in part.layers:
            used.setdefault(id(layer), []).append(layer)
    has_frozen_piece = any(
        part.layers and not any(map(learns, part.layers)) for part in other_pieces
    )
    tied = [found[0].name for found in used.values() if len(found) > 1 and learns(found[0])]
    return tuple(tied) if has_frozen_piece else ()


def upper_part(model: keras.Model, stored: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Builds the part of a model above some tensors: its layers, called on new inputs for them.

    `keras.Model(tensors, outputs)` would do the same, but afterwards Keras could no longer save the
    model itself.

    Args:
        model: A Functional model.
        stored: Tensors of the graph, by the names of the new inputs. For a tensor with several rows
            (B R, …) for each row of the model's inputs, the new input is (B, R, …).

    Returns:
        All inputs by name, those of the model that the part reads included, and the outputs.
    """
    inputs, known = {}, {}
    for name, tensor in stored.items():
        shape, rows = tensor.shape, rows_of_each(model, tensor)
        whole = shape if rows == 1 else (None, rows, *shape[1:])
        inputs[name] = keras.Input(batch_shape=whole, dtype=tensor.dtype, name=name)
        parts = inputs[name] if rows == 1 else ops.reshape(inputs[name], (-1, *shape[1:]))
        known[id(tensor)] = parts
    required = {id(tensor) for tensor in model.outputs} - known.keys()
    nodes_above = []
    for node in reversed(ordered_nodes(model)):
        if required.isdisjoint(map(id, node.output_tensors)):
            continue
        if node.input_tensors:
            nodes_above.append(node)
            required |= {id(tensor) for tensor in node.input_tensors} - known.keys()
        else:  # one of the model's inputs
            (tensor,) = node.output_tensors
            inputs[tensor.name] = known[id(tensor)] = tensor
    return inputs, _replay_calls(model, nodes_above[::-1], known, _call_layer)


def independent_parts(model: keras.Model) -> list[keras.Model]:
    """Divides a model into models on the same layers that have no input in common.

    Args:
        model: A Functional model whose output is a dict.

    Returns:
        Models with some of its inputs and outputs each; the model itself if it cannot be divided.
    """
    read: dict[int, set[str]] = {}  # the names of the inputs that each tensor depends on
    for node in ordered_nodes(model):
        below = [read[id(tensor)] for tensor in node.input_tensors]
        names = set().union(*below) if below else {tensor.name for tensor in node.output_tensors}
        read |= {id(tensor): names for tensor in node.output_tensors}
    parts: list[tuple[set[str], dict[str, Any]]] = []
    for name, tensor in model.output.items():
        names, outputs = read[id(tensor)], {name: tensor}
        for other in [part for part in parts if not names.isdisjoint(part[0])]:
            parts.remove(other)
            names, outputs = names | other[0], outputs | other[1]
        parts.append((names, outputs))
    if len(parts) == 1:
        return [model]
    return [
        keras.Model({t.name: t for t in model.inputs if t.name in names}, outputs)
        for names, outputs in parts
    ]


def _call_layer(node: Any, arguments: tuple, options: dict) -> Any:
    return node.operation(*arguments, **options)


def _replay_calls(
    model: keras.Model, nodes: Iterable[Any], known: dict[int, Any], call: Callable[..., Any]
) -> Any:
    """Repeats calls of layers on known tensors and returns the new outputs of the model."""
    for node in nodes:
        new_outputs = keras.tree.flatten(call(node, *node.arguments.fill_in(known)))
        known |= {id(old): new for old, new in zip(node.output_tensors, new_outputs, strict=True)}
    return keras.tree.map_structure(lambda tensor: known[id(tensor)], model.output)
