"""A model in two: stages in which nothing learns, and those above; both share its weights."""

from dataclasses import dataclass
from typing import Any

import keras

from finetune_tf.data.stored import FEATURES
from finetune_tf.errors import CacheError
from finetune_tf.stages import cuts, learnable_variables, ordered_nodes


@dataclass(frozen=True)
class Halves:
    """A model in two.

    Attributes:
        trunk: From the model's inputs to the cut. Nothing in it learns.
        inputs: Symbolic inputs of the upper half by name: "stored_features", what crosses the cut,
            and those of the model's inputs that are needed above it.
        outputs: Symbolic output of the upper half.
    """

    trunk: keras.Model
    inputs: dict[str, Any]
    outputs: Any


def halves(model: keras.Model) -> Halves:
    """Cuts a Functional model above the longest run of stages in which nothing learns.

    What has no weights, such as an average over tokens, goes with the stage below it: a text that
    is pooled there crosses the cut as one vector.

    Args:
        model: A model of ours.

    Raises:
        CacheError: If the lowest stage learns, or nothing does.
    """
    layers, tensor = [], None
    for cut in cuts(model):
        if any(v.trainable for layer in cut.layers for v in learnable_variables(layer)):
            break
        layers += cut.layers
        tensor = cut.tensor
    else:
        raise CacheError("Nothing in the model learns, so there is nothing to train on features.")
    if not layers:
        raise CacheError(
            "The lowest stage of the model learns, so every step changes all features and none "
            "can be stored. Freeze stages from below first, for example with "
            "ft.train_only(model, ft.select.head())."
        )
    below = {given.name: given for given in model.inputs}
    return Halves(keras.Model(below, tensor), *_above(model, tensor))


def _above(model: keras.Model, tensor: Any) -> tuple[dict[str, Any], Any]:
    """Calls the layers above a tensor once more, on an input that takes its place."""
    makers = {id(t): node for node in ordered_nodes(model) for t in node.output_tensors}
    features = keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=FEATURES)
    inputs, known = {FEATURES: features}, {id(tensor): features}

    def again(wanted: Any) -> Any:
        if id(wanted) not in known:
            node = makers[id(wanted)]
            if not node.input_tensors:  # one of the model's inputs
                inputs[wanted.name] = known[id(wanted)] = wanted
                return wanted
            for tensor in node.input_tensors:
                again(tensor)
            arguments, options = node.arguments.fill_in(known)
            known[id(wanted)] = node.operation(*arguments, **options)
        return known[id(wanted)]

    outputs = again(model.outputs[0])
    return inputs, outputs
