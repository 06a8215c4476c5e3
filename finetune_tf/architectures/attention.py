"""Attention layers: the tokens of a query attend to the tokens of a context.

In self-attention, query and context are the same. A query may also be a part of its context, such
as the first or the newest token, or be another sequence, as in cross-attention.

Shape legend: B batch, H heads, Q query positions, K key positions (of the context), D features,
F features of one head.
"""

from typing import Any

import keras
from keras import ops

from finetune_tf import kernels
from finetune_tf.architectures.layers import PACKAGE, ConfigLayer, dense, query_rows
from finetune_tf.architectures.masks import open_mask
from finetune_tf.architectures.positions import rotate


class Attention(ConfigLayer):
    """Base class of attention layers; subclasses define projections and scores.

    A subclass defines `num_heads`, `output_dense`, `_project` (returns query, key and value, each
    (B, H, Q or K, F)) and `_compute_weights` (returns the weights of `weights_of`, with dropout in
    training).
    """

    def __init__(self, **kwargs: Any) -> None:
        # A mixed policy would cast positions, such as float32 rotary tables, to its compute dtype.
        super().__init__(**kwargs, autocast=False)

    def call(
        self,
        x: Any,
        context: Any = None,
        attention_mask: Any = None,
        positions: Any = None,
        start: Any = 0,
        training: bool | None = None,
    ) -> Any:
        """Computes the attention output for each token of the query.

        Mask and positions are those of the whole context. Where the query is a part of the context,
        the rows of its tokens are sliced from them.

        Args:
            x: (B, Q, D), the query.
            context: (B, K, D), the tokens that the query attends to; by default the query itself.
            attention_mask: Boolean, broadcastable to (B, H, K, K), from `masks`. In cross-attention
                it has one row for all queries, (B, 1, 1, K). By default every token is visible.
            positions: The output of the family's layer in `positions`; None for no positions.
            start: Index of the first query token in the context, an integer or a scalar tensor.
            training: Whether dropout is active.

        Returns:
            (B, Q, D).
        """
        weights, value = self._compute_weights_and_values(
            x, context, attention_mask, positions, start, training
        )
        mixed = ops.transpose(ops.matmul(weights, value), (0, 2, 1, 3))  # (B, Q, H, F)
        batch, count, heads, size = ops.shape(mixed)
        return self.output_dense(ops.reshape(mixed, (batch, count, heads * size)))

    def weights_of(
        self,
        x: Any,
        context: Any = None,
        attention_mask: Any = None,
        positions: Any = None,
        start: Any = 0,
    ) -> Any:
        """Computes the attention weights without dropout.

        Args:
            x: As for `call`.
            context: As for `call`.
            attention_mask: As for `call`.
            positions: As for `call`.
            start: As for `call`.

        Returns:
            (B, H, Q, K).
        """
        return self._compute_weights_and_values(
            x, context, attention_mask, positions, start, training=False
        )[0]

    def _compute_weights_and_values(
        self,
        x: Any,
        context: Any,
        attention_mask: Any,
        positions: Any,
        start: Any,
        training: bool | None,
    ) -> tuple:
        """Returns attention weights (B, H, Q, K) and values (B, H, K, F)."""
        rows = None  # first index and number of the query's rows where it is a part of the context
        if context is None or context is x:
            context = x
        else:
            rows = (start, ops.shape(x)[1])
        query, key, value = self._project(x, context)
        if attention_mask is None:
            attention_mask = open_mask()
        elif rows is not None:
            attention_mask = query_rows(attention_mask, 2, *rows)
        return self._compute_weights(query, key, attention_mask, positions, rows, training), value

    def _split_heads(self, x: Any) -> Any:
        batch, length = ops.shape(x)[:2]
        x = ops.reshape(x, (batch, length, self.num_heads, x.shape[-1] // self.num_heads))
        return ops.transpose(x, (0, 2, 1, 3))

    def compute_output_spec(self, x: Any, *others: Any, **options: Any) -> keras.KerasTensor:
        """Returns the spec of the output, (B, Q, D), the shape of the query."""
        return keras.KerasTensor(x.shape, self.compute_dtype)


@keras.saving.register_keras_serializable(PACKAGE)
class MultiHeadAttention(Attention):
    """Multi-head attention (Vaswani et al. 2017) with its output projection.

    Args:
        hidden_size: D, split evenly over the heads.
        num_heads: H.
        dropout: Dropout rate of the attention weights.
        initializer_range: Standard deviation of new kernels.
        use_bias: Whether the projections have a bias.
        fused: Whether one Dense layer computes query, key and value, concatenated in this order.
        rotary: Whether positions are the output of `RotaryPositions`, by which queries and keys are
            rotated (Su et al. 2021), instead of a bias (1, H, K, K) that is added to the scores.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        dropout: float = 0.0,
        initializer_range: float = 0.02,
        use_bias: bool = True,
        fused: bool = False,
        rotary: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.record_arguments(locals())
        self.num_heads = num_heads
        self.head_size = hidden_size // num_heads
        options = {
            "initializer_range": initializer_range,
            "dtype": self.dtype_policy,
            "use_bias": use_bias,
        }
        if fused:
            self.query_key_value = dense(3 * hidden_size, **options, name="query_key_value")
        else:
            self.query = dense(hidden_size, **options, name="query")
            self.key = dense(hidden_size, **options, name="key")
            self.value = dense(hidden_size, **options, name="value")
        self.output_dense = dense(hidden_size, **options, name="output")
        self.dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy, name="dropout")

    def build(
        self,
        x_shape: tuple,
        context_shape: tuple | None = None,
        attention_mask_shape: tuple | None = None,
        positions_shape: tuple | None = None,
    ) -> None:
        """Builds the projections."""
        key_shape = context_shape or x_shape
        if self._config["fused"]:
            self.query_key_value.build(key_shape)
        else:
            self.query.build(x_shape)
            self.key.build(key_shape)
            self.value.build(key_shape)
        self.output_dense.build((*x_shape[:-1], self._config["hidden_size"]))

    def _project(self, x: Any, context: Any) -> tuple:
        if not self._config["fused"]:
            parts = (self.query(x), self.key(context), self.value(context))
            return tuple(map(self._split_heads, parts))
        query, key, value = ops.split(self.query_key_value(context), 3, axis=-1)
        if x is not context:
            query = ops.split(self.query_key_value(x), 3, axis=-1)[0]
        return tuple(map(self._split_heads, (query, key, value)))

    def _compute_weights(
        self,
        query: Any,
        key: Any,
        attention_mask: Any,
        positions: Any,
        rows: tuple | None,
        training: bool | None,
    ) -> Any:
        query_positions = positions
        if positions is not None and rows is not None:
            query_positions = query_rows(positions, 1 if self._config["rotary"] else 2, *rows)
        if self._config["rotary"]:
            query, key = rotate(query, query_positions), rotate(key, positions)
        # It is cheaper to scale the query than the scores.
        query = query * ops.cast(self.head_size**-0.5, query.dtype)
        scores = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2)))  # (B, H, Q, K)
        if query_positions is not None and not self._config["rotary"]:
            scores = scores + ops.cast(query_positions, scores.dtype)
        return kernels.masked_softmax(scores, attention_mask, self.dropout, training)
