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
from finetune_tf.architectures.layers import PACKAGE, ConfigLayer, RMSNorm, dense, query_rows
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
        cache: tuple | None = None,
        training: bool | None = None,
    ) -> Any:
        """Computes the attention output for each token of the query.

        Mask and positions are those of the whole context. Where the query is a part of the context,
        the rows of its tokens are sliced from them.

        Args:
            x: (B, Q, D), the query.
            context: (B, K, D), the tokens that the query attends to; by default the query itself.
                Or their keys and values as a tuple, where these are known already.
            attention_mask: Boolean, broadcastable to (B, H, K, K), from `masks`. In cross-attention
                it has one row for all queries, (B, 1, 1, K). By default every token is visible.
            positions: The output of the family's layer in `positions`; None for no positions.
            start: Index of the first query token in the context, an integer or a scalar tensor.
            cache: Keys and values (B, H, C, F) of the C tokens before the query, given instead of
                a context: the query attends to these tokens and to itself, so K = C + Q.
            training: Whether dropout is active.

        Returns:
            (B, Q, D); with a cache, this and the updated cache.
        """
        weights, value, cache = self._compute_weights_and_values(
            x, context, attention_mask, positions, start, training, cache
        )
        mixed = ops.transpose(_grouped_matmul(weights, value), (0, 2, 1, 3))  # (B, Q, H, F)
        size = mixed.shape[2] * mixed.shape[3]
        output = self.output_dense(kernels.reshaped_rows(mixed, x, size))
        return output if cache is None else (output, cache)

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
        cache: tuple | None = None,
    ) -> tuple:
        """Returns weights (B, H, Q, K), values (B, H, K, F) and the cache with the query in it."""
        rows = None  # first index and number of the query's rows where it is a part of the context
        if context is None:
            context = x
        if context is not x or cache is not None:
            rows = (start, ops.shape(x)[1])
        query, key, value = self._project(x, context)
        query, key = self._rotate(query, key, positions, rows, is_cached=cache is not None)
        if cache is not None:
            # Keys are stored after the rotation, so that each is rotated once.
            key, value = (
                ops.concatenate([earlier, new], axis=2)
                for earlier, new in zip(cache, (key, value), strict=True)
            )
            cache = (key, value)
        if attention_mask is None:
            attention_mask = open_mask()
        elif rows is not None:
            attention_mask = query_rows(attention_mask, 2, *rows)
        weights = self._compute_weights(query, key, attention_mask, positions, rows, training)
        return weights, value, cache

    def _rotate(
        self, query: Any, key: Any, positions: Any, rows: tuple | None, is_cached: bool
    ) -> tuple:
        """Returns query and key rotated by their positions; by default unchanged."""
        return query, key

    def _split_heads(self, x: Any, num_heads: int | None = None) -> Any:
        num_heads = num_heads or self.num_heads
        heads = kernels.reshaped_rows(x, x, num_heads, x.shape[-1] // num_heads)
        return ops.transpose(heads, (0, 2, 1, 3))

    def compute_output_spec(self, x: Any, *others: Any, **options: Any) -> keras.KerasTensor:
        """Returns the spec of the output, (B, Q, D), the shape of the query."""
        return keras.KerasTensor(x.shape, self.compute_dtype)


def _grouped_matmul(x: Any, y: Any, transpose_y: bool = False) -> Any:
    """Matrix products (B, H, M, N) x (B, G, N, P) to (B, H, M, P), where G divides H.

    With `transpose_y`, `y` is (B, G, P, N).

    Each matrix of `y` is shared by H / G heads that follow each other. Their rows are stacked, so
    that `y` is never copied.
    """
    heads, groups = x.shape[1], y.shape[1]
    if heads == groups:
        return kernels.batched_matmul(x, y, transpose_y)
    batch, _, rows, columns = ops.shape(x)
    stacked = ops.reshape(x, (batch, groups, heads // groups * rows, columns))
    product = kernels.batched_matmul(stacked, y, transpose_y)
    return ops.reshape(product, (batch, heads, rows, ops.shape(product)[3]))


@keras.saving.register_keras_serializable(PACKAGE)
class MultiHeadAttention(Attention):
    """Multi-head attention (Vaswani et al. 2017) with its output projection.

    With fewer key and value heads than query heads it is grouped-query attention (Ainslie et al.
    2023).

    Args:
        hidden_size: D.
        num_heads: H, the number of query heads.
        dropout: Dropout rate of the attention weights.
        initializer_range: Standard deviation of new kernels.
        use_bias: Whether the projections have a bias.
        fused: Whether one Dense layer computes query, key and value, concatenated in this order.
        rotary: Whether positions are the output of `RotaryPositions`, by which queries and keys are
            rotated (Su et al. 2021), instead of a bias (1, H, K, K) that is added to the scores.
        num_kv_heads: Number of key and value heads, a divisor of `num_heads`; by default the same
            number.
        head_size: F; by default D / H.
        scaled: Whether scores are divided by the square root of F. T5 has no such division; the
            kernel of its queries is initialised with that much smaller values instead.
        output_bias: Whether the output projection has a bias; by default `use_bias`.
        key_bias: Whether the keys have a bias where they are not fused with queries and values; by
            default `use_bias`.
        qk_norm_eps: Epsilon of the RMS normalisations of queries and keys, which are applied
            before the rotation; None for no normalisation.
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
        num_kv_heads: int | None = None,
        head_size: int | None = None,
        output_bias: bool | None = None,
        qk_norm_eps: float | None = None,
        scaled: bool = True,
        key_bias: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        num_kv_heads = num_kv_heads or num_heads
        head_size = head_size or hidden_size // num_heads
        output_bias = use_bias if output_bias is None else output_bias
        key_bias = use_bias if key_bias is None else key_bias
        self.record_arguments(locals())
        self.num_heads = num_heads
        self.num_kv_heads = self._config["num_kv_heads"]
        self.head_size = self._config["head_size"]
        query_size = num_heads * self.head_size
        key_size = self.num_kv_heads * self.head_size
        make = {"initializer_range": initializer_range, "dtype": self.dtype_policy}
        biased = make | {"use_bias": use_bias}
        if fused:
            width = query_size + 2 * key_size
            self.query_key_value = dense(width, **biased, name="query_key_value")
        else:
            stddev = initializer_range if scaled else initializer_range * self.head_size**-0.5
            query_options = {**biased, "initializer_range": stddev}
            self.query = dense(query_size, **query_options, name="query")
            self.key = dense(key_size, **make, use_bias=key_bias, name="key")
            self.value = dense(key_size, **biased, name="value")
        self.output_dense = dense(
            hidden_size, **make, use_bias=self._config["output_bias"], name="output"
        )
        self.query_norm = self.key_norm = None
        if qk_norm_eps is not None:
            self.query_norm = RMSNorm(qk_norm_eps, dtype=self.dtype_policy, name="query_norm")
            self.key_norm = RMSNorm(qk_norm_eps, dtype=self.dtype_policy, name="key_norm")
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
        self.output_dense.build((*x_shape[:-1], self.num_heads * self.head_size))
        if self.query_norm is not None:
            self.query_norm.build((None, self.head_size))
            self.key_norm.build((None, self.head_size))

    def keys_and_values(self, context: Any) -> tuple:
        """Projects a context once for many queries, as in the cross-attention of a decoder.

        Args:
            context: (B, K, D).

        Returns:
            Keys and values (B, G, K, F) of the G key and value heads, which `call` accepts instead
            of the context.
        """
        _, key, value = self._project(context[:, :1], context)
        return key, value

    def _project(self, x: Any, context: Any) -> tuple:
        if isinstance(context, tuple):
            query = self._fused(x)[0] if self._config["fused"] else self.query(x)
            query = self._split_heads(query)
            return query if self.query_norm is None else self.query_norm(query), *context
        if self._config["fused"]:
            query, key, value = self._fused(context)
            if x is not context:
                query = self._fused(x)[0]
        else:
            query, key, value = self.query(x), self.key(context), self.value(context)
        query = self._split_heads(query)
        key, value = (self._split_heads(part, self.num_kv_heads) for part in (key, value))
        if self.query_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        return query, key, value

    def _fused(self, x: Any) -> list:
        """Query, key and value of one Dense layer."""
        query_end = self.num_heads * self.head_size
        ends = [query_end, query_end + self.num_kv_heads * self.head_size]
        return ops.split(self.query_key_value(x), ends, axis=-1)

    def _rotate(
        self, query: Any, key: Any, positions: Any, rows: tuple | None, is_cached: bool
    ) -> tuple:
        if not self._config["rotary"]:
            return query, key
        of_query = positions if rows is None else query_rows(positions, 1, *rows)
        return rotate(query, of_query), rotate(key, of_query if is_cached else positions)

    def _compute_weights(
        self,
        query: Any,
        key: Any,
        attention_mask: Any,
        positions: Any,
        rows: tuple | None,
        training: bool | None,
    ) -> Any:
        if self._config["scaled"]:  # it is cheaper to scale the query than the scores
            query = query * ops.cast(self.head_size**-0.5, query.dtype)
        scores = _grouped_matmul(query, key, transpose_y=True)  # (B, H, Q, K)
        if positions is not None and not self._config["rotary"]:
            bias = positions if rows is None else query_rows(positions, 2, *rows)
            scores = scores + ops.cast(bias, scores.dtype)
        return kernels.masked_softmax(scores, attention_mask, self.dropout, training)
