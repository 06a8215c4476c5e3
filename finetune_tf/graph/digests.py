"""A digest of the weights of a model, by which one tells whether they have changed."""

import hashlib

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
        digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(variable)))
    return digest.hexdigest()
