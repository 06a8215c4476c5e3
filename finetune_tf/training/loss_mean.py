"""The mean of the losses of batches that have different numbers of targets."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import keras
from keras import ops

from finetune_tf.tasks import IGNORED, Kind
from finetune_tf.tasks.feature import STARTS
from finetune_tf.training.outputs import fit_of

# How many targets the batch of a step has. Each device runs its step in a thread of its own, so
# this is no attribute of a tracker.
_TARGETS: ContextVar[Any] = ContextVar("finetune_tf_targets", default=None)


class LossMean(keras.metrics.Mean):
    """The mean loss over the targets of all batches.

    The loss of a batch is a mean over its targets. Keras weights it by the rows of the batch, so
    the loss of an epoch would depend on how targets are divided into batches: the rows of packed
    texts have different numbers of texts, and texts have different numbers of tokens.

    Example:
        >>> from finetune_tf.training.loss_mean import LossMean, counting
        >>> mean = LossMean()
        >>> for loss, targets in ((1.0, 3), (5.0, 1)):
        ...     with counting(targets):
        ...         mean.update_state(loss, sample_weight=2)  # the rows of the batch
        >>> float(mean.result())
        2.0
    """

    def update_state(self, values: Any, sample_weight: Any = None) -> None:
        """Adds the loss of a batch.

        Args:
            values: The loss.
            sample_weight: The rows of the batch, which count where its targets are unknown.
        """
        targets = _TARGETS.get()
        super().update_state(values, sample_weight if targets is None else targets)


@contextlib.contextmanager
def counting(targets: Any) -> Iterator[None]:
    """Inside the block, the loss of a batch counts as often as it has targets.

    Args:
        targets: Their number; None if the rows of the batch count instead.
    """
    token = _TARGETS.set(targets)
    try:
        yield
    finally:
        _TARGETS.reset(token)


def number_of_targets(x: Any, targets: Any, outputs: Any, kind: Kind, loss: Any) -> Any:
    """Returns by how many targets a loss divides the sum of their losses.

    Args:
        x: The inputs of the batch.
        targets: Its targets, or None.
        outputs: The symbolic outputs of the model, (batch, …, classes).
        kind: The kind of the outputs.
        loss: The loss of the model.

    Returns:
        A number, or one that is proportional to it; None if it is unknown, as for a custom loss, or
        proportional to the rows.
    """
    if targets is None or fit_of(loss, kind) is None:
        return None
    if getattr(loss, "reduction", "sum_over_batch_size") not in ("sum_over_batch_size", "mean"):
        return None
    if kind == "classes":
        rank = len(outputs.shape)
        if len(targets.shape) == rank and targets.shape[-1] != 1:  # rows over the classes
            return ops.cast(ops.size(targets[..., 0]), "float32")
        counted = ops.not_equal(ops.cast(targets, "int32"), IGNORED)
        return ops.sum(ops.cast(counted, "float32"))
    if hasattr(x, "keys") and STARTS in x:  # of packed rows, each of which has several texts
        return ops.sum(ops.cast(ops.greater_equal(x[STARTS], 0), "float32"))
    return None
