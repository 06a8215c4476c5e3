"""The encoder of a classifier: the part below its output layer, on the same layers."""

from typing import Any

import keras
import numpy as np

from finetune_tf.adapters.attaching import adapters_of
from finetune_tf.base.keras_internals import inputs_struct
from finetune_tf.errors import ModelError
from finetune_tf.graph.hidden_states import unused_name
from finetune_tf.graph.stages import stages
from finetune_tf.graph.taps import input_of_head
from finetune_tf.graph.traces import traces_of
from finetune_tf.model.inference import rows_of
from finetune_tf.tasks import Encoded

# A trace of the encoder takes as long as so many batches save by it.
_FEW_BATCHES = 16


def encoder_of(model: keras.Model) -> keras.Model:
    """Returns a Keras model from the inputs of a classifier to the vectors that its head reads.

    It shares all layers with the classifier, so training it trains the classifier. There is one
    for each model, so that what was traced for it is traced once.

    Args:
        model: A classifier, or its upper part on cached features.

    Raises:
        ModelError: If the head does not read one vector for each text.
    """
    parts = traces_of(model)
    if "encoder" not in parts:
        vectors = input_of_head(model)
        if len(vectors.shape) != 2:
            raise ModelError(
                f"The head of {model.name!r} reads features of the shape {vectors.shape}, but "
                "few-shot methods need one vector for each text. Choose another pooling: "
                'ft.load(…, pooling="mean").'
            )
        name = unused_name(f"{model.name}_encoder")
        parts["encoder"] = keras.Model(inputs_struct(model), vectors, name=name)
    return parts["encoder"]


def vectors_of(
    model: keras.Model, encoded: Encoded, batch_size: int, name: str, passes: int | None = None
) -> np.ndarray:
    """Computes the vectors (rows, features) that the head of a classifier reads, in float32.

    Args:
        model: The classifier, or its upper part on cached features, for which the whole one runs.
        encoded: The rows that its task made of examples.
        batch_size: Rows in a batch.
        name: The name of the examples, for messages.
        passes: How often all rows are computed, as far as is known. The encoder is traced only if
            that pays; by default it does.

    Raises:
        ModelError: If a vector is not finite.
    """
    encoder = encoder_of(getattr(model, "whole", model))
    batches = -(-len(encoded) // batch_size)
    traces = passes is None or passes * batches > _FEW_BATCHES
    vectors = np.empty((len(encoded), encoder.output.shape[-1]), dtype="float32")
    for row, vector in rows_of(encoder, encoded, batch_size, _outputs_alone, name, traces=traces):
        vectors[row] = vector
    if not np.isfinite(vectors).all():
        raise ModelError(
            f"The encoder's vectors of {name} are not finite numbers: its weights are most likely "
            "broken. Train again, with a lower learning rate or without float16."
        )
    return vectors


def output_layer(model: keras.Model) -> Any:
    """Returns the Dense layer at the end of a classifier.

    Raises:
        ModelError: If the head is not a single Dense layer on the vectors.
    """
    layers = stages(model)[-1].layers
    found = [getattr(layer, "dense", layer) for layer in layers]
    width = input_of_head(model).shape[-1]
    kernel = getattr(found[0], "kernel", None)
    if len(found) != 1 or kernel is None or kernel.shape[0] != width:
        raise ModelError(
            f"The head of {model.name!r} consists of {', '.join(layer.name for layer in layers)}, "
            "and not of one linear layer on the vector of a text, so it cannot be computed from a "
            "few examples. Fine-tune the model with ft.finetune."
        )
    if found[0].bias is None:
        raise ModelError(
            f"The output layer of {model.name!r} has no bias, which these heads need. Load the "
            'model with ft.load(…, pooling="mean").'
        )
    if adapters := adapters_of(found[0]):
        names = ", ".join(repr(each.adapter_name) for each in adapters)
        raise ModelError(
            f"The output layer of {model.name!r} has an adapter ({names}), which would be added to "
            "what is computed for it. Write it into the kernel first: ft.adapters.merge(model), "
            f"and then ft.adapters.remove(model, {adapters[0].adapter_name!r})."
        )
    return found[0]


def _outputs_alone(outputs: Any, targets: Any) -> Any:
    return outputs
