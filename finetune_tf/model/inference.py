"""Running a model over encoded rows, in the order and the batches that take the least time."""

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


def run(model: "keras.Model", encoded: Encoded, batch_size: int, name: str) -> list[np.ndarray]:
    """What the model puts out for each row, in float32 and without padding.

    Args:
        model: A model from `load`.
        encoded: What its task made of examples. With targets, a task that reduces its
            outputs does it in view of them.
        batch_size: Rows a batch.
        name: Of the examples, for messages.

    Raises:
        ModelError: If an output is not a finite number.
    """
    if not model.task.reduces_with_targets:
        encoded = dataclasses.replace(encoded, targets=None)
    outputs: list[Any] = [None] * len(encoded.features["input_ids"])
    for row, output in rows_of(model, encoded, batch_size, model.task.reduce_outputs):
        outputs[row] = output
    axis = model.task.token_axis
    if axis is not None:
        outputs = [
            output.take(range(len(ids)), axis)
            for output, ids in zip(outputs, encoded.features["input_ids"], strict=True)
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
    max_length: int | None = None,
) -> Iterator[tuple[int, Any]]:
    """Every row's number and output, in the order of their lengths, so that little is padding.

    Args:
        model: Any model whose inputs are among the features.
        encoded: As for `run`.
        batch_size: Rows a batch.
        kept: What is kept of a batch's (outputs, targets), an array or a dict of arrays; always
            the same one for a model.
        max_length: Tokens that a row may have; by default what the model can take.
    """
    lengths = [len(row) for row in encoded.features["input_ids"]]
    order = np.argsort(lengths, kind="stable")
    features = {key: [rows[i] for i in order] for key, rows in encoded.features.items()}
    targets = None
    if encoded.targets is not None:
        targets = [encoded.targets[i] for i in order]
    ordered = dataclasses.replace(encoded, features=features, targets=targets, group=1, draw=None)
    rows = iter(order)
    for outputs in _outputs(model, batches_of(ordered, model, batch_size, max_length), kept):
        yield from ((int(next(rows)), output) for output in _by_row(outputs))


def _by_row(outputs: Any) -> Iterator[Any]:
    """The rows of a batch's outputs; of a dict of arrays, each row is a dict."""
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
        # Fixed shapes a bucket, so that each is compiled once.
        for batch in batches.as_numpy_iterator():
            inputs, targets = batch if isinstance(batch, tuple) else (batch, None)
            yield as_floats(kept(model.predict_on_batch(inputs), targets))
        return
    import tensorflow as tf

    kernels.keep_buffers()
    spec, traced = batches.element_spec, traces_of(model)
    # One function with targets and one without: Keras's predict traces anew for other shapes.
    asks = isinstance(spec, tuple)
    key = ("outputs", asks)
    if key not in traced:
        reference = weakref.ref(model)  # the function must not keep its own key alive

        def forward(inputs: Any, *targets: Any) -> Any:
            # Not `model(…)`: a subclass may wrap what it returns to a caller.
            return kept(reference().call(inputs, training=False), *targets or (None,))

        signature = spec if asks else [spec]
        function = tf.function(forward, input_signature=signature, autograph=False)
        traced[key] = function.get_concrete_function()

    traced_outputs = traced[key]

    def outputs(batch: Any) -> Any:
        return as_floats(traced_outputs(*(batch if asks else (batch,))))

    yield from _side_by_side(outputs, batches)


def _side_by_side(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """As `map`, two calls at a time: one computes where the other cannot use all cores."""
    with ThreadPoolExecutor(2) as pool:
        waiting: deque[Future] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
