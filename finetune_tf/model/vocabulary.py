"""Resizing the vocabulary of a model for tokens that were added to the tokenizer."""

from contextlib import ExitStack
from typing import Any

import keras
import numpy as np
from keras import ops

from finetune_tf.adapters.attaching import adapters_of
from finetune_tf.base.arguments import check
from finetune_tf.base.keras_internals import own_constants, own_variables, set_last_axis
from finetune_tf.errors import ModelError
from finetune_tf.graph.pieces import ordered_nodes
from finetune_tf.graph.traces import forget_traces
from finetune_tf.training.pretrained import remember_changed


def resize(model: Any, size: int) -> None:
    """Resizes the token embedding table, and the head of a language model.

    Args:
        model: A model from `load` that is not compiled yet.
        size: The new number of rows. New rows are initialized as in a new model; surplus rows are
            removed at the end.

    Raises:
        ArgumentError: If the size is not a positive integer.
        ModelError: If the model is compiled, because its optimizer refers to the old variables; or
            if encoder and decoder have token embeddings of their own, or if the output layer has an
            adapter.
    """
    check(size=size)
    if size == model.config["vocab_size"]:
        return
    if getattr(model, "optimizer", None) is not None:
        raise ModelError(
            "Resize the vocabulary before compile: the optimizer refers to the old embedding table."
        )
    if not any(layer.name == "embeddings" for layer in model.layers):
        raise ModelError(
            "The encoder and the decoder of this model have token embeddings of their own, so one "
            "size does not fit both. Only a vocabulary that they share can be resized."
        )
    if any(layer.name == "lm_head" and adapters_of(layer.dense) for layer in model.layers):
        raise ModelError(
            "The output layer lm_head has an adapter, whose size is that of the vocabulary. Resize "
            "the vocabulary before adapters are added."
        )
    embeddings = model.get_layer("embeddings")
    word = embeddings.word
    _replace(word, "_embeddings", word.embeddings_initializer, size)
    word.input_dim = embeddings._config["vocab_size"] = size
    if any(layer.name == "vocabulary_bias" for layer in model.layers):
        bias = model.get_layer("vocabulary_bias")
        _replace(bias, "bias", keras.initializers.Zeros(), size)
    if any(layer.name == "lm_head" for layer in model.layers):
        head = model.get_layer("lm_head")
        _replace(head.dense, "_kernel", head.dense.kernel_initializer, size, axis=1)
        head.dense.units = head._config["vocab_size"] = size
    for node in ordered_nodes(model):
        is_decoder = node.operation is embeddings and node.arguments.kwargs.get("decode")
        if is_decoder or node.operation.name in ("vocabulary_bias", "lm_head"):
            set_last_axis(node.output_tensors[0], size)
    remember_changed(model, [word.embeddings])
    model.config["vocab_size"] = size
    if model.config.get("decoder_vocab_size"):  # Marian's, which is the same one if it is shared
        model.config["decoder_vocab_size"] = size
    forget_traces(model)


def _replace(
    layer: keras.layers.Layer, name: str, initializer: Any, size: int, axis: int = 0
) -> None:
    """Replaces a variable of a layer by one with another size along an axis."""
    old = getattr(layer, name)
    kept = np.moveaxis(ops.convert_to_numpy(old), axis, 0)[:size]
    fresh = ops.convert_to_numpy(initializer((size - len(kept), *kept.shape[1:])))
    values = np.moveaxis(np.concatenate([kept, fresh]), 0, axis)
    with ExitStack() as scopes:
        for part in old.path.split("/")[:-1]:
            scopes.enter_context(keras.name_scope(part))
        new = keras.Variable(values, dtype=old.dtype, name=old.name)
    new.trainable = old.trainable
    for variables in (own_variables(layer), own_constants(layer)):
        for i, variable in enumerate(variables):
            if variable is old:
                variables[i] = new
    object.__setattr__(layer, name, new)  # a built Keras layer does not accept new variables
