"""Running a model over encoded rows, in the order and the batches that take the least time."""

import dataclasses
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_tf.data.batching import batches_of
from finetune_tf.errors import ModelError
from finetune_tf.tasks import Encoded

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

# One traced function a model, with and without targets: Keras's predict traces anew for batches
# of other shapes.
_TRACED: "weakref.WeakKeyDictionary[keras.Model, dict]" = weakref.WeakKeyDictionary()


def run(model: "keras.Model", encoded: Encoded, batch_size: int, name: str) -> list[np.ndarray]:
    """What the model puts out for each row, in float32 and without padding.

    Args:
        model: A model from `load`.
        encoded: What its task made of examples. With targets, a task that condenses what it
            keeps does it in view of them.
        batch_size: Rows a batch.
        name: Of the examples, for messages.

    Raises:
        ModelError: If an output is not a finite number.
    """
    lengths = [len(row) for row in encoded.features["input_ids"]]
    # Rows of like length side by side need less padding; the order is restored below.
    order = np.argsort(lengths, kind="stable")
    features = {key: [rows[i] for i in order] for key, rows in encoded.features.items()}
    targets = None
    if model.task.condenses and encoded.targets is not None:
        targets = [encoded.targets[i] for i in order]
    ordered = dataclasses.replace(encoded, features=features, targets=targets, group=1, draw=None)
    batches = batches_of(ordered, model, batch_size)
    outputs: list[Any] = [None] * len(lengths)
    done = 0
    for batch in _outputs(model, batches):
        for output in batch:
            outputs[order[done]] = output
            done += 1
    axis = model.task.token_axis
    if axis is not None:
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


def _outputs(model: "keras.Model", batches: "tf.data.Dataset") -> list[np.ndarray]:
    import keras

    if keras.backend.backend() != "tensorflow":
        # Fixed shapes a bucket, so that each is compiled once.
        outputs = []
        for batch in batches:
            inputs, targets = batch if isinstance(batch, tuple) else (batch, None)
            targets = None if targets is None else targets.numpy()
            output = model.task.condensed(model.predict_on_batch(inputs), targets)
            outputs.append(np.asarray(output, dtype="float32"))
        return outputs
    import tensorflow as tf

    spec, traced = batches.element_spec, _TRACED.setdefault(model, {})
    asks = isinstance(spec, tuple)  # whether targets come with the inputs
    if asks not in traced:
        reference = weakref.ref(model)  # the function must not keep its own key alive

        def forward(inputs: Any, targets: Any = None) -> Any:
            model = reference()
            return model.task.condensed(model(inputs, training=False), targets)

        traced[asks] = tf.function(forward, input_signature=spec if asks else [spec])
    batches = (batch if asks else (batch,) for batch in batches)
    return [traced[asks](*batch).numpy().astype("float32", copy=False) for batch in batches]
