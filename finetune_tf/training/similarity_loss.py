"""The loss of texts that are compared in pairs."""

from typing import Any

import keras
from keras import ops

from finetune_tf.base.arguments import check
from finetune_tf.errors import ModelError


@keras.saving.register_keras_serializable("finetune_tf")
class PairSimilarity(keras.losses.Loss):
    """Cosines of pairs in the order of their scores, or each pair against the rest of its batch.

    Vectors (2 n, features) hold the two sides of n pairs in turn; `Examples.batches` gives them
    so. What the targets are decides:

    - Scores (n,), on any scale: of two pairs the one with the higher score shall have the higher
      cosine, log(1 + Σ exp(scale · (cosine of the lower − cosine of the higher))) over all such
      couples of the batch (CoSENT, Su 2022).
    - No scores, (n, 0): each first text shall find its partner among all second texts of the batch
      (van den Oord et al. 2018; Henderson et al. 2017).

    A pair may have a weight (n,). Among scores, it is the number of times that the pair stands in
    the batch: a couple counts by the product of its pairs' weights. Without scores, it multiplies
    the loss of the pair, and n stays what the sum is divided by.

    Args:
        scale: Factor on the cosines.
        **kwargs: As for every Keras loss.
    """

    def __init__(self, scale: float = 20.0, **kwargs: Any) -> None:
        check(scale=scale)
        super().__init__(**kwargs)
        self.scale = scale

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """The loss of a batch.

        Raises:
            ModelError: If the texts are no pairs.
        """
        if y_true is None:
            raise ModelError(
                "The loss of feature extraction compares two texts, but the batches hold single "
                "ones. Give pairs: a column text_pair, with or without a label that scores them."
            )
        if len(y_true.shape) == 2 and y_true.shape[1] == 0:
            return super().__call__(y_true, y_pred, sample_weight)
        if sample_weight is not None:  # they travel beside the scores, since `call` takes no third
            columns = [ops.reshape(ops.cast(c, "float32"), (-1,)) for c in (y_true, sample_weight)]
            y_true = ops.stack(columns, axis=1)  # (n, 2)
        return super().__call__(y_true, y_pred)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Targets (n,), (n, 0), or scores and weights (n, 2), and vectors (2 n, features).

        Returns:
            Losses (n,) of pairs without scores, else one of the batch (1,).
        """
        vectors = ops.cast(y_pred, "float32")
        vectors = vectors / ops.maximum(ops.norm(vectors, axis=-1, keepdims=True), 1e-12)
        left, right = vectors[0::2], vectors[1::2]  # (n, features)
        columns = y_true.shape[1] if len(y_true.shape) == 2 else 1
        if columns == 0:
            cosines = self.scale * ops.matmul(left, ops.transpose(right))  # (n, n)
            return -ops.diagonal(ops.log_softmax(cosines, axis=-1))
        scores = ops.cast(y_true, "float32")
        scores = ops.reshape(scores[:, 0] if columns == 2 else scores, (-1,))
        cosines = self.scale * ops.sum(left * right, axis=-1)  # (n,)
        lower = ops.less(scores[:, None], scores[None, :])
        gaps = cosines[:, None] - cosines[None, :]  # (n, n)
        if columns == 2:
            weights = ops.cast(y_true[:, 1], "float32")
            couples = weights[:, None] * weights[None, :]
            lower = ops.logical_and(lower, ops.greater(couples, 0.0))
            gaps = gaps + ops.log(ops.where(lower, couples, 1.0))
        gaps = ops.where(lower, gaps, -1e12)
        total = ops.logsumexp(ops.concatenate([ops.zeros((1,)), ops.reshape(gaps, (-1,))]))
        return ops.reshape(total, (1,))

    def get_config(self) -> dict:
        """Keras config."""
        return {**super().get_config(), "scale": self.scale}
