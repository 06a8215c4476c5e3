"""The graph of a Functional model as an ordered list of pieces.

A graph is cut at each point where exactly one tensor is still to be read by later layers. Two kinds
of tensors are ignored in this count and may cross a cut as well:

- tensors that are computed from the model's inputs without weights (a mask, position ids): they can
  be recomputed on the other side of the cut;
- *carried* tensors: finished tensors that later layers read, such as the output of an encoder to
  which every block of a decoder attends. They have to be declared, because the graph alone does not
  show whether the terms of a sum should be separate pieces.

There are three ways to declare them:

- A layer whose attribute `carried` is true computes a tensor that later stages share, such as a
  table of relative positions. The layer belongs to the stage that follows it.
- A layer whose attribute `ends_chain` is true, such as `architectures.EndOfChain`, ends a *chain*:
  an encoder, a decoder, a tower. Its output is carried, and its name is the name of the chain.
- If several models inside a model read the inputs of the outer model, such as the two towers of
  CLIP (Radford et al. 2021), each of them is a chain.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import keras

from finetune_tf.base.keras_internals import all_layers, nodes_by_depth, own_variables


@dataclass(frozen=True)
class Piece:
    """The part of a graph between two cuts.

    Attributes:
        nodes: The calls of layers in topological order.
        inputs: The tensors that it reads from earlier pieces: usually one, and carried tensors.
        outputs: Those of its tensors that later pieces read or that are outputs of the model.
        main: The output that the next piece reads; None for the last piece of a model with several
            outputs.
        chain: The name of the chain that it belongs to; empty if it belongs to none.
    """

    nodes: tuple[Any, ...]
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    main: Any
    chain: str = ""

    @property
    def layers(self) -> tuple[keras.layers.Layer, ...]:
        """The layers with weights, without duplicates."""
        layers = {id(n.operation): n.operation for n in self.nodes if _has_weights(n.operation)}
        return tuple(layers.values())


def pieces(model: keras.Model) -> list[Piece]:
    """Cuts a Functional model into pieces.

    Args:
        model: A Functional model, such as `graph_of` returns for a Sequential model.

    Returns:
        The pieces from the inputs to the outputs, including those without weights. A piece reads
        only outputs of earlier pieces.
    """
    nodes = ordered_nodes(model)
    readers_left = Counter(id(tensor) for node in nodes for tensor in node.input_tensors)
    readers_left.update(id(tensor) for tensor in model.outputs)
    weightless = _weightless_tensors(nodes)
    ends = _chain_ends(nodes)

    result: list[Piece] = []
    current_nodes: list[Any] = []
    unread: dict[int, Any] = {}  # the tensors that later layers read
    carried: set[int] = set()

    def finish_piece(main: Any) -> None:
        computed = {id(tensor): tensor for node in current_nodes for tensor in node.output_tensors}
        read = {id(tensor): tensor for node in current_nodes for tensor in node.input_tensors}
        inputs = tuple(
            t for key, t in read.items() if key not in computed and key not in weightless
        )
        outputs = tuple(t for key, t in computed.items() if readers_left[key])
        result.append(Piece(tuple(current_nodes), inputs, outputs, main))
        current_nodes.clear()

    for node in nodes:
        if all(id(tensor) in weightless for tensor in node.output_tensors):
            continue
        current_nodes.append(node)
        for tensor in node.input_tensors:
            readers_left[id(tensor)] -= 1
            if not readers_left[id(tensor)]:
                unread.pop(id(tensor), None)
        computed = {
            id(tensor): tensor for tensor in node.output_tensors if readers_left[id(tensor)]
        }
        weighted = any(_has_weights(n.operation) for n in current_nodes)
        reads_only_known = all(id(t) in weightless or id(t) in carried for t in node.input_tensors)
        if _is_carried(node.operation):
            carried |= computed.keys()
        elif reads_only_known and not _has_weights(node.operation):
            # What is computed from carried tensors without weights, such as an average, is carried.
            carried |= computed.keys()
            if not unread and not weighted and len(computed) == 1:
                finish_piece(*computed.values())
        else:
            unread |= computed
            if len(unread) == 1:
                finish_piece(*unread.values())
        if id(node) in ends and not current_nodes:
            _assign_to_chain(result, ends[id(node)])
            carried |= unread.keys()
            unread = {}
    if current_nodes:
        finish_piece(None)
    return result


def ordered_nodes(model: keras.Model) -> list[Any]:
    """Returns the calls of layers in a Functional model in topological order.

    Chains come first and do not overlap: an encoder before the decoder that reads it, one tower
    before the other. The order is depth first: all that a call depends on is completed before an
    unrelated call. Among the inputs of a call, the one with the most layers below it comes first,
    and among equals the one that is carried.
    """
    by_depth = nodes_by_depth(model)
    nodes = [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]
    producers = {id(tensor): node for node in nodes for tensor in node.output_tensors}

    def producers_of(tensors: Iterable[Any]) -> list[Any]:
        return list(
            {id(producers[id(tensor)]): producers[id(tensor)] for tensor in tensors}.values()
        )

    dependencies = {id(node): producers_of(node.input_tensors) for node in nodes}
    height: dict[int, int] = {}  # number of weighted layers on the longest path from the inputs
    for node in nodes:
        highest = max((height[id(n)] for n in dependencies[id(node)]), default=0)
        height[id(node)] = highest + _has_weights(node.operation)
    ends = _chain_ends(nodes)
    call_order = _depth_first(producers_of(model.outputs), dependencies)
    outputs = producers_of(model.outputs)
    for calls in (outputs, *dependencies.values()):
        calls.sort(key=lambda n: (-height[id(n)], not _is_carried(n.operation)))
    return _depth_first(
        [*(node for node in call_order if id(node) in ends), *outputs], dependencies
    )


def _depth_first(roots: list[Any], dependencies: dict[int, list[Any]]) -> list[Any]:
    """Sorts calls topologically, without recursion because a model can have a thousand layers."""
    order: list[Any] = []
    done: set[int] = set()
    stack = roots[::-1]
    while stack:
        node = stack[-1]
        missing = next((n for n in dependencies[id(node)] if id(n) not in done), None)
        if missing is not None:
            stack.append(missing)
            continue
        stack.pop()
        if id(node) not in done:
            done.add(id(node))
            order.append(node)
    return order


def input_followed_by(model: keras.Model, tensor: Any) -> str | None:
    """Returns the name of the model input from which a tensor gets its batch and length axes.

    It is found along the first argument of each call. A decoder block is called with its own tokens
    first and the memory second, so its output follows the decoder's input ids.

    It is None if a layer whose attribute `joins_inputs` is true, such as `architectures.JoinTexts`,
    concatenates several inputs along the length axis.
    """
    for node in _calls_below(model, tensor):
        if getattr(node.operation, "joins_inputs", False):
            return None
        tensor = node.output_tensors[0]
    return tensor.name


def rows_of_each(model: keras.Model, tensor: Any) -> int:
    """Returns how many rows of a tensor there are for each row of the model's inputs.

    A layer whose attribute `rows_of_each` is a number, such as `architectures.frames.FramePixels`,
    makes that many rows of each; a layer whose attribute `joins_rows` is true makes one of them
    again. They are found along the first argument of each call.

    Args:
        model: A Functional model.
        tensor: A tensor of its graph.
    """
    for node in _calls_below(model, tensor):
        if getattr(node.operation, "joins_rows", False):
            return 1
        if rows := getattr(node.operation, "rows_of_each", None):
            return rows
    return 1


def _calls_below(model: keras.Model, tensor: Any) -> Iterator[Any]:
    """Yields the call that computes a tensor, the one of its first argument, and so on.

    The last one is a model input.
    """
    producers = {
        id(output): node for node in ordered_nodes(model) for output in node.output_tensors
    }
    node = producers[id(tensor)]
    while node.input_tensors:
        yield node
        node = producers[id(node.input_tensors[0])]
    yield node


def learnable_variables(layer: keras.layers.Layer) -> list[keras.Variable]:
    """Returns the variables of a layer that were created as trainable, even if they are frozen now.

    Moving statistics and the states of seed generators are excluded.
    """
    result: dict[int, keras.Variable] = {}
    for part in all_layers(layer):
        for variable in own_variables(part):
            result.setdefault(id(variable), variable)
    return list(result.values())


def learns(layer: keras.layers.Layer) -> bool:
    """Whether any variable of the layer is trainable now."""
    return any(variable.trainable for variable in learnable_variables(layer))


def _has_weights(operation: Any) -> bool:
    return isinstance(operation, keras.layers.Layer) and bool(operation.weights)


def _is_carried(operation: Any) -> bool:
    return getattr(operation, "carried", False)


def _weightless_tensors(nodes: list[Any]) -> set[int]:
    """Returns the ids of the tensors that are computed from the inputs without weights."""
    weightless: set[int] = set()
    for node in nodes:
        if not _has_weights(node.operation) and all(
            id(t) in weightless for t in node.input_tensors
        ):
            weightless.update(id(tensor) for tensor in node.output_tensors)
    return weightless


def _chain_ends(nodes: list[Any]) -> dict[int, str]:
    """Returns the names of the chains by the id of the node that ends each of them."""
    weightless = _weightless_tensors(nodes)
    declared = [node for node in nodes if getattr(node.operation, "ends_chain", False)]
    towers = [
        node
        for node in nodes
        if isinstance(node.operation, keras.Model)
        and node.operation.weights
        and any(id(tensor) in weightless for tensor in node.input_tensors)
    ]
    ends = [*declared, *(towers if len(towers) > 1 else [])]
    return {id(node): node.operation.name for node in ends}


def _assign_to_chain(found: list[Piece], name: str) -> None:
    """Assigns the last piece and its ancestors to a chain, except those of other chains."""
    producers = {id(tensor): i for i, piece in enumerate(found) for tensor in piece.outputs}
    pending = [len(found) - 1]
    while pending:
        i = pending.pop()
        if not found[i].chain:
            found[i] = replace(found[i], chain=name)
            pending += [producers[id(tensor)] for tensor in found[i].inputs]
