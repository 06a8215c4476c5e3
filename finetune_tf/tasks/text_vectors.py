"""The inputs of encoders that return one vector for each text."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from finetune_tf.errors import ModelError
from finetune_tf.families import FAMILIES
from finetune_tf.tasks.encoded import token_inputs
from finetune_tf.tasks.feature import Feature


def text_inputs(
    encoding: Any, tokenizer: Any, config: Mapping[str, Any], max_length: int
) -> dict[str, Feature]:
    """The inputs of texts, padded to the maximum length if the model was trained so.

    Args:
        encoding: A tokenizer's output for several texts, not padded.
        tokenizer: The tokenizer.
        config: The config of the model.
        max_length: Tokens that a row may have, special ones included.
    """
    inputs = token_inputs(encoding, tokenizer)
    if not pads_texts(config):
        return inputs
    # A row of full length has a mask of ones: its padding is part of the text.
    return {name: _padded(feature, max_length) for name, feature in inputs.items()}


def pads_texts(config: Mapping[str, Any]) -> bool:
    """Whether a model reads all texts with padding, as SigLIP does."""
    family = FAMILIES.get(config.get("model_type"))
    return family is not None and family.pads_texts


def require_complete_rows(model: Any, max_length: int) -> None:
    """Checks that rows are as long as those that the model was trained with, if it pads texts.

    Raises:
        ModelError: If they are shorter, so that their vectors would be others.
    """
    config = model.task.config
    if pads_texts(config) and max_length != model.max_length:
        raise ModelError(
            f"max_length={max_length} would change the vectors of all texts: "
            f"{config['model_type']} reads each text with padding to {model.max_length} "
            "tokens. Leave it out."
        )


def _padded(feature: Feature, length: int) -> Feature:
    rows = [
        np.pad(row, (0, length - len(row)), constant_values=feature.padding) for row in feature.rows
    ]
    return Feature(rows, feature.axis, feature.padding, feature.dtype)
