"""Where tokens stand: rotary tables, relative biases and relative tables.

Each layer computes its table once a forward pass, for the whole text, and every block gets it. It
depends on the length of the text alone, not on its tokens.

Shape legend: B batch, H heads, L length, D features, F features of one head; P = 2L + 1 distances,
from -L to L.
"""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from finetune_tf.architectures.layers import PACKAGE, ConfigLayer, LayerNorm


@keras.saving.register_keras_serializable(PACKAGE)
class RotaryPositions(ConfigLayer):
    """Cosines and sines of the angles by which `rotate` turns queries and keys (Su et al. 2021).

    The table is float32 under every policy: far into a text, the last bit of a frequency shows.

    Args:
        size: F, how many features of a head are turned; an even number.
        theta: Base of the frequencies.
    """

    def __init__(self, size: int, theta: float = 10_000.0, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.record_arguments(locals())

    def call(self, tokens: Any, position_ids: Any = None) -> Any:
        """Makes the table.

        Args:
            tokens: (B, L), of which only the length counts.
            position_ids: (B, L), the position of each token; by default 0, 1, 2 …

        Returns:
            (1, L, F), or (B, L, F) with `position_ids`: F/2 cosines, then F/2 sines.
        """
        if position_ids is None:
            position_ids = ops.arange(ops.shape(tokens)[1])[None]
        size, theta = self._config["size"], np.float32(self._config["theta"])
        frequencies = 1.0 / theta ** (np.arange(0, size, 2, dtype="float32") / np.float32(size))
        angles = ops.cast(position_ids, "float32")[:, :, None] * frequencies  # (B, L, F/2)
        return ops.concatenate([ops.cos(angles), ops.sin(angles)], axis=-1)

    def compute_output_spec(self, tokens: Any, position_ids: Any = None) -> keras.KerasTensor:
        """(1, L, F) or (B, L, F), float32."""
        batch = 1 if position_ids is None else position_ids.shape[0]
        return keras.KerasTensor((batch, tokens.shape[1], self._config["size"]), "float32")


def rotate(x: Any, table: Any) -> Any:
    """Turns each pair of features (f, f + F/2) of queries or keys by the angle of its position.

    Args:
        x: (B, H, L, features); those beyond the F of the table stay as they are.
        table: (1, L, F) or (B, L, F) from `RotaryPositions`, the rows of these tokens.
    """
    size = table.shape[-1]
    if size < x.shape[-1]:
        return ops.concatenate([rotate(x[..., :size], table), x[..., size:]], axis=-1)
    cos, sin = ops.split(table[:, None], 2, axis=-1)  # (B, 1, L, F/2)
    first, second = ops.split(ops.cast(x, "float32"), 2, axis=-1)
    turned = ops.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return ops.cast(turned, x.dtype)


def relative_buckets(
    distances: Any, num_buckets: int, max_distance: int, bidirectional: bool = True
) -> Any:
    """Buckets of distances, as T5 has them (Raffel et al. 2020).

    Small distances have a bucket of their own; larger ones share buckets that grow
    logarithmically, up to `max_distance`, from where on all share the last one.

    Args:
        distances: Integers, key minus query.
        num_buckets: How many there are in all.
        max_distance: Where the last bucket begins.
        bidirectional: Whether half of the buckets are for keys behind the query. Otherwise all are
            for keys before it, and those behind it share the bucket of the query itself.

    Returns:
        Integers of the same shape, from 0 to `num_buckets` - 1.
    """
    behind = 0
    if bidirectional:
        num_buckets //= 2
        behind = ops.cast(distances > 0, "int32") * num_buckets
        distances = ops.abs(distances)
    else:
        distances = ops.maximum(-distances, 0)
    exact = num_buckets // 2
    span = math.log(max_distance / exact)
    growth = ops.log(ops.cast(ops.maximum(distances, 1), "float32") / exact) / span
    coarse = exact + ops.cast(growth * (num_buckets - exact), "int32")
    coarse = ops.minimum(coarse, num_buckets - 1)
    return behind + ops.where(distances < exact, ops.cast(distances, "int32"), coarse)


@keras.saving.register_keras_serializable(PACKAGE)
class RelativePositionBias(ConfigLayer):
    """A number for each head and bucket of distance, added to the scores (Raffel et al. 2020).

    Args:
        num_heads: H.
        num_buckets: Rows of the table.
        used_buckets: How many of them distances are sorted into.
        max_distance: From here on all distances share the last bucket.
        initializer_range: Standard deviation of a new table.
        bidirectional: As of `relative_buckets`.
    """

    carried = True  # all blocks read its output; see `finetune_tf.graph.pieces`

    def __init__(
        self,
        num_heads: int,
        num_buckets: int = 32,
        used_buckets: int = 32,
        max_distance: int = 128,
        initializer_range: float = 0.02,
        bidirectional: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.record_arguments(locals())
        self.table = keras.layers.Embedding(
            num_buckets,
            num_heads,
            embeddings_initializer=keras.initializers.RandomNormal(stddev=initializer_range),
            dtype=self.dtype_policy,
            name="table",
        )

    def build(self, input_shape: tuple) -> None:
        """Builds the table (num_buckets, H)."""
        self.table.build(input_shape)

    def call(self, tokens: Any) -> Any:
        """(B, L), of which only the length counts, to (1, H, L, L)."""
        steps = ops.arange(ops.shape(tokens)[1])
        buckets = relative_buckets(
            steps[None, :] - steps[:, None],  # (L, L), key minus query
            self._config["used_buckets"],
            self._config["max_distance"],
            self._config["bidirectional"],
        )
        return ops.transpose(self.table(buckets), (2, 0, 1))[None]

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """(1, H, L, L)."""
        return (1, self._config["num_heads"], input_shape[1], input_shape[1])


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
class RelativePositions(ConfigLayer):
    """A vector for each distance that a text of length L can have between two tokens.

    Args:
        hidden_size: D.
        max_distance: From here on all distances share a row.
        num_buckets: Rows on either side of 0, into which distances are sorted by `log_buckets`;
            None for a row of its own for each distance.
        layer_norm_eps: Epsilon of a normalisation of the rows; None for no normalisation.
        initializer_range: Standard deviation of a new table.
    """

    carried = True  # all blocks read its output; see `finetune_tf.graph.pieces`

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
        self.record_arguments(locals())
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

    def call(self, tokens: Any) -> Any:
        """(B, L), of which only the length counts, to (1, P, D)."""
        length = ops.shape(tokens)[1]
        distances = ops.arange(2 * length + 1) - length
        distances = ops.clip(distances, -self._reach, self._reach)
        hidden = self.table(ops.take(self._rows, distances + self._reach))[None]
        return hidden if self.norm is None else self.norm(hidden)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """(1, P, D)."""
        length = input_shape[1]
        return (1, length and 2 * length + 1, self._config["hidden_size"])
