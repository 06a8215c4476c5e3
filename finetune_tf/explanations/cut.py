"""A model cut above its embeddings: the explained number as a function of what is at the cut.

Texts are cut at the output of the embeddings, and pictures at their normalized pixels. The model's
own graph runs, with other values at the cut, so that masks, positions, adapters and precision are
those of any other call, and nothing of the model changes.
"""

import functools
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from finetune_tf.architectures import PIXELS, Embeddings, PixelNormalization
from finetune_tf.architectures.towers import IMAGE, TEXT
from finetune_tf.base.keras_internals import graph_of
from finetune_tf.errors import ModelError
from finetune_tf.graph.pieces import ordered_nodes
from finetune_tf.graph.stages import Stage
from finetune_tf.graph.taps import Taps, calls_of_embeddings, output_of_stage, tapping
from finetune_tf.graph.traces import compiled_by_jax, traces_of
from finetune_tf.tasks.feature import MASKS, TOKENS

Arrays = list[np.ndarray]  # one for each place of the cut
_EAGER_CALLS = 6  # calls that take less time than tracing a function would


class Cut:
    """The places at which a model is cut, and the model above them.

    Args:
        model: A model from `load`.

    Attributes:
        model: The model.
        tensors: The symbolic tensor of each place: "text" (batch, length, features) and "image"
            (batch, height, width, channels).

    Raises:
        ModelError: If the model has no graph, or no place to cut it at.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.tensors = _places(model)

    def values(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Computes what is at the cut for a batch of inputs, in float32."""
        return self.read(inputs, list(self.tensors.values()))

    def read(self, inputs: Mapping[str, np.ndarray], tensors: Sequence[Any]) -> Arrays:
        """Computes the values of tensors of the graph for a batch of inputs, in float32."""
        return self._run("read", inputs, [], 0, list(tensors))

    def embedded(self, inputs: Mapping[str, np.ndarray], ids: np.ndarray) -> np.ndarray:
        """Computes what is at the cut of a text, (1, length, features), for other token ids.

        Each token keeps its position, also where padding in its place would move those after it.
        """
        changed = {**inputs, "input_ids": ids}
        for node in _calls_that_skip(self.model):
            is_token = inputs["input_ids"] != node.operation.get_config()["padding_idx"]
            positions = np.cumsum(is_token, axis=1) * is_token - 1
            return self._run("read at", changed, [], positions, [self.tensors[TEXT]])[0]
        return self.read(changed, [self.tensors[TEXT]])[0]

    def run_with(self, inputs: Mapping[str, np.ndarray], tensors: Sequence[Any]) -> list[Any]:
        """Runs the model without dropout and returns the values of some tensors of its graph."""
        inputs = {name: ops.convert_to_tensor(value) for name, value in inputs.items()}
        return _tapped_values(self.model, inputs, tensors)

    def scores(self, inputs: Mapping[str, np.ndarray], values: Arrays, index: Any) -> np.ndarray:
        """Computes the explained number for other values at the cut.

        Args:
            inputs: The inputs of one row, (1, …) each.
            values: For each place (n, …).
            index: As for `Task.explained_score`.

        Returns:
            (n,) in float32.
        """
        return self._run("score", inputs, values, index, list(self.tensors.values()))[0]

    def gradients(
        self,
        inputs: Mapping[str, np.ndarray],
        values: Arrays,
        index: Any,
        tensors: Sequence[Any] | None = None,
    ) -> tuple[np.ndarray, Arrays]:
        """Computes the explained number and its gradient with respect to values in the graph.

        Args:
            inputs: As for `scores`.
            values: As for `scores`.
            index: As for `scores`.
            tensors: The tensors that have these values; by default those of the cut.

        Returns:
            (n,), and an array of the shape of each value, in float32.
        """
        tensors = list(self.tensors.values()) if tensors is None else list(tensors)
        scores, *gradients = self._run("gradient", inputs, values, index, tensors)
        return scores, gradients

    def _run(
        self,
        kind: str,
        inputs: Mapping[str, np.ndarray],
        values: Arrays,
        index: Any,
        tensors: list[Any],
    ) -> Arrays:
        if values:
            rows = len(values[0])
            inputs = {name: np.repeat(value, rows, axis=0) for name, value in inputs.items()}
        given = (inputs, [np.asarray(value, "float32") for value in values], np.int32(index))
        function = _function(self.model, kind, tensors, given)
        results = function(*keras.tree.map_structure(ops.convert_to_tensor, given))
        return [np.asarray(result) for result in results]


def _calls_that_skip(model: Any) -> list[Any]:
    """The calls of embeddings whose positions count only tokens that are not padding (RoBERTa)."""
    calls = calls_of_embeddings(graph_of(model), (Embeddings,))
    return [node for node, _ in calls if node.operation.get_config()["skip_padding"]]


def inputs_of(model: Any, encoded: Any, row: int) -> dict[str, np.ndarray]:
    """The inputs of a model for one row, (1, …) each, without padding."""
    names = {tensor.name for tensor in model.inputs}
    inputs = {
        name: np.asarray(feature[row])[None].astype(feature.dtype)
        for name, feature in encoded.inputs.items()
        if name in names
    }
    if MASKS[TOKENS] in names:
        inputs[MASKS[TOKENS]] = np.ones(inputs["input_ids"].shape, "int32")
    return inputs


