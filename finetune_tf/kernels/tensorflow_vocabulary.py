"""The functions of `vocabulary` for TensorFlow, which never hold the logits of all tokens.

Tokens without a target are left out. The others are processed in chunks, and both gradients are
computed in the same pass as the loss, while the logits of a chunk exist, as in the fused linear
cross-entropy of Hsu et al. 2024 (Liger Kernel). This is possible because the gradient of a sum with
known weights is known up to one factor, the gradient of the sum itself.

Shape legend: N tokens, D features, V vocabulary.
"""

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

_CHUNK = 256  # tokens whose logits exist at the same time


def token_scores(hidden: Any, table: Any, targets: Any, by_row: bool) -> tf.Tensor:
    """See `vocabulary.token_scores`."""
    tensors = [*map(tf.convert_to_tensor, (hidden, table, targets))]
    return _scoring(by_row, *_signature(*tensors))(*tensors)


def weighted_cross_entropy(
    hidden: Any,
    table: Any,
    targets: Any,
    weights: Any,
    by_row: bool,
    learns_hidden: bool = True,
    learns_table: bool = True,
) -> tuple[tf.Tensor, tf.Tensor]:
    """See `vocabulary.weighted_cross_entropy`."""
    tensors = [*map(tf.convert_to_tensor, (hidden, table, targets, weights))]
    signature = _signature(*tensors)
    return _learning(by_row, learns_hidden, learns_table, *signature)(*tensors)


def _signature(hidden: tf.Tensor, table: tf.Tensor, *of_tokens: tf.Tensor) -> list[tf.TensorSpec]:
    """Returns the specs of the arguments for any number of tokens, which share one trace."""
    specs = [tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype) for tensor in of_tokens]
    hidden_spec = tf.TensorSpec((None, hidden.shape[-1]), hidden.dtype)
    return [hidden_spec, tf.TensorSpec(table.shape, table.dtype), *specs]


@functools.cache
def _scoring(by_row: bool, *signature: tf.TensorSpec) -> Callable:
    def scores(hidden: tf.Tensor, table: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        scored = _scored_tokens(targets)
        found, *_ = _by_chunk(
            tf.gather(hidden, scored[:, 0]),
            table,
            tf.gather(targets, scored[:, 0]),
            tf.zeros(tf.shape(scored)[:1]),
            by_row,
            learns_hidden=False,
            learns_table=False,
        )
        return tf.stop_gradient(_at(scored, found, targets))

    return tf.function(scores, input_signature=signature, autograph=False)


@functools.cache
def _learning(
    by_row: bool, learns_hidden: bool, learns_table: bool, *signature: tf.TensorSpec
) -> Callable:
    def loss(hidden: tf.Tensor, table: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor) -> tuple:
        scored = _scored_tokens(targets)
        given = tf.gather(weights, scored[:, 0])
        found, of_hidden, of_table = _by_chunk(
            tf.gather(hidden, scored[:, 0]),
            table,
            tf.gather(targets, scored[:, 0]),
            given,
            by_row,
            learns_hidden,
            learns_table,
        )

        def gradients(of_sum: tf.Tensor, _: tf.Tensor) -> tuple:
            factor, rows, entries = tf.cast(of_sum, of_hidden.dtype), None, None
            if learns_hidden:
                of_scored = tf.cast(of_hidden * factor, hidden.dtype)
                rows = tf.scatter_nd(scored, of_scored, tf.shape(hidden))
            if learns_table:
                entries = tf.cast(of_table * factor, table.dtype)
            return rows, entries, None, None

        return (tf.reduce_sum(found[:, 0] * given), _at(scored, found, targets)), gradients

    # See `tensorflow.differentiated` for why a custom gradient is a function of its own.
    return tf.function(tf.custom_gradient(loss), input_signature=signature, autograph=False)


def _by_chunk(
    hidden: tf.Tensor,
    table: tf.Tensor,
    targets: tf.Tensor,
    weights: tf.Tensor,
    by_row: bool,
    learns_hidden: bool,
    learns_table: bool,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Goes through the tokens in chunks.

    Args:
        hidden: (N, D), of tokens with targets only.
        table: (V, D) if `by_row`, else (D, V).
        targets: (N,).
        weights: (N,).
        by_row: As for `vocabulary.token_scores`.
        learns_hidden: As for `vocabulary.weighted_cross_entropy`.
        learns_table: As for `vocabulary.weighted_cross_entropy`.

    Returns:
        The scores (N, 2), and the gradients of the weighted sum of losses with respect to `hidden`
        and `table`, in at least float32; gradients that are not needed are empty.
    """
    wide = tf.float64 if hidden.dtype == tf.float64 else tf.float32
    narrow_table, count = tf.cast(table, hidden.dtype), tf.shape(hidden)[0]

    def body(start: tf.Tensor, scores: Any, of_hidden: Any, of_table: tf.Tensor) -> tuple:
        rows, tokens = hidden[start : start + _CHUNK], targets[start : start + _CHUNK]
        factors = tf.cast(weights[start : start + _CHUNK, None], wide)
        logits = tf.cast(tf.matmul(rows, narrow_table, transpose_b=by_row), wide)
        hits = tf.equal(tf.argmax(logits, axis=-1, output_type=tf.int32), tokens)
        # The operation returns softmax(logits) - one_hot(tokens) besides the losses.
        losses, slopes = tf.raw_ops.SparseSoftmaxCrossEntropyWithLogits(
            features=logits, labels=tokens
        )
        number = start // _CHUNK
        found = tf.stack([tf.cast(losses, tf.float32), tf.cast(hits, tf.float32)], axis=-1)
        scores = scores.write(number, found)
        slopes = tf.cast(slopes, hidden.dtype)
        # Weights are applied to the D features of a token instead of its V logits.
        if learns_hidden:
            product = tf.matmul(slopes, narrow_table, transpose_b=not by_row)
            of_hidden = of_hidden.write(number, tf.cast(product, wide) * factors)
        if learns_table:
            rows = tf.cast(tf.cast(rows, wide) * factors, rows.dtype)
            pair = (slopes, rows) if by_row else (rows, slopes)
            of_table = of_table + tf.cast(tf.matmul(*pair, transpose_a=True), wide)
        return start + _CHUNK, scores, of_hidden, of_table

    chunks = (count + _CHUNK - 1) // _CHUNK
    width = hidden.shape[-1]
    _, scores, of_hidden, of_table = tf.while_loop(
        lambda start, *_: start < count,
        body,
        (
            tf.constant(0),
            tf.TensorArray(tf.float32, chunks, infer_shape=False, element_shape=(None, 2)),
            tf.TensorArray(wide, chunks, infer_shape=False, element_shape=(None, width)),
            tf.zeros_like(table, wide) if learns_table else tf.zeros((0,), wide),
        ),
        parallel_iterations=1,  # a second chunk would need a second set of logits
    )
    return scores.concat(), of_hidden.concat() if learns_hidden else tf.zeros((0,), wide), of_table


def _scored_tokens(targets: tf.Tensor) -> tf.Tensor:
    """Returns the indices of tokens with targets, (tokens, 1) int32."""
    return tf.cast(tf.where(targets >= 0), tf.int32)


def _at(indices: tf.Tensor, scores: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Returns scores of some tokens as scores of all (N, 2), 0 for the others."""
    return tf.scatter_nd(indices, scores, tf.stack([tf.shape(targets)[0], 2]))
