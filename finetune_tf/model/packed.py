"""Rows that consist of several texts: how a causal language model keeps them apart.

A packed row comes with `position_ids`, which count from 0 in each text. The layers of the model's
own graph are called with them: position embeddings and rotary tables take the positions, and masks
hide all other texts of a row. Without `position_ids`, the graph is unchanged.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from finetune_tf.architectures import AttentionMask, Embeddings, RotaryPositions
from finetune_tf.base.keras_internals import run_graph
from finetune_tf.generation.forward import is_prefix_model
from finetune_tf.tasks.feature import POSITIONS


def takes_positions(model: keras.Model) -> bool:
    """Whether a model is a causal language model, whose rows may consist of several texts.

    A prefix language model is not: its rows are sources and targets.
    """
    masks = [layer for layer in model.layers if isinstance(layer, AttentionMask)]
    is_causal = bool(masks) and all(mask.causal for mask in masks) and not is_prefix_model(model)
    return is_causal and hasattr(model, "info") and model.task.generates_text


def run_packed(graph: keras.Model, inputs: dict[str, Any], training: bool | None) -> Any:
    """Computes the outputs of a model for packed rows.

    Args:
        graph: A causal language model, or the part of it below the output layer.
        inputs: Its inputs by name, and `position_ids` (batch, length).
        training: As for every Keras model.

    Returns:
        Its outputs; those of a text do not depend on the other texts of its row.
    """
    values = [inputs[tensor.name] for tensor in graph.inputs]
    return run_graph(graph, values, packed_calls(inputs[POSITIONS], training))


def packed_calls(positions: Any, training: bool | None) -> Callable[[Any], Callable]:
    """Returns a function from an operation of a graph to its call on packed rows.

    Args:
        positions: (batch, length), the position of each token in its text.
        training: As for every Keras model.
    """
    segments = ops.cumsum(ops.cast(ops.equal(positions, 0), "int32"), axis=1)

    def embed(embeddings: Embeddings, x: Any, decode: bool = False, **more: Any) -> Any:
        options = {} if decode else {"position_ids": positions}
        return embeddings(x, decode=decode, **options, **more)

    def placed(operation: Any) -> Callable:
        """Returns an operation of the graph that knows where texts begin."""
        options = {"training": training} if _has_training(operation) else {}
        if isinstance(operation, Embeddings):
            return functools.partial(embed, operation, **options)
        if isinstance(operation, AttentionMask):
            return functools.partial(operation, segment_ids=segments)
        if isinstance(operation, RotaryPositions):
            return functools.partial(operation, position_ids=positions)
        return functools.partial(operation, **options)

    return placed


def plain_call(operation: Any, training: bool | None) -> Callable:
    """Returns an operation of a graph that knows whether it is training."""
    return (
        functools.partial(operation, training=training) if _has_training(operation) else operation
    )


def _has_training(operation: Any) -> bool:
    return "training" in inspect.signature(operation.call).parameters
