"""Cross-entropy over a vocabulary, computed from the hidden states below its output layer.

The logits of a language model are by far its largest tensor: 2,048 tokens with a vocabulary of
50,257 take 412 MB in float32, and their gradient takes as much again. The functions of this module
run on every backend and compute all logits at once, which XLA may fuse; those of the same name in
`tensorflow_vocabulary` never do.

Shape legend: N tokens, D features, V vocabulary.
"""

from typing import Any

from keras import ops

Tensor = Any


def token_scores(hidden: Tensor, table: Tensor, targets: Tensor, by_row: bool) -> Tensor:
    """Scores the target of each token; no gradients flow through the result.

    Args:
        hidden: (N, D), in the dtype in which the logits are computed.
        table: (V, D) if `by_row`, else (D, V), in any float dtype.
        targets: (N,) int32, token ids; negative where nothing is scored.
        by_row: Whether the table has a row for each token, like a table of embeddings, instead of a
            column, like the kernel of a Dense layer.

    Returns:
        (N, 2) in float32: the negative log-likelihood of the target, and 1 where it has the highest
        logit; both 0 where nothing is scored.
    """
    return ops.stop_gradient(_scores(hidden, table, targets, by_row))


def weighted_cross_entropy(
    hidden: Tensor,
    table: Tensor,
    targets: Tensor,
    weights: Tensor,
    by_row: bool,
    learns_hidden: bool = True,
    learns_table: bool = True,
) -> tuple[Tensor, Tensor]:
    """Computes the weighted sum of the cross-entropy of all tokens.

    Args:
        hidden: As for `token_scores`.
        table: As for `token_scores`.
        targets: As for `token_scores`.
        weights: (N,) float32, the weight of each token.
        by_row: As for `token_scores`.
        learns_hidden: Whether the gradient of `hidden` is needed; otherwise it may be 0.
        learns_table: Whether the gradient of `table` is needed; otherwise it may be 0.

    Returns:
        The sum, a float32 scalar, and the scores (N, 2) as `token_scores` returns them. Gradients
        flow through the sum only, to `hidden` and `table`.
    """
    scores = _scores(hidden, table, targets, by_row)
    return ops.sum(scores[:, 0] * ops.stop_gradient(weights)), ops.stop_gradient(scores)


def _scores(hidden: Tensor, table: Tensor, targets: Tensor, by_row: bool) -> Tensor:
    table = ops.cast(table, hidden.dtype)
    logits = ops.matmul(hidden, ops.transpose(table) if by_row else table)
    logits = logits if hidden.dtype == "float64" else ops.cast(logits, "float32")
    is_scored, token = ops.greater_equal(targets, 0), ops.maximum(targets, 0)
    logit = ops.squeeze(ops.take_along_axis(logits, token[:, None], axis=-1), -1)
    hit = ops.equal(ops.cast(ops.argmax(logits, axis=-1), "int32"), token)
    scores = ops.stack([ops.logsumexp(logits, axis=-1) - logit, ops.cast(hit, logits.dtype)], -1)
    return ops.cast(ops.where(is_scored[:, None], scores, 0.0), "float32")
