"""Resizing the vocabulary of a model for tokens that were added to the tokenizer."""

from contextlib import ExitStack
from typing import Any

import keras
import numpy as np
from keras import ops

from finetune_tf.base.arguments import check
from finetune_tf.base.keras_internals import own_variables
from finetune_tf.errors import ModelError
from finetune_tf.graph.traces import forget_traces


def resize(model: Any, size: int) -> None:
    """Resizes the token embedding table and the bias of a masked-language-model head.

    Args:
        model: A model from `load` that is not compiled yet.
        size: The new number of rows. New rows are initialized as in a new model; surplus rows are
            removed at the end.

    Raises:
        ArgumentError: If the size is not a positive integer.
        ModelError: If the model is compiled, because its optimizer refers to the old variables.
    """
    check(size=size)
    if size == model.config["vocab_size"]:
        return
    if getattr(model, "optimizer", None) is not None:
        raise ModelError(
            "Resize the vocabulary before compile: the optimizer refers to the old embedding table."
        )
    embeddings = model.get_layer("embeddings")
    word = embeddings.word
    _replace(word, "_embeddings", word.embeddings_initializer, size)
    word.input_dim = embeddings._config["vocab_size"] = size
    if any(layer.name == "vocabulary_bias" for layer in model.layers):
        bias = model.get_layer("vocabulary_bias")
        _replace(bias, "bias", keras.initializers.Zeros(), size)
    model.config["vocab_size"] = size
    forget_traces(model)


def _replace(layer: keras.layers.Layer, name: str, initializer: Any, rows: int) -> None:
    """Replaces a variable of a layer by one with another number of rows."""
    old = getattr(layer, name)
    kept = ops.convert_to_numpy(old)[:rows]
    fresh = ops.convert_to_numpy(initializer((rows - len(kept), *old.shape[1:])))
    with ExitStack() as scopes:
        for part in old.path.split("/")[:-1]:
            scopes.enter_context(keras.name_scope(part))
        new = keras.Variable(np.concatenate([kept, fresh]), dtype=old.dtype, name=old.name)
    new.trainable = old.trainable
    variables = own_variables(layer)
    variables[next(i for i, variable in enumerate(variables) if variable is old)] = new
    object.__setattr__(layer, name, new)  # a built Keras layer does not accept new variables
