"""Accuracy and label-smoothed cross-entropy over logits; both ignore targets of -100."""

from typing import Any

import keras
from keras import ops

from finetune_tf.base.arguments import check
from finetune_tf.base.keras_internals import set_direction
from finetune_tf.tasks import IGNORED


@keras.saving.register_keras_serializable("finetune_tf")
class Accuracy(keras.metrics.Mean):
    """Fraction of targets whose class has the highest logit; targets of -100 are ignored.

    Args:
        name: The name in the history of a fit.
        **kwargs: Arguments of every Keras metric.

    Example:
        >>> from finetune_tf.training.classification import Accuracy
        >>> accuracy = Accuracy()
        >>> accuracy.update_state(np.array([0, 1, -100]), np.array([[2, 1], [2, 1], [1, 2]]))
        >>> float(accuracy.result())
        0.5
    """

    def __init__(self, name: str = "accuracy", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        set_direction(self, "up")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Updates the metric.

        Args:
            y_true: Class indices (…,), or one-hot rows (…, classes).
            y_pred: Logits (…, classes).
            sample_weight: Weights (batch,), or in the shape of the targets.
        """
        if len(y_true.shape) == len(y_pred.shape):
            has_rows = y_true.shape[-1] != 1  # one-hot targets
            y_true = ops.argmax(y_true, -1) if has_rows else ops.squeeze(y_true, axis=-1)
        y_true = ops.cast(y_true, "int32")
        correct = ops.equal(ops.cast(ops.argmax(y_pred, axis=-1), "int32"), y_true)
        counted = ops.cast(ops.not_equal(y_true, IGNORED), "float32")
        if sample_weight is not None:
            weight = ops.cast(sample_weight, "float32")
            dims = (1,) * (len(counted.shape) - len(weight.shape))
            counted = counted * ops.reshape(weight, (*ops.shape(weight), *dims))
        # Keras would take the mean over the axes after the first one, so that a target would count
        # the less the longer its batch is.
        correct, counted = (ops.reshape(part, (-1,)) for part in (correct, counted))
        super().update_state(ops.cast(correct, "float32"), counted)


@keras.saving.register_keras_serializable("finetune_tf")
class SmoothedCrossEntropy(keras.losses.Loss):
    """Cross-entropy over class indices with label smoothing (Szegedy et al. 2016).

    Targets of -100 are ignored.

    Args:
        label_smoothing: Fraction of the target probability that is distributed uniformly over all
            classes, from 0 to below 1.
        **kwargs: Arguments of every Keras loss.

    Example:
        >>> from finetune_tf.training.classification import SmoothedCrossEntropy
        >>> loss = SmoothedCrossEntropy(label_smoothing=0.1)
        >>> round(float(loss(np.array([1, -100]), np.array([[0.0, 2.0], [5.0, 5.0]]))), 3)
        0.227
    """

    def __init__(self, label_smoothing: float = 0.1, **kwargs: Any) -> None:
        check(label_smoothing=label_smoothing)
        super().__init__(**kwargs)
        self.label_smoothing = label_smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the losses (…,) of logits (…, classes).

        Args:
            y_true: Class indices (…,), or rows (…, classes) with the share of each class.
            y_pred: Logits (…, classes).
        """
        if len(y_true.shape) == len(y_pred.shape) and y_true.shape[-1] != 1:
            return keras.losses.categorical_crossentropy(
                ops.cast(y_true, y_pred.dtype),
                y_pred,
                from_logits=True,
                label_smoothing=self.label_smoothing,
            )
        if len(y_true.shape) == len(y_pred.shape):
            y_true = ops.squeeze(y_true, axis=-1)
        y_true = ops.cast(y_true, "int32")
        losses = keras.losses.categorical_crossentropy(
            ops.one_hot(y_true, y_pred.shape[-1]),
            y_pred,
            from_logits=True,
            label_smoothing=self.label_smoothing,
        )
        counted = ops.cast(ops.not_equal(y_true, IGNORED), losses.dtype)
        # Keras divides by the number of all targets; rescale to the number of counted ones.
        return losses * counted / ops.maximum(ops.mean(counted), 1e-9)

    def get_config(self) -> dict:
        """Returns the Keras config."""
        return {**super().get_config(), "label_smoothing": self.label_smoothing}


def loss_of_shares(loss: keras.losses.Loss) -> keras.losses.Loss:
    """Returns the cross-entropy over rows of class shares that belongs to one over class indices.

    Args:
        loss: Keras's sparse cross-entropy, a `SmoothedCrossEntropy`, or one of `label_losses`,
            which accept shares themselves.

    Example:
        >>> from finetune_tf.training.classification import loss_of_shares
        >>> loss = loss_of_shares(keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> round(float(loss(np.array([[0.5, 0.5]]), np.array([[0.0, 2.0]]))), 3)
        1.127
    """
    if getattr(loss, "takes_shares", False):
        return loss
    smoothing = getattr(loss, "label_smoothing", 0.0)
    return SmoothedCrossEntropy(smoothing, reduction=loss.reduction, name=loss.name)
