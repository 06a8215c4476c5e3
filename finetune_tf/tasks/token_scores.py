"""Scores of tokens under a language model, of which perplexity and accuracy are made."""

from typing import Any

from keras import ops

from finetune_tf.tasks.feature import IGNORED


def token_scores(logits: Any, targets: Any) -> Any:
    """Scores the target at each token.

    Args:
        logits: (…, vocabulary).
        targets: (…), token ids; -100 where nothing is scored.

    Returns:
        (…, 2) in float32: the negative log-likelihood of the target, and 1 where it has the highest
        logit; both 0 where nothing is scored.

    Example:
        >>> from finetune_tf.tasks.token_scores import token_scores
        >>> scores = token_scores(np.zeros((2, 4), "float32"), np.array([0, -100]))
        >>> np.round(np.asarray(scores), 3).tolist()  # the logarithm of 4 equally probable tokens
        [[1.386..., 1.0], [0.0, 0.0]]
    """
    is_scored = ops.cast(ops.not_equal(targets, IGNORED), "float32")
    token = ops.maximum(ops.cast(targets, "int32"), 0)
    logit = ops.squeeze(ops.take_along_axis(logits, token[..., None], axis=-1), -1)
    best = ops.cast(ops.argmax(logits, axis=-1), "int32")
    hit = ops.cast(ops.equal(best, token), "float32")
    loss = ops.logsumexp(logits, axis=-1) - logit
    return ops.stack([loss * is_scored, hit * is_scored], axis=-1)
