"""What the old classes of language models made of `labels`: targets and decoder inputs.

Shape legend: B batch, T target length.
"""

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from finetune_tf.errors import ModelError
from finetune_tf.families import FAMILIES
from finetune_tf.tasks import IGNORED

# In transformers 4, the loss of these families ignored labels that are padding.
_IGNORE_PADDING = ("bart", "mbart", "pegasus", "marian")


def shifted_right(labels: Any, config: Mapping[str, Any]) -> Any:
    """Returns what the decoder reads for labels: the start token, and all labels but the last.

    mBART has no start token: its decoder starts with the last token of the labels, the language.

    Args:
        labels: (B, T), token ids; -100 counts as padding.
        config: The config of an encoder-decoder.

    Returns:
        (B, T) int32.

    Raises:
        ModelError: If the config has no start token or no padding token.

    Example:
        >>> from finetune_tf.compat.decoder_inputs import shifted_right
        >>> config = {"model_type": "t5", "decoder_start_token_id": 0, "pad_token_id": 0}
        >>> shifted_right(np.array([[7, 8, 1, -100]]), config).numpy().tolist()
        [[0, 7, 8, 1]]
    """
    padding, start = config.get("pad_token_id"), config.get("decoder_start_token_id")
    if padding is None:
        raise ModelError(
            "The config of the model has no pad_token_id, which takes the place of -100 in the "
            "inputs of the decoder. Set model.config.pad_token_id."
        )
    labels = ops.cast(labels, "int32")
    labels = ops.where(ops.equal(labels, IGNORED), padding, labels)
    if FAMILIES[config["model_type"]].defaults["decoder_start_token_id"] is None:
        lengths = ops.sum(ops.cast(ops.not_equal(labels, padding), "int32"), axis=1)
        last = ops.maximum(lengths - 1, 0)[:, None]
        first = ops.take_along_axis(labels, last, axis=1)
    elif start is None:
        raise ModelError(
            "The config of the model has no decoder_start_token_id, the token that a decoder "
            "starts with. Set model.config.decoder_start_token_id."
        )
    else:
        first = ops.full_like(labels[:, :1], start)
    return ops.concatenate([first, labels[:, :-1]], axis=1)


def without_padding(labels: Any, config: Mapping[str, Any]) -> Any:
    """Returns labels (B, T) with -100 in place of padding where the old class ignored padding."""
    if config["model_type"] not in _IGNORE_PADDING:
        return labels
    labels = ops.cast(labels, "int32")
    return ops.where(ops.equal(labels, config["pad_token_id"]), IGNORED, labels)


def with_decoder_inputs(inputs: dict, labels: Any, config: Mapping[str, Any]) -> dict:
    """Returns the inputs of an encoder-decoder, with decoder inputs made of labels if needed.

    Args:
        inputs: The inputs by name.
        labels: (B, T), or None.
        config: The config of the model.

    Raises:
        ModelError: If there are neither decoder inputs nor labels.
    """
    if "decoder_input_ids" in inputs:
        return inputs
    if labels is None:
        raise ModelError(
            "An encoder-decoder expects labels, of which the inputs of its decoder are made, or "
            "decoder_input_ids. To generate text, call model.generate(**inputs)."
        )
    if keras.utils.is_keras_tensor(labels):
        raise ModelError("In a keras.Model, give decoder_input_ids instead of labels.")
    return {**inputs, "decoder_input_ids": shifted_right(labels, config)}
