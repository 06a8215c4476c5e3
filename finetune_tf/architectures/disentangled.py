"""The attention of DeBERTa, which scores contents and relative positions separately.

Shape legend: B batch, H heads, Q query positions, K key positions, D features, F features of one
head; P = Q + K + 1 distances from a query to a key, ascending, with one extra on either side.
"""

from typing import Any

import keras
from keras import ops

from finetune_tf.architectures.attention import Attention
from finetune_tf.architectures.layers import PACKAGE, dense, query_rows


@keras.saving.register_keras_serializable(PACKAGE)
class DisentangledAttention(Attention):
    """Disentangled attention: scores add contents and relative positions (He et al. 2021).

    The score is the sum of content-to-content (query times key), content-to-position (query times
    the vector of their distance) and position-to-content (that vector times key). Where the query
    is masked, all keys have equal weights. Positions are the table (1, 2K + 1, D) of
    `RelativePositions`, or None if no score uses them.

    Args:
        hidden_size: D, split evenly over the heads.
        num_heads: H.
        content_to_position: Whether scores include the content-to-position term.
        position_to_content: Whether scores include the position-to-content term.
        score_parts: Scores are divided by sqrt(score_parts * F).
        dropout: Dropout rate of the attention weights.
        position_dropout: Dropout rate of the vectors of distances.
        initializer_range: Standard deviation of new kernels.
        share_projections: Whether distances share the query and key projections of the contents.
        fused: Whether one Dense layer computes query, key and value, concatenated per head and
            without a bias for keys, as in the first version of DeBERTa.
        talking_heads: Whether heads are mixed before and after the softmax (Shazeer et al. 2020).
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        content_to_position: bool = True,
        position_to_content: bool = True,
        score_parts: int = 3,
        dropout: float = 0.0,
        position_dropout: float = 0.0,
        initializer_range: float = 0.02,
        share_projections: bool = False,
        fused: bool = False,
        talking_heads: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.record_arguments(locals())
        self.num_heads = num_heads
        self.head_size = hidden_size // num_heads
        self.scale = (self.head_size * score_parts) ** -0.5
        options = {"initializer_range": initializer_range, "dtype": self.dtype_policy}
        if fused:
            self.query_key_value = dense(
                3 * hidden_size, **options, use_bias=False, name="query_key_value"
            )
        else:
            self.query = dense(hidden_size, **options, name="query")
            self.key = dense(hidden_size, **options, name="key")
            self.value = dense(hidden_size, **options, name="value")
        self.output_dense = dense(hidden_size, **options, name="output")
        self.position_key = self.position_query = None
        if content_to_position and not share_projections:
            self.position_key = dense(
                hidden_size, **options, use_bias=not fused, name="position_key"
            )
        if position_to_content and not share_projections:
            self.position_query = dense(hidden_size, **options, name="position_query")
        self.scores_mix = self.weights_mix = None
        if talking_heads:
            self.scores_mix = dense(num_heads, **options, use_bias=False, name="scores_mix")
            self.weights_mix = dense(num_heads, **options, use_bias=False, name="weights_mix")
        policy = self.dtype_policy
        self.dropout = keras.layers.Dropout(dropout, dtype=policy, name="dropout")
        self.position_dropout = keras.layers.Dropout(
            position_dropout, dtype=policy, name="position_dropout"
        )

    def build(
        self,
        x_shape: tuple,
        context_shape: tuple | None = None,
        attention_mask_shape: tuple | None = None,
        positions_shape: tuple | None = None,
    ) -> None:
        """Builds the projections."""
        if self._config["fused"]:
            self.query_key_value.build(x_shape)
            shape = (self._config["hidden_size"],)
            self.query_bias = self.add_weight(shape, "zeros", name="query_bias")
            self.value_bias = self.add_weight(shape, "zeros", name="value_bias")
        else:
            for projection in (self.query, self.key, self.value):
                projection.build(x_shape)
        self.output_dense.build(x_shape)
        for projection in (self.position_key, self.position_query):
            if projection is not None:
                projection.build(x_shape)
        for mix in (self.scores_mix, self.weights_mix):
            if mix is not None:
                mix.build((*x_shape[:2], None, self.num_heads))

    def _compute_weights(
        self,
        query: Any,
        key: Any,
        attention_mask: Any,
        positions: Any,
        rows: tuple | None,
        training: bool | None,
    ) -> Any:
        query = query * ops.cast(self.scale, query.dtype)
        scores = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2)))  # (B, H, Q, K)
        places = rows[0] if rows is not None and len(getattr(rows[0], "shape", ())) == 2 else None
        if positions is not None and places is not None:
            positions = self.position_dropout(positions, training=training)
            scores = scores + self._scores_at(query, key, positions, ops.maximum(places, 0))
        elif positions is not None:
            if rows is not None:  # only the distances of these queries
                start, count = rows
                positions = query_rows(positions, 1, start, count + ops.shape(key)[2] + 1)
            positions = self.position_dropout(positions, training=training)
            if self._config["content_to_position"]:
                scores = scores + self._content_to_position(query, positions)
            if self._config["position_to_content"]:
                scores = scores + self._position_to_content(key, positions)
        scores = _mix_heads(self.scores_mix, scores)
        weights = self.dropout(_masked_softmax(scores, attention_mask), training=training)
        return _mix_heads(self.weights_mix, weights)

    def _project(self, x: Any, context: Any) -> tuple:
        if not self._config["fused"]:
            parts = (self.query(x), self.key(context), self.value(context))
            return tuple(map(self._split_heads, parts))
        fused = self._split_heads(self.query_key_value(context))  # (B, H, K, 3F)
        query, key, value = ops.split(fused, 3, axis=-1)
        if x is not context:
            query = ops.split(self._split_heads(self.query_key_value(x)), 3, axis=-1)[0]
        shape = (1, self.num_heads, 1, self.head_size)
        query = query + ops.cast(ops.reshape(self.query_bias, shape), query.dtype)
        return query, key, value + ops.cast(ops.reshape(self.value_bias, shape), value.dtype)

    def _scores_at(self, query: Any, key: Any, positions: Any, places: Any) -> Any:
        """Returns both scores of positions (B, H, Q, K) for queries at any places (B, Q)."""
        batch, heads, length, _ = ops.shape(key)
        count = ops.shape(places)[1]
        # (B, Q, K), the rows of the table of the distances from keys to queries
        rows = places[:, :, None] - ops.arange(length)[None, None] + length
        scores = 0.0
        if self._config["content_to_position"]:
            table = self._split_heads((self.position_key or self.key)(positions))
            found = _multiply_by_table(table, query)  # (B, H, Q, P)
            index = ops.broadcast_to(rows[:, None], (batch, heads, count, length))
            scores = scores + ops.take_along_axis(found, index, axis=3)
        if self._config["position_to_content"]:
            table = self._split_heads((self.position_query or self.query)(positions))
            found = _multiply_by_table(table * ops.cast(self.scale, table.dtype), key)
            index = ops.transpose(rows, (0, 2, 1))[:, None]
            index = ops.broadcast_to(index, (batch, heads, length, count))
            scores = scores + ops.transpose(ops.take_along_axis(found, index, axis=3), (0, 1, 3, 2))
        return scores

    def _content_to_position(self, query: Any, positions: Any) -> Any:
        """Returns scores (B, H, Q, K) for a scaled query."""
        project = self.position_key or self.key
        table = self._split_heads(ops.flip(project(positions), axis=1))  # (1, H, P, F)
        return _relative_shift(_multiply_by_table(table, query))

    def _position_to_content(self, key: Any, positions: Any) -> Any:
        """Returns scores (B, H, Q, K)."""
        project = self.position_query or self.query
        table = self._split_heads(project(positions))  # (1, H, P, F)
        table = table * ops.cast(self.scale, table.dtype)
        scores = _relative_shift(_multiply_by_table(table, key))  # (B, H, K, Q)
        return ops.transpose(scores, (0, 1, 3, 2))


def _multiply_by_table(table: Any, x: Any) -> Any:
    """Multiplies queries or keys (B, H, L, F) by a table (1, H, P, F) of positions: (B, H, L, P).

    There is one product per head for all texts. TensorFlow's batched product, which broadcasts the
    table over the texts, crashes on processors with AVX512 for some odd shapes.
    """
    batch, heads, length, size = ops.shape(x)
    rows = ops.reshape(ops.transpose(x, (1, 0, 2, 3)), (heads, batch * length, size))
    products = ops.matmul(rows, ops.transpose(table[0], (0, 2, 1)))  # (H, B * L, P)
    products = ops.reshape(products, (heads, batch, length, ops.shape(products)[-1]))
    return ops.transpose(products, (1, 0, 2, 3))


def _relative_shift(x: Any) -> Any:
    """Shifts row i of (B, H, L, P) by i columns: result[i, j] = x[i, j - i + L].

    This is the relative shift of Transformer-XL (Dai et al. 2019). The flattened matrix without its
    first L elements is reshaped to rows that are one element shorter, so that each row starts one
    column further left than the row above, and no gather is needed. TensorFlow computes the
    gradient of `ops.slice` ten times faster than that of `x[:, a:b]`.

    Returns:
        (B, H, L, P - L - 1).
    """
    batch, heads, length, distances = ops.shape(x)
    size, width = batch * heads, distances - 1
    columns = width - length
    flat = ops.reshape(x, (size, length * distances))
    flat = ops.slice(flat, (0, length), (size, length * width))
    rows = ops.reshape(flat, (size * length, width))
    rows = ops.slice(rows, (0, 0), (size * length, columns))
    return ops.reshape(rows, (batch, heads, length, columns))


def _masked_softmax(scores: Any, mask: Any) -> Any:
    """Computes the softmax over keys (B, H, Q, K), internally in float32.

    Masked scores are replaced, not lowered: a query without visible keys has equal weights and gets
    no gradient.
    """
    wide = ops.cast(scores, "float32") if scores.dtype != "float64" else scores
    return ops.cast(ops.softmax(ops.where(mask, wide, -1e30), axis=-1), scores.dtype)


def _mix_heads(layer: keras.layers.Layer | None, x: Any) -> Any:
    """Applies a Dense layer to the heads axis of (B, H, Q, K), if there is one."""
    if layer is None:
        return x
    return ops.transpose(layer(ops.transpose(x, (0, 2, 3, 1))), (0, 3, 1, 2))
