"""The graph of a Functional model as an ordered list of pieces.

A graph is cut wherever a single tensor waits to be used further up. Two kinds of tensors may cross
a cut beside it and do not count:

- what is computed from the model's inputs without a weight (a mask, position numbers): it can be
  computed again on the other side;
- what is *carried*: a finished tensor that layers further up read, such as the output of an encoder
  that every block of a decoder attends to. A graph declares it, because of a graph that says
  nothing nobody knows whether a sum of two tensors should be cut into its terms.

Three declarations are understood:

- a layer whose attribute `carried` is true makes something that the stages above share, such as a
  table of relative positions; it belongs to the stage that follows it;
- a layer whose attribute `ends_chain` is true, such as `architectures.EndOfChain`, ends a *chain*:
  an encoder, a decoder, a tower. Its output is carried, and the layer's name is the chain's;
- several models inside a model that read the inputs of the outer one, such as the two towers of
  CLIP, are a chain each.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import keras

from finetune_tf.base.keras_internals import all_layers, nodes_by_depth, own_variables


@dataclass(frozen=True)
class Piece:
    """What stands between two cuts of a graph.

    Attributes:
        nodes: The calls of layers, each behind those that it depends on.
        inputs: The tensors that it reads from pieces below: usually one, and what is carried.
        outputs: Those of its tensors that are read above it or put out by the model.
        main: The one of its outputs that the next piece works on; None above the last cut, where a
            model has several outputs.
        chain: The name of the chain that it is a part of; empty if it is part of none.
    """

    nodes: tuple[Any, ...]
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    main: Any
    chain: str = ""

    @property
    def layers(self) -> tuple[keras.layers.Layer, ...]:
        """The layers that have weights, each once."""
        layers = {id(n.operation): n.operation for n in self.nodes if _has_weights(n.operation)}
        return tuple(layers.values())


def pieces(model: keras.Model) -> list[Piece]:
    """The pieces of a Functional model, from its inputs to its outputs.

    Args:
        model: A Functional model; a Sequential one has such a graph in `_functional`.

    Returns:
        Pieces without weights are among them. Whatever a piece reads comes from pieces before it.
    """
    nodes = ordered_nodes(model)
    unread = Counter(id(tensor) for node in nodes for tensor in node.input_tensors)
    unread.update(id(tensor) for tensor in model.outputs)
    free = _free_tensors(nodes)
    ends = _ends_of_chains(nodes)

    found: list[Piece] = []
    current: list[Any] = []
    waiting: dict[int, Any] = {}
    carried: set[int] = set()

    def close(main: Any) -> None:
        made = {id(tensor): tensor for node in current for tensor in node.output_tensors}
        read = {id(tensor): tensor for node in current for tensor in node.input_tensors}
        inputs = tuple(t for key, t in read.items() if key not in made and key not in free)
        outputs = tuple(t for key, t in made.items() if unread[key])
        found.append(Piece(tuple(current), inputs, outputs, main))
        current.clear()

    for node in nodes:
        if all(id(tensor) in free for tensor in node.output_tensors):
            continue
        current.append(node)
        for tensor in node.input_tensors:
            unread[id(tensor)] -= 1
            if not unread[id(tensor)]:
                waiting.pop(id(tensor), None)
        made = {id(tensor): tensor for tensor in node.output_tensors if unread[id(tensor)]}
        weighted = any(_has_weights(n.operation) for n in current)
        known = all(id(t) in free or id(t) in carried for t in node.input_tensors)
        if _is_carried(node.operation):
            carried |= made.keys()
        elif known and not _has_weights(node.operation):
            # What is made of carried tensors without a weight, such as an average, is one, too.
            carried |= made.keys()
            if not waiting and not weighted and len(made) == 1:
                close(*made.values())
        else:
            waiting |= made
            if len(waiting) == 1:
                close(*waiting.values())
        if id(node) in ends and not current:
            _name_chain(found, ends[id(node)])
            carried |= waiting.keys()
            waiting = {}
    if current:
        close(None)
    return found


def ordered_nodes(model: keras.Model) -> list[Any]:
    """The calls that a Functional model consists of, each behind those that it depends on.

    Chains come first, one after the other: an encoder before the decoder that reads it, one tower
    before the other. The order is depth first: what a call reads is complete before something else
    begins, first what has the most layers below it, and among equals what is carried.
    """
    by_depth = nodes_by_depth(model)
    nodes = [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]
    makers = {id(tensor): node for node in nodes for tensor in node.output_tensors}

    def made_by(tensors: Iterable[Any]) -> list[Any]:
        return list({id(makers[id(tensor)]): makers[id(tensor)] for tensor in tensors}.values())

    read = {id(node): made_by(node.input_tensors) for node in nodes}
    height: dict[int, int] = {}  # the most layers on a way from the inputs
    for node in nodes:
        highest = max((height[id(n)] for n in read[id(node)]), default=0)
        height[id(node)] = highest + _has_weights(node.operation)
    ends = _ends_of_chains(nodes)
    as_called = _depth_first(made_by(model.outputs), read)
    outputs = made_by(model.outputs)
    for below in (outputs, *read.values()):
        below.sort(key=lambda n: (-height[id(n)], not _is_carried(n.operation)))
    return _depth_first([*(node for node in as_called if id(node) in ends), *outputs], read)


def _depth_first(roots: list[Any], read: dict[int, list[Any]]) -> list[Any]:
    """Calls behind all that they read; no recursion, because some models have a thousand layers."""
    order: list[Any] = []
    done: set[int] = set()
    stack = roots[::-1]
    while stack:
        node = stack[-1]
        missing = next((n for n in read[id(node)] if id(n) not in done), None)
        if missing is not None:
            stack.append(missing)
            continue
        stack.pop()
        if id(node) not in done:
            done.add(id(node))
            order.append(node)
    return order


def input_followed_by(model: keras.Model, tensor: Any) -> str:
    """The name of the model's input whose axes a tensor has: the first argument of each call.

    A block of a decoder takes its own tokens first and then what it attends to, so its output
    follows the decoder's input ids.
    """
    makers = {id(made): node for node in ordered_nodes(model) for made in node.output_tensors}
    while (node := makers[id(tensor)]).input_tensors:
        tensor = node.input_tensors[0]
    return tensor.name


def learnable_variables(layer: keras.layers.Layer) -> list[keras.Variable]:
    """Variables of a layer that were made to learn, whether or not they are frozen now.

    Moving statistics and random seeds are not among them.
    """
    found: dict[int, keras.Variable] = {}
    for part in all_layers(layer):
        for variable in own_variables(part):
            found.setdefault(id(variable), variable)
    return list(found.values())


def learns(layer: keras.layers.Layer) -> bool:
    """Whether a variable of the layer is trained now."""
    return any(variable.trainable for variable in learnable_variables(layer))


def _has_weights(operation: Any) -> bool:
    return isinstance(operation, keras.layers.Layer) and bool(operation.weights)


def _is_carried(operation: Any) -> bool:
    return getattr(operation, "carried", False)


def _free_tensors(nodes: list[Any]) -> set[int]:
    """What is computed from the inputs without a weight."""
    free: set[int] = set()
    for node in nodes:
        if not _has_weights(node.operation) and all(id(t) in free for t in node.input_tensors):
            free.update(id(tensor) for tensor in node.output_tensors)
    return free


def _ends_of_chains(nodes: list[Any]) -> dict[int, str]:
    """The names of chains, by the node that ends each."""
    free = _free_tensors(nodes)
    declared = [node for node in nodes if getattr(node.operation, "ends_chain", False)]
    towers = [
        node
        for node in nodes
        if isinstance(node.operation, keras.Model)
        and node.operation.weights
        and any(id(tensor) in free for tensor in node.input_tensors)
    ]
    ends = [*declared, *(towers if len(towers) > 1 else [])]
    return {id(node): node.operation.name for node in ends}


def _name_chain(found: list[Piece], name: str) -> None:
    """Gives the last piece and all that it is computed from to a chain, except parts of others."""
    makers = {id(tensor): i for i, piece in enumerate(found) for tensor in piece.outputs}
    pending = [len(found) - 1]
    while pending:
        i = pending.pop()
        if not found[i].chain:
            found[i] = replace(found[i], chain=name)
            pending += [makers[id(tensor)] for tensor in found[i].inputs]
