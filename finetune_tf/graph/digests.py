"""A digest of the weights of a model, by which one tells whether they have changed."""

import hashlib
from typing import Any

import keras
import numpy as np


def digest_of_weights(model: keras.Model, about: str = "") -> str:
    """Returns a digest of the values of all weights of a model, in hexadecimal digits.

    Args:
        model: The model.
        about: What else the digest depends on.

    Example:
        >>> from finetune_tf.graph.digests import digest_of_weights
        >>> len(digest_of_weights(model))
        32
    """
    digest = hashlib.blake2b(about.encode(), digest_size=16)
    for variable in model.weights:
        digest.update(_content(variable))
    return digest.hexdigest()


def digest_of_values(values: Any) -> str:
    """Returns a digest of the values of one variable, or of an array, in hexadecimal digits.

    Args:
        values: The variable or the array.

    Example:
        >>> from finetune_tf.graph.digests import digest_of_values
        >>> len(digest_of_values(np.zeros(3)))
        32
    """
    return hashlib.blake2b(_content(values), digest_size=16).hexdigest()


def _content(values: Any) -> np.ndarray:
    return np.ascontiguousarray(keras.ops.convert_to_numpy(values))
