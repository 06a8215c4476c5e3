"""Reads and changes tensors inside a model while it runs, without another graph.

Objectives of a training step read the outputs of stages or change them: noise on the embeddings,
mixtures of two texts, hidden states that are compared with those of a teacher. They name symbolic
tensors of the model's Functional graph; when the graph runs, the tap of a tensor gets its value.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import keras

from finetune_tf.base.keras_internals import graph_of, run_nodes
from finetune_tf.graph.pieces import ordered_nodes, pieces
from finetune_tf.graph.stages import Stage, stages


@dataclass(eq=False)
class Taps:
    """What is read and changed while a model runs.

    Attributes:
        model: The model.
        values: The values that were read, by name; filled while the graph runs.

    Example:
        >>> from finetune_tf.graph.taps import Taps, input_of_head, tapping
        >>> taps = Taps(model)
        >>> taps.read("pooled", input_of_head(model))
        >>> with tapping(taps):
        ...     logits = model(np.array([[2, 5, 3]]))
        >>> taps.values["pooled"].shape
        TensorShape([1, 24])
    """

    model: keras.Model
    values: dict[str, Any] = field(default_factory=dict)
    _changes: dict[int, list[Callable[[Any], Any]]] = field(default_factory=dict)
    _options: dict[int, dict[str, Any]] = field(default_factory=dict)
    _seen: set[int] = field(default_factory=set)

    def change(self, tensor: keras.KerasTensor, function: Callable[[Any], Any]) -> None:
        """Replaces the value of a tensor by a function of it, for all layers that read it."""
        self._changes.setdefault(id(tensor), []).append(function)

    def read(self, name: str, tensor: keras.KerasTensor) -> None:
        """Stores the value of a tensor, after the changes so far, in `values[name]`."""

        def store(value: Any) -> Any:
            self.values[name] = value
            return value

        self.change(tensor, store)

    def call_with(self, node: Any, **options: Any) -> None:
        """Adds keyword arguments to one call of a layer."""
        self._options.setdefault(id(node), {}).update(options)

    @property
    def has_run(self) -> bool:
        """Whether all tensors and calls were met when the graph ran."""
        return self._changes.keys() | self._options.keys() <= self._seen

    def run(self, graph: keras.Model, inputs: list, call_of: Callable[[Any], Callable]) -> Any:
        """Runs a graph.

        Args:
            graph: The model, or another Functional model on the same symbolic tensors.
            inputs: The value of each of its inputs, in their order.
            call_of: From an operation of the graph to what is called in its place.
        """

        def tapped(node: Any) -> Callable:
            call = call_of(node.operation)
            if options := self._options.get(id(node)):
                self._seen.add(id(node))
                call = functools.partial(call, **options)
            if not any(id(tensor) in self._changes for tensor in node.output_tensors):
                return call
            return lambda *args, **kwargs: self._changed_outputs(node, call(*args, **kwargs))

        inputs = [self._changed(*pair) for pair in zip(graph.inputs, inputs, strict=True)]
        return run_nodes(graph, inputs, tapped)

    def _changed(self, tensor: keras.KerasTensor, value: Any) -> Any:
        for change in self._changes.get(id(tensor), ()):
            self._seen.add(id(tensor))
            value = change(value)
        return value

    def _changed_outputs(self, node: Any, outputs: Any) -> Any:
        flat = keras.tree.flatten(outputs)
        changed = [self._changed(*pair) for pair in zip(node.output_tensors, flat, strict=True)]
        return keras.tree.pack_sequence_as(outputs, changed)


# Each replica of a distributed step runs in a thread of its own, so this is no attribute.
_ACTIVE: ContextVar[tuple[Taps, ...]] = ContextVar("finetune_tf_taps", default=())


@contextlib.contextmanager
def tapping(taps: Taps) -> Iterator[None]:
    """Inside the block, runs of the model of the taps use them."""
    token = _ACTIVE.set((*_ACTIVE.get(), taps))
    try:
        yield
    finally:
        _ACTIVE.reset(token)


def taps_of(model: keras.Model) -> Taps | None:
    """Returns the taps on a model in whose block the caller is, or None."""
    return next((taps for taps in reversed(_ACTIVE.get()) if taps.model is model), None)


def output_of_stage(model: keras.Model, stage: Stage) -> keras.KerasTensor:
    """Returns the symbolic output of a stage.

    Args:
        model: The model.
        stage: One of its stages.

    Example:
        >>> from finetune_tf.graph.taps import output_of_stage
        >>> output_of_stage(model, model.stages[1]).shape
        (None, None, 24)
    """
    layers = {id(layer) for layer in stage.layers}
    found = [piece for piece in pieces(graph_of(model)) if layers & set(map(id, piece.layers))]
    # The table of the embeddings may also decode at the end; a block may be called several times.
    return found[0 if stage.role == "embeddings" else -1].main


def input_of_head(model: keras.Model) -> keras.KerasTensor:
    """Returns the symbolic tensor that the last stage reads: for classifiers, a vector of the text.

    Args:
        model: A Functional model.
    """
    layers = {id(layer) for layer in stages(model)[-1].layers}
    piece = next(p for p in pieces(graph_of(model)) if layers & set(map(id, p.layers)))
    return piece.nodes[0].input_tensors[0]


def calls_of_embeddings(model: keras.Model, classes: tuple[type, ...]) -> list[tuple[Any, str]]:
    """Returns the calls of layers of some classes on inputs of a model.

    Args:
        model: A Functional model.
        classes: The classes of the layers.

    Returns:
        Each call, a node of the graph, with the name of the input that it reads first.
    """
    names = {id(tensor): tensor.name for tensor in model.inputs}
    return [
        (node, names[id(node.input_tensors[0])])
        for node in ordered_nodes(model)
        if isinstance(node.operation, classes) and id(node.input_tensors[0]) in names
    ]
