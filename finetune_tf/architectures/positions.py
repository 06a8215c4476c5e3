"""Position encodings: rotary tables, relative position biases and relative position embeddings.

Each layer computes its table once per forward pass for the whole sequence, and every block uses it.
The table depends only on the length of the sequence, not on its tokens.

Shape legend: B batch, H heads, L length, D features, F features of one head; P = 2L + 1 distances,
from -L to L.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from finetune_tf.architectures.layers import PACKAGE, ConfigLayer, LayerNorm


def rotary_frequencies(size: int, theta: float) -> np.ndarray:
    """Radians by which each pair of features turns a position: (size / 2,) float32."""
    exponents = np.arange(0, size, 2, dtype="float32") / np.float32(size)
    return np.float32(1.0) / np.float32(theta) ** exponents


@keras.saving.register_keras_serializable(PACKAGE)
class RotaryPositions(ConfigLayer):
    """Rotary position embeddings: the cosines and sines that `rotate` applies (Su et al. 2021).

    The table is float32 under every dtype policy, because rounding errors of the frequencies grow
    with the position.

    Args:
        size: F, the number of features of a head that are rotated; even.
        theta: Base of the frequencies.
        frequencies: (F/2,) radians a position, instead of those that follow from `theta`.
        scale: What cosines and sines are multiplied with.
    """

    def __init__(
        self,
        size: int,
        theta: float = 10_000.0,
        frequencies: Sequence[float] | None = None,
        scale: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.record_arguments(locals())

    def call(self, tokens: Any, position_ids: Any = None) -> Any:
        """Computes the table.

        Args:
            tokens: (B, L); only the length is used.
            position_ids: (B, L), the position of each token; by default 0, 1, 2 …

        Returns:
            (1, L, F), or (B, L, F) with `position_ids`: F/2 cosines, then F/2 sines.
        """
        if position_ids is None:
            position_ids = ops.arange(ops.shape(tokens)[1])[None]
        frequencies = self._config["frequencies"]
        if frequencies is None:
            frequencies = rotary_frequencies(self._config["size"], self._config["theta"])
        frequencies = np.asarray(frequencies, "float32")
        angles = ops.cast(position_ids, "float32")[:, :, None] * frequencies  # (B, L, F/2)
        table = ops.concatenate([ops.cos(angles), ops.sin(angles)], axis=-1)
        return table if self._config["scale"] == 1.0 else table * self._config["scale"]

    def compute_output_spec(self, tokens: Any, position_ids: Any = None) -> keras.KerasTensor:
        """Returns the spec of the output, (1, L, F) or (B, L, F), float32."""
        batch = 1 if position_ids is None else position_ids.shape[0]
        return keras.KerasTensor((batch, tokens.shape[1], self._config["size"]), "float32")


def rotate(x: Any, table: Any) -> Any:
    """Rotates each pair of features (f, f + F/2) of queries or keys by the angle of its position.

    Args:
        x: (B, H, L, features). Features beyond the F of the table are returned unchanged.
        table: (1, L, F) or (B, L, F) from `RotaryPositions`, the rows of these tokens.

    Returns:
        A tensor of the shape and dtype of `x`.
    """
    size = table.shape[-1]
    if size < x.shape[-1]:
        return ops.concatenate([rotate(x[..., :size], table), x[..., size:]], axis=-1)
    cos, sin = ops.split(table[:, None], 2, axis=-1)  # (B, 1, L, F/2)
    first, second = ops.split(ops.cast(x, "float32"), 2, axis=-1)
    rotated = ops.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return ops.cast(rotated, x.dtype)


def sinusoidal_table(positions: int, size: int) -> np.ndarray:
    """Computes the position encodings of Vaswani et al. 2017, sines before cosines.

    Args:
        positions: Number of positions.
        size: D.

    Returns:
        (positions, D) float32; the first half of the features, rounded up, are the sines.

    Example:
        >>> sinusoidal_table(2, 4).round(2).tolist()
        [[0.0, 0.0, 1.0, 1.0], [0.8399999737739563, 0.009999999776482582, 0.5400000214576721, 1.0]]
    """
    features = np.arange(size)
    angles = np.arange(positions)[:, None] / np.power(10_000, 2 * (features // 2) / size)
    table = np.concatenate([np.sin(angles[:, 0::2]), np.cos(angles[:, 1::2])], axis=1)
    return table.astype("float32")


def relative_buckets(
    distances: Any, num_buckets: int, max_distance: int, bidirectional: bool = True
) -> Any:
    """Computes the relative position buckets of T5 (Raffel et al. 2020).

    Each small distance has its own bucket. Larger distances share buckets whose width grows
    logarithmically up to `max_distance`; all distances from there on share the last bucket.

    Args:
        distances: Integers, key position minus query position.
        num_buckets: Total number of buckets.
        max_distance: Distance at which the last bucket begins.
        bidirectional: Whether half of the buckets are for keys after the query. Otherwise all of
            them are for keys before it, and keys after it have bucket 0, as the query itself.

    Returns:
        Integers of the same shape, from 0 to `num_buckets` - 1.

    Example:
        >>> relative_buckets(np.array([-90, -8, -1, 0, 1, 8, 90]), 32, 128).numpy().tolist()
        [14, 8, 1, 0, 17, 24, 30]
    """
    offset = 0
    if bidirectional:
        num_buckets //= 2
        offset = ops.cast(distances > 0, "int32") * num_buckets
        distances = ops.abs(distances)
    else:
        distances = ops.maximum(-distances, 0)
    exact = num_buckets // 2
    span = math.log(max_distance / exact)
    growth = ops.log(ops.cast(ops.maximum(distances, 1), "float32") / exact) / span
    log_bucket = exact + ops.cast(growth * (num_buckets - exact), "int32")
    log_bucket = ops.minimum(log_bucket, num_buckets - 1)
    return offset + ops.where(distances < exact, ops.cast(distances, "int32"), log_bucket)


@keras.saving.register_keras_serializable(PACKAGE)
class RelativePositionBias(ConfigLayer):
    """The relative position bias of T5, a scalar per head and bucket (Raffel et al. 2020).

    It is added to the attention scores.

    Args:
        num_heads: H.
        num_buckets: Rows of the table.
        used_buckets: Number of buckets that distances are mapped to.
        max_distance: Distance from which on all distances share the last bucket.
        initializer_range: Standard deviation of a new table.
        bidirectional: As for `relative_buckets`.
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

    def call(self, tokens: Any, last_query: bool = False) -> Any:
        """Computes the biases.

        Args:
            tokens: (B, L); only the length is used.
            last_query: Whether the last token is the only query, as in the steps of generation.

        Returns:
            (1, H, L, L), or (1, H, 1, L) with `last_query`.
        """
        keys = ops.arange(ops.shape(tokens)[1])
        queries = keys[-1:] if last_query else keys
        buckets = relative_buckets(
            keys[None, :] - queries[:, None],  # key minus query
            self._config["used_buckets"],
            self._config["max_distance"],
            self._config["bidirectional"],
        )
        return ops.transpose(self.table(buckets), (2, 0, 1))[None]

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns the shape (1, H, L, L)."""
        return (1, self._config["num_heads"], input_shape[1], input_shape[1])


def log_buckets(distances: np.ndarray, num_buckets: int, max_distance: int) -> np.ndarray:
    """Computes the relative position buckets of DeBERTa v3 (He et al. 2023).

    A distance up to `num_buckets` / 2 is its own bucket. Larger distances share buckets whose width
    grows logarithmically, such that `max_distance` - 1 is in the last one.

    Args:
        distances: Signed integers.
        num_buckets: Number of buckets on either side of 0.
        max_distance: Larger than `num_buckets` / 2 + 1.

    Returns:
        Integers of the same shape and sign.

    Example:
        >>> log_buckets(np.array([-63, -5, 0, 4, 10, 11, 63]), 8, 64).tolist()
        [-7, -5, 0, 4, 5, 6, 7]
    """
    half = num_buckets // 2
    far = np.maximum(np.abs(distances), 1)
    # In float32 as in PyTorch, because rounding decides between two buckets.
    growth = np.log(np.float32(far) / np.float32(half)) / np.log(
        np.float32((max_distance - 1) / half)
    )
    log_bucket = np.ceil(growth * np.float32(half - 1)) + half
    return np.where(far <= half, distances, np.sign(distances) * log_bucket).astype("int32")


@keras.saving.register_keras_serializable(PACKAGE)
class RelativePositions(ConfigLayer):
    """Relative position embeddings (Shaw et al. 2018): a vector for each distance in a sequence.

    Args:
        hidden_size: D.
        max_distance: Distance from which on all distances share a row.
        num_buckets: Number of rows on either side of 0, to which `log_buckets` maps distances;
            None for a separate row for each distance.
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
        rows_per_side = num_buckets or max_distance
        self.table = keras.layers.Embedding(
            2 * rows_per_side,
            hidden_size,
            embeddings_initializer=keras.initializers.RandomNormal(stddev=initializer_range),
            dtype=self.dtype_policy,
            name="table",
        )
        self.norm = None
        if layer_norm_eps is not None:
            self.norm = LayerNorm(layer_norm_eps, dtype=self.dtype_policy, name="norm")
        # The lookup table up to the distance from which on the bucket does not change is computed
        # with NumPy, because a logarithm on the device may round to a neighbouring bucket.
        self._max_lookup = rows_per_side
        distances = np.arange(-rows_per_side, rows_per_side + 1)
        if num_buckets:
            half = num_buckets // 2
            power = (num_buckets - half - 1) / max(half - 1, 1)
            self._max_lookup = math.ceil(half * ((max_distance - 1) / half) ** power) + 1
            distances = np.arange(-self._max_lookup, self._max_lookup + 1)
            distances = log_buckets(distances, num_buckets, max_distance)
        self._lookup = np.clip(distances + rows_per_side, 0, 2 * rows_per_side - 1).astype("int32")

    def build(self, input_shape: tuple) -> None:
        """Builds the table and the normalisation."""
        self.table.build(input_shape)
        if self.norm is not None:
            self.norm.build((None, self._config["hidden_size"]))

    def call(self, tokens: Any) -> Any:
        """Returns vectors (1, P, D); of the tokens (B, L) only the length is used."""
        length = ops.shape(tokens)[1]
        distances = ops.arange(2 * length + 1) - length
        distances = ops.clip(distances, -self._max_lookup, self._max_lookup)
        hidden = self.table(ops.take(self._lookup, distances + self._max_lookup))[None]
        return hidden if self.norm is None else self.norm(hidden)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns the shape (1, P, D)."""
        length = input_shape[1]
        return (1, length and 2 * length + 1, self._config["hidden_size"])
