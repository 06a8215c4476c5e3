"""Running a model over encoded rows, sorted by length so that little is padding."""

import dataclasses
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_tf import kernels
from finetune_tf.data.batching import batches_of
from finetune_tf.errors import ModelError
from finetune_tf.graph.traces import traces_of
from finetune_tf.tasks import Encoded

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


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
    """
    encoded = dataclasses.replace(encoded, group=1, draw=None)
    order = np.arange(len(encoded)) if only is None else only
    lengths = [of_axis[order] for of_axis in encoded.lengths.values()]
    if lengths:  # by length along the first axis, then along the second
        order = order[np.lexsort(lengths[::-1])]
    rows = iter(order)
    for outputs in _outputs(
        model, batches_of(encoded, model, batch_size, order=order, name=name), kept
    ):
        yield from ((int(next(rows)), output) for output in _rows(outputs))


def _rows(outputs: Any) -> Iterator[Any]:
    """Yields the rows of a batch's outputs; for a dict of arrays, each row is a dict."""
    if not isinstance(outputs, dict):
        return iter(outputs)
    columns = zip(*outputs.values(), strict=True)
    return (dict(zip(outputs, row, strict=True)) for row in columns)


def _outputs(
    model: "keras.Model", batches: "tf.data.Dataset", kept: Callable[[Any, Any], Any]
) -> Iterator[Any]:
    import keras

    def as_floats(outputs: Any) -> Any:
        return keras.tree.map_structure(
            lambda tensor: np.asarray(tensor).astype("float32", copy=False), outputs
        )

    if keras.backend.backend() != "tensorflow":
        # Each bucket is compiled once.
        for batch in batches.as_numpy_iterator():
            inputs, targets = batch if isinstance(batch, tuple) else (batch, None)
            yield as_floats(kept(model.predict_on_batch(inputs), targets))
        return
    import tensorflow as tf

    kernels.keep_buffers()
    spec, traced = batches.element_spec, traces_of(model)
    # One function with targets and one without: Keras's predict traces anew for other shapes.
    has_targets = isinstance(spec, tuple)
    key = ("outputs", has_targets)
    # The result is that of `kept`, but without the logits of the whole batch.
    task = getattr(model, "task", None)  # a Keras model of another kind has none
    scores_tokens = has_targets and task is not None and task.scores_tokens
    if key not in traced:
        reference = weakref.ref(model)  # the function must not keep its own key alive

        def forward(inputs: Any, *targets: Any) -> Any:
            model = reference()
            if scores_tokens:
                return model.token_scores(inputs, *targets)
            # Not `model(…)`: a subclass may wrap its result for the caller.
            return kept(model.call(inputs, training=False), *targets or (None,))

        signature = spec if has_targets else [spec]
        function = tf.function(forward, input_signature=signature, autograph=False)
        traced[key] = function.get_concrete_function()

    traced_outputs = traced[key]

    def outputs(batch: Any) -> Any:
        return as_floats(traced_outputs(*(batch if has_targets else (batch,))))

    yield from _parallel_map(outputs, batches)


def _parallel_map(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """Like `map`, with two calls at a time: one computes where the other cannot use all cores."""
    with ThreadPoolExecutor(2) as pool:
        waiting: deque[Future] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
