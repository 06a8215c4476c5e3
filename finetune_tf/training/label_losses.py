"""Losses over class indices besides cross-entropy: focal loss, and a loss for ordered labels."""

from typing import Any

import keras
from keras import ops

from finetune_tf.base.arguments import check
from finetune_tf.base.keras_internals import set_direction
from finetune_tf.tasks import IGNORED


class _LabelLoss(keras.losses.Loss):
    """A loss over class indices, or rows with the share of each class; -100 is ignored."""

    takes_shares = True

    def losses_of(self, shares: Any, logits: Any) -> Any:
        """Returns the losses (…,) of logits for shares, both (…, classes)."""
        raise NotImplementedError

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the losses (…,) of logits (…, classes).

        Args:
            y_true: Class indices (…,), or rows (…, classes) with the share of each class.
            y_pred: Logits (…, classes).
        """
        y_pred = ops.cast(y_pred, "float32")
        if len(y_true.shape) == len(y_pred.shape) and y_true.shape[-1] != 1:
            return self.losses_of(ops.cast(y_true, "float32"), y_pred)
        if len(y_true.shape) == len(y_pred.shape):
            y_true = ops.squeeze(y_true, axis=-1)
        y_true = ops.cast(y_true, "int32")
        losses = self.losses_of(ops.one_hot(y_true, ops.shape(y_pred)[-1]), y_pred)
        counted = ops.cast(ops.not_equal(y_true, IGNORED), losses.dtype)
        # Keras divides by the number of all targets; rescale to the number of counted ones.
        return losses * counted / ops.maximum(ops.mean(counted), 1e-9)


@keras.saving.register_keras_serializable("finetune_tf")
class FocalCrossEntropy(_LabelLoss):
    """Focal loss over class indices: −(1 − p)^gamma · log p (Lin et al. 2017).

    p is the probability of the target. Targets that the model predicts with confidence count less
    than in cross-entropy, which is the case gamma = 0. Targets of -100 are ignored.

    Args:
        gamma: How much less confident predictions count.
        **kwargs: Arguments of every Keras loss.

    Example:
        >>> from finetune_tf.training.label_losses import FocalCrossEntropy
        >>> loss = FocalCrossEntropy(gamma=2.0)
        >>> round(float(loss(np.array([1, -100]), np.array([[0.0, 2.0], [5.0, 5.0]]))), 4)
        0.0018
    """

    def __init__(self, gamma: float = 2.0, **kwargs: Any) -> None:
        check(gamma=gamma)
        super().__init__(**kwargs)
        self.gamma = float(gamma)

    def losses_of(self, shares: Any, logits: Any) -> Any:
        """Returns the losses (…,) of logits for shares, both (…, classes)."""
        log_p = ops.log_softmax(logits, axis=-1)
        # 1 - p, without the rounding error of the subtraction where p is close to 1.
        rest = -ops.expm1(log_p)
        return -ops.sum(shares * _power(rest, self.gamma) * log_p, axis=-1)

    def get_config(self) -> dict:
        """Returns the Keras config."""
        return {**super().get_config(), "gamma": self.gamma}


@keras.saving.register_keras_serializable("finetune_tf")
class OrdinalCrossEntropy(_LabelLoss):
    """Cross-entropy for labels with an order, such as stars: of the questions "is it above k?".

    The probability that the label is above k is the sum of the probabilities of all higher labels.
    The loss is the sum of the binary cross-entropies of these questions for all k but the highest
    label, so a prediction that is off by three labels costs more than one that is off by one. As in
    CORAL (Cao et al. 2020), the answers cannot contradict each other; there, the reason is a shared
    vector of weights, here it is that they are sums of one distribution. The model keeps one output
    for each label, so its checkpoint is that of any classifier.

    Args:
        **kwargs: Arguments of every Keras loss.

    Example:
        >>> from finetune_tf.training.label_losses import OrdinalCrossEntropy
        >>> near, far = np.array([[0.0, 2.0, 0.0, 0.0]]), np.array([[0.0, 0.0, 0.0, 2.0]])
        >>> loss = OrdinalCrossEntropy()
        >>> bool(loss(np.array([0]), near) < loss(np.array([0]), far))
        True
    """

    def losses_of(self, shares: Any, logits: Any) -> Any:
        """Returns the losses (…,) of logits for shares, both (…, classes)."""
        labels = ops.arange(ops.shape(logits)[-1])
        is_above = ops.greater(labels[None, :], labels[:-1, None])  # (questions, classes)
        log_p = ops.log_softmax(logits, axis=-1)[..., None, :]
        above = ops.logsumexp(ops.where(is_above, log_p, -1e30), axis=-1)  # (…, questions)
        below = ops.logsumexp(ops.where(is_above, -1e30, log_p), axis=-1)
        share = ops.sum(ops.where(is_above, shares[..., None, :], 0.0), axis=-1)
        return -ops.sum(share * above + (1.0 - share) * below, axis=-1)


@keras.saving.register_keras_serializable("finetune_tf")
class LabelDistance(keras.metrics.Mean):
    """The mean distance of the predicted label from the target, in labels; -100 is ignored.

    Args:
        name: The name in the history of a fit.
        **kwargs: Arguments of every Keras metric.

    Example:
        >>> from finetune_tf.training.label_losses import LabelDistance
        >>> distance = LabelDistance()
        >>> distance.update_state(np.array([0, 2]), np.array([[0.0, 0.0, 9.0], [0.0, 0.0, 9.0]]))
        >>> float(distance.result())
        1.0
    """

    def __init__(self, name: str = "mae", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        set_direction(self, "down")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Updates the metric.

        Args:
            y_true: Class indices (batch,), or rows (batch, classes) with the share of each class.
            y_pred: Logits (batch, classes).
            sample_weight: Weights (batch,).
        """
        if len(y_true.shape) == len(y_pred.shape):
            has_rows = y_true.shape[-1] != 1
            y_true = ops.argmax(y_true, -1) if has_rows else ops.squeeze(y_true, axis=-1)
        y_true = ops.cast(y_true, "int32")
        distance = ops.abs(ops.cast(ops.argmax(y_pred, axis=-1), "int32") - y_true)
        counted = ops.cast(ops.not_equal(y_true, IGNORED), "float32")
        if sample_weight is not None:
            counted = counted * ops.cast(ops.reshape(sample_weight, (-1,)), "float32")
        super().update_state(ops.cast(distance, "float32"), counted)


def _power(base: Any, exponent: float) -> Any:
    """Returns base ** exponent; the gradient at 0 is that of the limit for exponents above 1."""
    if exponent == 0.0:
        return ops.ones_like(base)
    # The derivative of x ** gamma at 0 is infinite for gamma below 1, and NaN in the product.
    return ops.power(ops.maximum(base, 1e-30), exponent)
