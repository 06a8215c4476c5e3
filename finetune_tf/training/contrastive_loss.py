"""Losses for pairs of images and texts: CLIP's (Radford et al. 2021) and SigLIP's (2023)."""

from typing import Any, Literal

import keras
from keras import ops

from finetune_tf.errors import ModelError


@keras.saving.register_keras_serializable("finetune_tf")
class ContrastiveLoss(keras.losses.Loss):
    """Contrastive loss over all images and texts of a batch.

    The logit of an image and a text is the product of their rows, which the model returns for each
    pair as (n, 2, features).

    - "softmax": the mean of two cross-entropies, of finding the text of each image among all texts
      of the batch and the image of each text among all images (Radford et al. 2021);
    - "sigmoid": for each image and each text of the batch the binary cross-entropy of whether they
      match, summed over the texts (Zhai et al. 2023).

    The target of a pair is the number of its group. Pairs of the same group match each other, such
    as several captions of an image; with "softmax", the probability is then shared equally among
    them (Yang et al. 2022). If no group occurs twice, this is the loss of the paper.

    Args:
        mode: As above.
        **kwargs: Arguments of every Keras loss.

    Example:
        >>> from finetune_tf.training.contrastive_loss import ContrastiveLoss
        >>> rows = 9.0 * np.array([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]])
        >>> swapped = np.stack([rows[:, 0], rows[::-1, 1]], axis=1)
        >>> loss = ContrastiveLoss()
        >>> bool(loss(np.array([0, 1]), rows) < loss(np.array([0, 1]), swapped))
        True
    """

    def __init__(self, mode: Literal["softmax", "sigmoid"] = "softmax", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if mode not in ("softmax", "sigmoid"):
            raise ModelError(f"The mode has to be 'softmax' or 'sigmoid', found {mode!r}.")
        self.mode = mode

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Returns the loss of a batch.

        Raises:
            ModelError: If there are no targets, because images have no texts.
        """
        if y_true is None:
            raise ModelError(
                "The loss compares images with texts, but the batches contain only one of both. "
                "Add the other column, or labels for zero-shot classification."
            )
        return super().__call__(y_true, y_pred, sample_weight)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Computes the losses.

        Args:
            y_true: The number of the group of each pair (n,).
            y_pred: Rows (n, 2, features).

        Returns:
            The loss of each pair (n,).
        """
        rows = ops.cast(y_pred, "float32")
        logits = ops.matmul(rows[:, 0], ops.transpose(rows[:, 1]))  # (images, texts)
        groups = ops.reshape(y_true, (-1,))
        matches = ops.cast(ops.equal(groups[:, None], groups[None, :]), "float32")
        if self.mode == "sigmoid":
            return -ops.sum(ops.log_sigmoid((2.0 * matches - 1.0) * logits), axis=1)
        shares = matches / ops.sum(matches, axis=1, keepdims=True)  # symmetric: groups are cliques
        of_images = -ops.sum(shares * ops.log_softmax(logits, axis=1), axis=1)
        of_texts = -ops.sum(shares * ops.log_softmax(ops.transpose(logits), axis=1), axis=1)
        return (of_images + of_texts) / 2.0

    def get_config(self) -> dict:
        """Returns the Keras config."""
        return {**super().get_config(), "mode": self.mode}
