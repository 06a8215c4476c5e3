"""Running a model over encoded rows, sorted by length so that little is padding."""

import dataclasses
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_tf import kernels
from finetune_tf.data.array_batches import ArrayBatches, map_ahead
from finetune_tf.distribution.current import shares
from finetune_tf.errors import ModelError
from finetune_tf.graph.traces import traces_of
from finetune_tf.tasks import Encoded

if TYPE_CHECKING:
    import keras


def run(
    model: "keras.Model",
    encoded: Encoded,
    batch_size: int,
    name: str,
    part: "keras.Model | None" = None,
) -> list[np.ndarray]:
    """Returns the model's output for each row, in float32 and without padding.

    Args:
        model: A model from `load`.
        encoded: The rows that its task made of examples. Targets are read by tasks that reduce
            outputs with them.
        batch_size: Rows a batch.
        name: The name of the examples, for messages.
        part: A Keras model on layers of the model, whose outputs are returned instead.

    Raises:
        ModelError: If an output is not a finite number.
    """
    if not model.task.reduces_with_targets:
        encoded = dataclasses.replace(encoded, targets=None)
    outputs: list[Any] = [None] * len(encoded)
    for row, output in rows_of(part or model, encoded, batch_size, model.task.reduce_outputs, name):
        outputs[row] = output
    axis = model.task.token_axis
    if axis is not None:
        *_, lengths = encoded.lengths.values()  # outputs run along the last axis
        outputs = [
            output.take(range(length), axis)
            for output, length in zip(outputs, lengths, strict=True)
        ]
    broken = sum(not np.isfinite(output).all() for output in outputs)
    if broken:
        raise ModelError(
            f"The model's output is not a finite number for {broken:,} of {len(outputs):,} texts "
            f"of {name}: its weights are most likely broken. Train again, with a lower "
            "learning rate or without float16."
        )
    return outputs


def rows_of(
    model: "keras.Model",
    encoded: Encoded,
    batch_size: int,
    kept: Callable[[Any, Any], Any],
    name: str = "rows",
    only: np.ndarray | None = None,
    traces: bool = True,
) -> Iterator[tuple[int, Any]]:
    """Yields the index and the output of each row, sorted by length.

    Args:
        model: Any model whose inputs are among those of the rows.
        encoded: As for `run`.
        batch_size: Rows a batch.
        kept: Returns the part of a batch's (outputs, targets) that is kept, an array or a dict of
            arrays; always the same function for a model.
        name: The name of the examples, for messages.
        only: The indices of the rows that are run; by default all rows.
        traces: Whether TensorFlow traces the model if it was not traced before. For a few batches
            alone, that takes longer than it saves.
    """
    encoded = dataclasses.replace(encoded, group=1, draw=None)
    order = np.arange(len(encoded)) if only is None else only
    lengths = [of_axis[order] for of_axis in encoded.lengths.values()]
    if lengths:  # by length along the first axis, then along the second
        order = order[np.lexsort(lengths[::-1])]
    rows = iter(order)
    batches = ArrayBatches(encoded, model, batch_size, order, name)
    for outputs in _outputs(model, batches, kept, traces):
        yield from ((int(next(rows)), output) for output in _rows(outputs))


def _rows(outputs: Any) -> Iterator[Any]:
    """Yields the rows of a batch's outputs; for a dict of arrays, each row is a dict."""
    if not isinstance(outputs, dict):
        return iter(outputs)
    columns = zip(*outputs.values(), strict=True)
    return (dict(zip(outputs, row, strict=True)) for row in columns)


def _outputs(
    model: "keras.Model", batches: ArrayBatches, kept: Callable[[Any, Any], Any], traces: bool
) -> Iterator[Any]:
    import keras

    def as_floats(outputs: Any) -> Any:
        return keras.tree.map_structure(
            lambda tensor: np.asarray(tensor).astype("float32", copy=False), outputs
        )

    if keras.backend.backend() != "tensorflow" or not isinstance(model, keras.Model):
        # With JAX, each bucket is compiled once. An exported model runs in its own engine.
        shared = shares() if isinstance(model, keras.Model) else None
        for number in range(len(batches)):
            inputs, *targets = batches[number] if shared is None else batches.shared(number, shared)
            yield as_floats(kept(model.predict_on_batch(inputs), *targets or (None,)))
        return
    import tensorflow as tf

    kernels.keep_buffers()
    traced = traces_of(model)
    # One function with targets and one without: Keras's predict traces anew for other shapes.
    key = ("outputs", batches.has_targets)
    # The result is that of `kept`, but without the logits of the whole batch.
    task = getattr(model, "task", None)  # a Keras model of another kind has none
    scores_tokens = batches.has_targets and task is not None and task.scores_tokens
    reference = weakref.ref(model)  # a traced function must not keep its own key alive

    def forward(inputs: Any, *targets: Any) -> Any:
        model = reference()
        if scores_tokens:
            return model.token_scores(inputs, *targets)
        # Not `model(…)`: a subclass may wrap its result for the caller.
        return kept(model.call(inputs, training=False), *targets or (None,))

    if key not in traced and traces:
        signature = batches.signature()
        function = tf.function(forward, input_signature=signature, autograph=False)
        traced[key] = function.get_concrete_function()

    run = traced.get(key, forward)

    def outputs(number: int) -> Any:
        batch = tf.nest.map_structure(tf.convert_to_tensor, batches[number])
        return as_floats(run(*batch))

    if len(batches) == 1:  # a thread would take longer to start than one text to tokenize
        yield outputs(0)
    else:
        # Two at a time: one computes where the other cannot use all cores.
        yield from map_ahead(outputs, range(len(batches)), workers=2, ahead=2)
