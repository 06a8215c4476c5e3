"""Vectors for relative positions, as DeBERTa's attention wants them.

Shape legend: B batch, L length, D features; P = 2L + 1 distances, from -L to L.
"""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from finetune_tf.architectures.layers import PACKAGE, LayerNorm


def log_buckets(distances: np.ndarray, num_buckets: int, max_distance: int) -> np.ndarray:
    """Buckets of distances, as DeBERTa v3 has them (He et al. 2023).

    Up to half of the buckets, a distance is its own bucket; larger ones share buckets that grow
    logarithmically, so that `max_distance` - 1 has the last one.

    Args:
        distances: Integers, with a sign.
        num_buckets: On either side of 0.
        max_distance: More than half of the buckets, by more than one.

    Returns:
        Integers of the same shape and sign.
    """
    half = num_buckets // 2
    far = np.maximum(np.abs(distances), 1)
    # In float32 as in PyTorch, since a rounding decides between two buckets.
    growth = np.log(np.float32(far) / np.float32(half)) / np.log(
        np.float32((max_distance - 1) / half)
    )
    coarse = np.ceil(growth * np.float32(half - 1)) + half
    return np.where(far <= half, distances, np.sign(distances) * coarse).astype("int32")


@keras.saving.register_keras_serializable(PACKAGE)
class RelativePositions(keras.layers.Layer):
    """A vector for each distance that a text of length L can have between two tokens.

    Args:
        hidden_size: D.
        max_distance: From here on all distances share a row.
        num_buckets: Rows on either side of 0, into which distances are sorted by `log_buckets`;
            None for a row of its own for each distance.
        layer_norm_eps: Epsilon of a normalisation of the rows; None for no normalisation.
        initializer_range: Standard deviation of a new table.
    """

    carried = True  # all blocks read its output; see `finetune_tf.pieces`

    def __init__(
        self,
        hidden_size: int,
        max_distance: int,
        num_buckets: int | None = None,
        layer_norm_eps: float | None = None,
        initializer_range: float = 0.02,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._config = {
            "hidden_size": hidden_size,
            "max_distance": max_distance,
            "num_buckets": num_buckets,
            "layer_norm_eps": layer_norm_eps,
            "initializer_range": initializer_range,
        }
        side = num_buckets or max_distance
        self.table = keras.layers.Embedding(
            2 * side,
            hidden_size,
            embeddings_initializer=keras.initializers.RandomNormal(stddev=initializer_range),
            dtype=self.dtype_policy,
            name="table",
        )
        self.norm = None
        if layer_norm_eps is not None:
            self.norm = LayerNorm(layer_norm_eps, dtype=self.dtype_policy, name="norm")
        # NumPy sorts all distances up to the one from which on nothing changes: a logarithm on
        # the device may round to the other side of a bucket.
        self._reach = side
        distances = np.arange(-side, side + 1)
        if num_buckets:
            half = num_buckets // 2
            power = (num_buckets - half - 1) / max(half - 1, 1)
            self._reach = math.ceil(half * ((max_distance - 1) / half) ** power) + 1
            distances = np.arange(-self._reach, self._reach + 1)
            distances = log_buckets(distances, num_buckets, max_distance)
        self._rows = np.clip(distances + side, 0, 2 * side - 1).astype("int32")

    def build(self, input_shape: tuple) -> None:
        """Builds the table and the normalisation."""
        self.table.build(input_shape)
        if self.norm is not None:
            self.norm.build((None, self._config["hidden_size"]))

    def call(self, input_ids: Any) -> Any:
        """(B, L) ids, of which only the length counts, to (1, P, D)."""
        length = ops.shape(input_ids)[1]
        distances = ops.arange(2 * length + 1) - length
        distances = ops.clip(distances, -self._reach, self._reach)
        hidden = self.table(ops.take(self._rows, distances + self._reach))[None]
        return hidden if self.norm is None else self.norm(hidden)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """(1, P, D)."""
        length = input_shape[1]
        return (1, length and 2 * length + 1, self._config["hidden_size"])

    def get_config(self) -> dict:
        """Keras config."""
        return {**super().get_config(), **self._config}
