"""Self-attention, with the ways in which families tell it about positions.

Shape legend: B batch, H heads, L length, D features, F features of one head.
"""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from finetune_tf import kernels
from finetune_tf.architectures.layers import PACKAGE, dense, first_row


class Attention(keras.layers.Layer):
    """What all attentions have in common; each projects and weighs in its own way.

    A subclass has `num_heads`, `output_dense`, `_project` (hidden to query, key and value,
    (B, H, L, F) each) and `_weights` (to what `weights_of` gives, dropped out in training). With
    `first_token`, weights have only the first row, and the query need have no other.
    """

    def call(
        self,
        hidden: Any,
        attention_mask: Any,
        positions: Any = None,
        first_token: bool = False,
        training: bool | None = None,
    ) -> Any:
        """Attends from every position to the unmasked ones.

        Args:
            hidden: (B, L, D).
            attention_mask: (B, L), 1 for real tokens.
            positions: What the family's layer for relative positions gives; None for nothing.
            first_token: Whether only the first position attends.
            training: Whether dropout is active.

        Returns:
            (B, L, D), or (B, 1, D).
        """
        query, key, value = self._project(hidden, first_token)
        weights = self._weights(query, key, attention_mask, positions, first_token, training)
        mixed = ops.transpose(ops.matmul(weights, value), (0, 2, 1, 3))  # (B, L, H, F)
        return self.output_dense(ops.reshape(mixed, (*ops.shape(mixed)[:2], hidden.shape[-1])))

    def weights_of(self, hidden: Any, attention_mask: Any, positions: Any = None) -> Any:
        """How much each token takes from each other one: (B, H, L, L), nothing dropped.

        Args:
            hidden: As for `call`.
            attention_mask: As for `call`.
            positions: As for `call`.
        """
        query, key, _ = self._project(hidden, first_token=False)
        return self._weights(
            query, key, attention_mask, positions, first_token=False, training=False
        )

    def _split_heads(self, x: Any) -> Any:
        batch, length = ops.shape(x)[:2]
        x = ops.reshape(x, (batch, length, self.num_heads, x.shape[-1] // self.num_heads))
        return ops.transpose(x, (0, 2, 1, 3))


@keras.saving.register_keras_serializable(PACKAGE)
class SelfAttention(Attention):
    """Multi-head self-attention (Vaswani et al. 2017), output projection included.

    Args:
        hidden_size: D, split evenly over the heads.
        num_heads: H.
        dropout: Rate on the attention weights.
        initializer_range: Standard deviation of new kernels.
        use_bias: Of all projections.
        fused: Whether query, key and value come from one Dense layer, in this order.
        rope_theta: Base of rotary positions (Su et al. 2021); None for none.
        window: How far to each side a token sees; None for as far as the text goes.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        dropout: float = 0.0,
        initializer_range: float = 0.02,
        use_bias: bool = True,
        fused: bool = False,
        rope_theta: float | None = None,
        window: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._config = {
            "hidden_size": hidden_size,
            "num_heads": num_heads,
            "dropout": dropout,
            "initializer_range": initializer_range,
            "use_bias": use_bias,
            "fused": fused,
            "rope_theta": rope_theta,
            "window": window,
        }
        self.num_heads = num_heads
        self.head_size = hidden_size // num_heads
        make = {
            "initializer_range": initializer_range,
            "dtype": self.dtype_policy,
            "use_bias": use_bias,
        }
        if fused:
            self.query_key_value = dense(3 * hidden_size, **make, name="query_key_value")
        else:
            self.query = dense(hidden_size, **make, name="query")
            self.key = dense(hidden_size, **make, name="key")
            self.value = dense(hidden_size, **make, name="value")
        self.output_dense = dense(hidden_size, **make, name="output")
        self.dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy, name="dropout")

    def build(
        self,
        hidden_shape: tuple,
        attention_mask_shape: tuple | None = None,
        positions_shape: tuple | None = None,
    ) -> None:
        """Builds the projections."""
        if self._config["fused"]:
            inward = (self.query_key_value,)
        else:
            inward = (self.query, self.key, self.value)
        for projection in (*inward, self.output_dense):
            projection.build(hidden_shape)

    def _project(self, hidden: Any, first_token: bool) -> tuple:
        """Query, key and value, (B, H, L, F) each; with `first_token` the query (B, H, 1, F)."""
        if self._config["fused"]:
            query, key, value = ops.split(self.query_key_value(hidden), 3, axis=-1)
            query = first_row(query, 1) if first_token else query
        else:
            query = self.query(first_row(hidden, 1) if first_token else hidden)
            key, value = self.key(hidden), self.value(hidden)
        query, key, value = map(self._split_heads, (query, key, value))
        if self._config["rope_theta"] is not None:
            query, key = self._rotate(query), self._rotate(key)
        return query, key, value

    def _weights(
        self,
        query: Any,
        key: Any,
        attention_mask: Any,
        positions: Any,
        first_token: bool,
        training: bool | None,
    ) -> Any:
        """Of positions (1, H, L, L), added to the scores."""
        visible = self._visible(attention_mask)
        if first_token:
            positions = None if positions is None else first_row(positions, 2)
            visible = visible if len(visible.shape) == 2 else first_row(visible, 1)
        # Scaling the query is cheaper than scaling the scores.
        query = query * ops.cast(self.head_size**-0.5, query.dtype)
        scores = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2)))  # (B, H, L, L)
        if positions is not None:
            scores = scores + ops.cast(positions, scores.dtype)
        return kernels.masked_softmax(scores, visible, self.dropout, training)

    def _rotate(self, x: Any) -> Any:
        """Turns each pair of features (f, f + F/2) by an angle that grows with the position."""
        exponents = np.arange(0, self.head_size, 2, dtype="float32") / np.float32(self.head_size)
        # In float32 as in PyTorch: far into a text, the last bit of a frequency shows.
        frequencies = 1.0 / np.float32(self._config["rope_theta"]) ** exponents  # (F/2,)
        steps = ops.cast(ops.arange(ops.shape(x)[2]), "float32")
        angles = steps[:, None] * frequencies[None]  # (L, F/2)
        cos, sin = ops.cos(angles), ops.sin(angles)
        first, second = ops.split(ops.cast(x, "float32"), 2, axis=-1)
        turned = ops.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
        return ops.cast(turned, x.dtype)

    def _visible(self, attention_mask: Any) -> Any:
        """(B, L), or (B, L, L) where a window narrows it."""
        window = self._config["window"]
        if window is None:
            return attention_mask
        steps = ops.arange(ops.shape(attention_mask)[1])
        near = ops.abs(steps[:, None] - steps[None]) <= window  # (L, L)
        return ops.cast(attention_mask, "int32")[:, None, :] * ops.cast(near, "int32")[None]

    def get_config(self) -> dict:
        """Keras config."""
        return {**super().get_config(), **self._config}


@keras.saving.register_keras_serializable(PACKAGE)
class RelativePositionBias(keras.layers.Layer):
    """A number per head and bucket of distance, added to the scores (Raffel et al. 2020).

    Half of the buckets are for keys before the query, half for those after it; in each half, small
    distances have a bucket of their own and larger ones share buckets that grow logarithmically.

    Args:
        num_heads: H.
        num_buckets: Rows of the table.
        used_buckets: How many of them distances are sorted into.
        max_distance: From here on all distances share the last bucket.
        initializer_range: Standard deviation of a new table.
    """

    carried = True  # all blocks read its output; see `finetune_tf.pieces`

    def __init__(
        self,
        num_heads: int,
        num_buckets: int = 32,
        used_buckets: int = 32,
        max_distance: int = 128,
        initializer_range: float = 0.02,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._config = {
            "num_heads": num_heads,
            "num_buckets": num_buckets,
            "used_buckets": used_buckets,
            "max_distance": max_distance,
            "initializer_range": initializer_range,
        }
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

    def call(self, input_ids: Any) -> Any:
        """(B, L) ids, of which only the length counts, to (1, H, L, L)."""
        steps = ops.arange(ops.shape(input_ids)[1])
        buckets = self._bucket(steps[None, :] - steps[:, None])  # (L, L), key minus query
        return ops.transpose(self.table(buckets), (2, 0, 1))[None]

    def _bucket(self, distance: Any) -> Any:
        half = self._config["used_buckets"] // 2
        exact = half // 2
        after = ops.cast(distance > 0, "int32") * half
        distance = ops.abs(distance)
        span = math.log(self._config["max_distance"] / exact)
        growth = ops.log(ops.cast(ops.maximum(distance, 1), "float32") / exact) / span
        coarse = exact + ops.cast(growth * (half - exact), "int32")
        coarse = ops.minimum(coarse, half - 1)
        return after + ops.where(distance < exact, ops.cast(distance, "int32"), coarse)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """(1, H, L, L)."""
        return (1, self._config["num_heads"], input_shape[1], input_shape[1])

    def get_config(self) -> dict:
        """Keras config."""
        return {**super().get_config(), **self._config}
