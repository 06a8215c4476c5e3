"""DeBERTa's attention, which scores contents and relative positions apart.

Shape legend: B batch, H heads, Q query positions, K key positions, D features, F features of one
head; P = Q + K + 1 distances of a query to a key, ascending, one more to each side than there are.
"""

from typing import Any

import keras
from keras import ops

from finetune_tf.architectures.attention import Attention
from finetune_tf.architectures.layers import PACKAGE, dense, query_rows


@keras.saving.register_keras_serializable(PACKAGE)
class DisentangledAttention(Attention):
    """Attention whose scores add up from contents and relative positions (He et al. 2021).

    To the product of query and key come those of the query with the vector of their distance,
    and of that vector with the key. Where the query is masked, all positions weigh the same.
    Positions are the table (1, 2K + 1, D) of `RelativePositions`, or None if no score needs them.

    Args:
        hidden_size: D, split evenly over the heads.
        num_heads: H.
        content_to_position: Whether the query meets the distance.
        position_to_content: Whether the distance meets the key.
        score_parts: By the root of how many times F scores are divided.
        dropout: Rate on the attention weights.
        position_dropout: Rate on the vectors of distances.
        initializer_range: Standard deviation of new kernels.
        share_projections: Whether distances go through the projections of contents.
        fused: Whether query, key and value come from one Dense layer, head by head and without
            a bias for keys, as in the first DeBERTa.
        talking_heads: Whether heads mix before and after the softmax (Shazeer et al. 2020).
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
        make = {"initializer_range": initializer_range, "dtype": self.dtype_policy}
        if fused:
            self.query_key_value = dense(
                3 * hidden_size, **make, use_bias=False, name="query_key_value"
            )
        else:
            self.query = dense(hidden_size, **make, name="query")
            self.key = dense(hidden_size, **make, name="key")
            self.value = dense(hidden_size, **make, name="value")
        self.output_dense = dense(hidden_size, **make, name="output")
        self.position_key = self.position_query = None
        if content_to_position and not share_projections:
            self.position_key = dense(hidden_size, **make, use_bias=not fused, name="position_key")
        if position_to_content and not share_projections:
            self.position_query = dense(hidden_size, **make, name="position_query")
        self.scores_mix = self.weights_mix = None
        if talking_heads:
            self.scores_mix = dense(num_heads, **make, use_bias=False, name="scores_mix")
            self.weights_mix = dense(num_heads, **make, use_bias=False, name="weights_mix")
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

    def _weights(
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
        if positions is not None:
            if rows is not None:  # the distances that these queries have
                start, count = rows
                positions = query_rows(positions, 1, start, count + ops.shape(key)[2] + 1)
            positions = self.position_dropout(positions, training=training)
            if self._config["content_to_position"]:
                scores = scores + self._content_to_position(query, positions)
            if self._config["position_to_content"]:
                scores = scores + self._position_to_content(key, positions)
        scores = _mix(self.scores_mix, scores)
        weights = self.dropout(_replacing_softmax(scores, attention_mask), training=training)
        return _mix(self.weights_mix, weights)

    def _project(self, x: Any, context: Any) -> tuple:
        if not self._config["fused"]:
            parts = (self.query(x), self.key(context), self.value(context))
            return tuple(map(self._split_heads, parts))
        together = self._split_heads(self.query_key_value(context))  # (B, H, K, 3F)
        query, key, value = ops.split(together, 3, axis=-1)
        if x is not context:
            query = ops.split(self._split_heads(self.query_key_value(x)), 3, axis=-1)[0]
        shape = (1, self.num_heads, 1, self.head_size)
        query = query + ops.cast(ops.reshape(self.query_bias, shape), query.dtype)
        return query, key, value + ops.cast(ops.reshape(self.value_bias, shape), value.dtype)

    def _content_to_position(self, query: Any, positions: Any) -> Any:
        """(B, H, Q, K); `query` is scaled."""
        project = self.position_key or self.key
        table = self._split_heads(ops.flip(project(positions), axis=1))  # (1, H, P, F)
        return _along_diagonals(_against(table, query))

    def _position_to_content(self, key: Any, positions: Any) -> Any:
        """(B, H, Q, K)."""
        project = self.position_query or self.query
        table = self._split_heads(project(positions))  # (1, H, P, F)
        table = table * ops.cast(self.scale, table.dtype)
        scores = _along_diagonals(_against(table, key))  # (B, H, K, Q)
        return ops.transpose(scores, (0, 1, 3, 2))


def _against(table: Any, x: Any) -> Any:
    """Products of (B, H, L, F), queries or keys, with a table (1, H, P, F): (B, H, L, P).

    One product a head over all texts at once: TensorFlow's product that repeats the table for each
    text crashes on processors with AVX512 for some odd shapes.
    """
    batch, heads, length, size = ops.shape(x)
    rows = ops.reshape(ops.transpose(x, (1, 0, 2, 3)), (heads, batch * length, size))
    products = ops.matmul(rows, ops.transpose(table[0], (0, 2, 1)))  # (H, B * L, P)
    products = ops.reshape(products, (heads, batch, length, ops.shape(products)[-1]))
    return ops.transpose(products, (1, 0, 2, 3))


def _along_diagonals(x: Any) -> Any:
    """(B, H, L, P) to (B, H, L, P - L - 1), where row i, column j takes column j - i + L.

    Without its first L numbers, the flat matrix falls into rows that are one number shorter, so
    each row starts one column further left than the one above: no gather is needed. `ops.slice`
    has a gradient that TensorFlow computes ten times faster than that of `x[:, a:b]`.
    """
    batch, heads, length, distances = ops.shape(x)
    size, width = batch * heads, distances - 1
    others = width - length
    flat = ops.reshape(x, (size, length * distances))
    flat = ops.slice(flat, (0, length), (size, length * width))
    rows = ops.reshape(flat, (size * length, width))
    rows = ops.slice(rows, (0, 0), (size * length, others))
    return ops.reshape(rows, (batch, heads, length, others))


def _replacing_softmax(scores: Any, mask: Any) -> Any:
    """Softmax over keys (B, H, Q, K), float32 inside.

    Scores of masked pairs are replaced, not only lowered: a query that sees nothing has equal
    weights and sends no gradient back.
    """
    wide = ops.cast(scores, "float32") if scores.dtype != "float64" else scores
    return ops.cast(ops.softmax(ops.where(mask, wide, -1e30), axis=-1), scores.dtype)


def _mix(layer: keras.layers.Layer | None, x: Any) -> Any:
    """A Dense layer over the heads of (B, H, Q, K), if there is one."""
    if layer is None:
        return x
    return ops.transpose(layer(ops.transpose(x, (0, 2, 3, 1))), (0, 3, 1, 2))