def _places(model: Any) -> dict[str, Any]:
    if graph_of(model) is None:
        raise ModelError(
            f"The model {model.name!r} has no stages that explanations could cut it at, because it "
            "is not a Functional model. Explain the model from ft.load that it is made of."
        )
    names = {tensor.name for tensor in model.inputs}
    chains = {stage.chain for stage in model.stages} - {"", IMAGE, TEXT}
    if chains:
        raise ModelError(
            f"Explanations read models of one encoder, or of one for images and one for texts; "
            f"this one has the chains {', '.join(sorted(chains))}."
        )
    places = {}
    if "input_ids" in names:
        chain = TEXT if any(stage.chain == TEXT for stage in model.stages) else ""
        places[TEXT] = output_of_stage(model, _embeddings(model, chain))
    if PIXELS in names:
        nodes = ordered_nodes(graph_of(model))
        pixels = [node for node in nodes if isinstance(node.operation, PixelNormalization)]
        if pixels:
            places[IMAGE] = pixels[0].output_tensors[0]
    if not places:
        raise ModelError(
            f"Explanations cut models of texts above their embeddings, and models of images above "
            f"their pixels; {model.name!r} reads {', '.join(sorted(names))}."
        )
    return places


def _embeddings(model: Any, chain: str) -> Stage:
    """The last one of the stages with embeddings at the bottom of a chain."""
    stages = [stage for stage in model.stages if stage.chain == chain]
    count = next((i for i, stage in enumerate(stages) if stage.role != "embeddings"), len(stages))
    if not count:
        raise ModelError(
            "Explanations cut a model above its embeddings, but it has no stage of embeddings; its "
            f"stages are {', '.join(f'{s.name} ({s.role})' for s in stages)}."
        )
    return stages[count - 1]


def _tapped_values(
    model: Any, inputs: Any, tensors: Sequence[Any], positions: Any = None
) -> list[Any]:
    taps = Taps(model)
    if positions is not None:
        for node in _calls_that_skip(model):
            taps.call_with(node, position_ids=positions)
    for i, tensor in enumerate(tensors):
        taps.read(str(i), tensor)
    with tapping(taps):
        model.call(inputs, training=False)
    _require_run(taps)
    return [taps.values[str(i)] for i in range(len(tensors))]


def _require_run(taps: Taps) -> None:
    if not taps.has_run:
        raise ModelError(
            f"{type(taps.model).__name__} does not run the graph of its layers, so that its inside "
            "cannot be read. Explain a model from ft.load."
        )


def _function(model: Any, kind: str, tensors: list[Any], given: tuple) -> Callable:
    """The function of a model and a set of tensors, traced if it is called often."""
    traced = traces_of(model)
    key = ("explanations", kind, tuple(map(id, tensors)), tuple(sorted(given[0])))
    if key in traced:
        return traced[key]
    calls = traced[(*key, "calls")] = traced.get((*key, "calls"), 0) + 1
    function = _untraced(model, kind, tensors)
    if keras.backend.backend() == "jax":  # which compiles each operation of an eager call as well
        traced[key] = compiled_by_jax(weakref.ref(model), lambda _, *given: function(*given))
        return traced[key]
    if calls <= _EAGER_CALLS or keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    def spec(value: Any, shape: Any) -> Any:
        # Rows and lengths differ from call to call; (height, width, channels) do not.
        return tf.TensorSpec(shape, value.dtype)

    inputs, values, index = given
    shapes = {tensor.name: tensor.shape for tensor in model.inputs}
    signature = [
        {name: spec(value, shapes[name]) for name, value in inputs.items()},
        [spec(value, tensor.shape) for value, tensor in zip(values, tensors, strict=False)],
        spec(index, (None,) * 2 if kind == "read at" else index.shape),
    ]
    traced[key] = tf.function(function, input_signature=signature, autograph=False)
    return traced[key]


def _untraced(model: Any, kind: str, tensors: list[Any]) -> Callable:
    reference = weakref.ref(model)  # the function must not keep its own key alive

    def score(inputs: Any, values: Any, index: Any) -> Any:
        model = reference()
        taps = Taps(model)
        for tensor, value in zip(tensors, values, strict=True):
            taps.change(tensor, functools.partial(_replaced, value))
        with tapping(taps):
            outputs = model.call(inputs, training=False)
        _require_run(taps)
        return ops.cast(model.task.explained_score(outputs, index), "float32")

    def read(inputs: Any, values: Any, index: Any) -> Any:
        model = reference()
        found = _tapped_values(model, inputs, tensors, index if kind == "read at" else None)
        return [ops.cast(value, "float32") for value in found]

    functions: dict[str, Callable] = {
        "score": lambda *given: (score(*given),),
        "gradient": functools.partial(_with_gradient, score),
        "read": read,
        "read at": read,
    }
    return functions[kind]


def _replaced(new: Any, old: Any) -> Any:
    return ops.cast(new, old.dtype)


def _with_gradient(score: Callable, inputs: Any, values: Any, index: Any) -> tuple:
    """The scores (n,) and the gradient of each row's score with respect to its values."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            scores = score(inputs, values, index)
        unconnected = tf.UnconnectedGradients.ZERO
        gradients = tape.gradient(scores, values, unconnected_gradients=unconnected)
        return (scores, *map(tf.convert_to_tensor, gradients))
    import jax

    scores, backward = jax.vjp(lambda given: score(inputs, given, index), list(values))
    (gradients,) = backward(ops.ones_like(scores))
    return (scores, *gradients)
