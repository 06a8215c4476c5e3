"""One vector for each example: the mean over all layers of the mean-pooled hidden states."""

import dataclasses
from typing import Any

import keras
import numpy as np

from finetune_tf.architectures import Pooling
from finetune_tf.base.keras_internals import inputs_struct
from finetune_tf.errors import ModelError
from finetune_tf.graph.hidden_states import state_outputs, states_of_chains, unused_name
from finetune_tf.graph.pieces import input_followed_by
from finetune_tf.model.inference import rows_of
from finetune_tf.tasks import Encoded
from finetune_tf.tasks.feature import MASKS

BATCH_SIZE = 64


def layer_means(model: keras.Model, encoded: Encoded, name: str) -> np.ndarray:
    """Returns a vector for each row: hidden states, averaged over the tokens and over the layers.

    The vectors of several chains, such as encoder and decoder, are concatenated. Where the layers
    of a chain have different widths, as in a ResNet, those with the width of the last one count.

    Args:
        model: A model from `load`.
        encoded: The rows that its task made of examples.
        name: The name of the examples, for messages.

    Returns:
        An array (rows, features) in float32.

    Raises:
        ModelError: If a vector is not finite.
    """
    encoded = dataclasses.replace(encoded, targets=None)
    part = _model_of_means(model, encoded)
    means = np.empty((len(encoded), part.output.shape[-1]), dtype="float32")
    for row, vector in rows_of(part, encoded, BATCH_SIZE, _outputs_alone, name):
        means[row] = vector
    if not np.isfinite(means).all():
        raise ModelError(
            f"The hidden states of {name} are not finite numbers: the checkpoint is broken, or its "
            "values are too large for float16. Compute in float32 or in mixed_bfloat16."
        )
    return means


def _model_of_means(model: keras.Model, encoded: Encoded) -> keras.Model:
    chains = list(states_of_chains(model).output.values())
    if len(chains) == 1:
        # If the head reads only the first token, the graph lacks the other ones of the last block.
        chains = [state_outputs(model)["hidden_states"]]
    vectors = [_mean_of_chain(model, encoded, states) for states in chains]
    joined = vectors[0] if len(vectors) == 1 else keras.layers.Concatenate()(vectors)
    return keras.Model(inputs_struct(model), joined, name=unused_name(f"{model.name}_means"))


def _mean_of_chain(model: keras.Model, encoded: Encoded, states: list[Any]) -> Any:
    axes = {mask: axis for axis, mask in MASKS.items()}
    axes |= {name: feature.axis for name, feature in encoded.inputs.items()}
    inputs = {tensor.name: tensor for tensor in model.inputs}
    lowest = keras.Model(inputs_struct(model), states[0])  # the state may be of an inner model
    axis = axes.get(input_followed_by(lowest, states[0]))
    mask = None if axis is None else inputs.get(MASKS[axis])
    masks = () if mask is None else (mask,)
    width = states[-1].shape[-1]
    pooled = [
        Pooling("mean", dtype="float32")(hidden, *masks)
        for hidden in states
        if hidden.shape[-1] == width
    ]
    return pooled[0] if len(pooled) == 1 else keras.layers.Average(dtype="float32")(pooled)


def _outputs_alone(outputs: Any, targets: Any) -> Any:
    return outputs
