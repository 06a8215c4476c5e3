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

# One traced function a model: Keras's predict traces anew for batches of other shapes.
_TRACED: "weakref.WeakKeyDictionary[keras.Model, Any]" = weakref.WeakKeyDictionary()


def run(model: "keras.Model", encoded: Encoded, batch_size: int, name: str) -> list[np.ndarray]:
    """What the model puts out for each row, in float32 and without padding.

    Args:
        model: A model from `load`.
        encoded: What its task made of examples.
        batch_size: Rows a batch.
        name: Of the examples, for messages.

    Raises:
        ModelError: If an output is not a finite number.
    """
    lengths = [len(row) for row in encoded.features["input_ids"]]
    # Rows of like length side by side need less padding; the order is restored below.
    order = np.argsort(lengths, kind="stable")
    features = {key: [rows[i] for i in order] for key, rows in encoded.features.items()}
    batches = batches_of(
        dataclasses.replace(encoded, features=features, targets=None), model, batch_size
    )
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
        return [np.asarray(model.predict_on_batch(batch), dtype="float32") for batch in batches]
    import tensorflow as tf

    if model not in _TRACED:
        reference = weakref.ref(model)  # the function must not keep its own key alive
        _TRACED[model] = tf.function(
            lambda inputs: reference()(inputs, training=False),
            input_signature=[batches.element_spec],
        )
    forward = _TRACED[model]
    return [forward(batch).numpy().astype("float32", copy=False) for batch in batches]
