"""Loss for pairs of text embeddings."""

from typing import Any

import keras
from keras import ops

from finetune_tf.base.arguments import check
from finetune_tf.base.keras_internals import mask_of, set_mask
from finetune_tf.errors import ModelError


@keras.saving.register_keras_serializable("finetune_tf")
class PairSimilarity(keras.losses.Loss):
    """CoSENT loss for pairs with scores, in-batch negatives for pairs without.

    The vectors (2 n, features) alternate between the two sides of n pairs, as `Examples.batches`
    arranges them. The shape of the targets selects the loss:

    - Scores (n,), on any scale: a pair with a higher score should have a higher cosine similarity
      than a pair with a lower score. The loss is log(1 + Σ exp(scale · (cosine of the pair with the
      lower score − cosine of the pair with the higher score))), summed over all such couples of
      pairs in the batch (CoSENT, Su 2022).
    - No scores, (n, 0): cross-entropy of finding the second text of each pair among all second
      texts of the batch (Henderson et al. 2017; van den Oord et al. 2018).

    Pairs that the mask of the vectors (n,) leaves out, such as empty places of packed rows, are no
    pairs of the batch.

    A pair may have a weight (n,). With scores, a weight acts as the number of copies of the pair
    in the batch: a couple has the product of the weights of its pairs. Without scores, it
    multiplies the loss of the pair, and the sum is still divided by n.

    Args:
        scale: Factor on the cosine similarities, the inverse of a temperature.
        **kwargs: Arguments of every Keras loss.

    Example:
        >>> from finetune_tf.training.similarity_loss import PairSimilarity
        >>> vectors = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> ordered, reversed_ = np.array([0.9, 0.1]), np.array([0.1, 0.9])
        >>> loss = PairSimilarity()
        >>> bool(loss(ordered, vectors) < loss(reversed_, vectors))
        True
    """

    def __init__(self, scale: float = 20.0, **kwargs: Any) -> None:
        check(scale=scale)
        super().__init__(**kwargs)
        self.scale = scale

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Returns the loss of a batch.

        Raises:
            ModelError: If there are no targets because the texts are not pairs.
        """
        if y_true is None:
            raise ModelError(
                "The loss of feature extraction compares two texts, but the batches contain single "
                "texts. Add a column text_pair; a column with scores as labels is optional."
            )
        mask = mask_of(y_pred)
        if mask is not None:  # from here on without the mask, which is not that of all losses
            is_vector = ops.repeat(mask, 2)[:, None]
            y_pred = ops.where(is_vector, y_pred, ops.ones_like(y_pred))
        if len(y_true.shape) == 2 and y_true.shape[1] == 0:
            if mask is not None:
                y_true = {"scores": y_true, "is_pair": mask}
                set_mask(y_pred, mask)
            return super().__call__(y_true, y_pred, sample_weight)
        if mask is not None:
            counted = ops.cast(mask, "float32")
            sample_weight = counted if sample_weight is None else counted * sample_weight
        if sample_weight is not None:  # passed along with the scores: `call` accepts no weights
            columns = [ops.reshape(ops.cast(c, "float32"), (-1,)) for c in (y_true, sample_weight)]
            y_true = ops.stack(columns, axis=1)  # (n, 2)
        return super().__call__(y_true, y_pred)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Computes the losses.

        Args:
            y_true: Scores (n,), no scores (n, 0), or scores and weights (n, 2). If some pairs do
                not count, a dict of no scores and `is_pair` (n,).
            y_pred: Vectors (2 n, features).

        Returns:
            The loss of each pair (n,) without scores; the loss of the batch (1,) with scores.
        """
        vectors = ops.cast(y_pred, "float32")
        vectors = vectors / ops.maximum(ops.norm(vectors, axis=-1, keepdims=True), 1e-12)
        left, right = vectors[0::2], vectors[1::2]  # (n, features)
        is_pair = None
        if isinstance(y_true, dict):
            y_true, is_pair = y_true["scores"], y_true["is_pair"]
        columns = y_true.shape[1] if len(y_true.shape) == 2 else 1
        if columns == 0:
            cosines = self.scale * ops.matmul(left, ops.transpose(right))  # (n, n)
            if is_pair is not None:  # a second text of no pair is no candidate
                cosines = ops.where(ops.cast(is_pair, "bool")[None, :], cosines, -1e9)
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
        """Returns the Keras config."""
        return {**super().get_config(), "scale": self.scale}
