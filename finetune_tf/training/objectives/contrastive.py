"""Supervised contrastive learning (Khosla et al. 2020; Gunel et al. 2021)."""

from typing import Any

import keras
from keras import ops

from finetune_tf.base.arguments import check
from finetune_tf.errors import ModelError
from finetune_tf.graph.taps import input_of_head
from finetune_tf.training.objectives.objective import Objective, Step, refuse

_NAME = "supervised contrastive"


@keras.saving.register_keras_serializable("finetune_tf")
class SupervisedContrastive(Objective):
    """Pulls the vectors of examples with the same label together, and others apart.

    The vectors are those that the last layer reads, scaled to length 1. With P(i) the other
    examples of the batch with the label of i, the loss of i is the mean over p in P(i) of
    −log(exp(zᵢ·zₚ / temperature) / Σₐ exp(zᵢ·zₐ / temperature)), a over all other examples; it is 0
    if P(i) is empty ("Supervised Contrastive Learning", Khosla et al. 2020). Training minimizes
    (1 − alpha) · plain loss + alpha · contrastive loss ("Supervised Contrastive Learning for
    Pre-trained Language Model Fine-tuning", Gunel et al. 2021).

    Larger batches have more pairs; those of several devices are one batch. With `RDrop`, both
    passes of an example are a pair.

    Args:
        alpha: The share of the contrastive loss.
        temperature: As above.

    Example:
        >>> model.compile(objectives=[ft.objectives.SupervisedContrastive(alpha=0.5)])
        >>> history = model.fit(train.batches(model, 5), verbose=0)
    """

    allows_mixtures = False
    compares_rows = True
    joins_devices = True

    def __init__(self, alpha: float = 0.9, temperature: float = 0.3) -> None:
        check(
            **{
                "SupervisedContrastive.alpha": alpha,
                "SupervisedContrastive.temperature": temperature,
            }
        )
        self.alpha = float(alpha)
        self.temperature = float(temperature)
        self.share = 1.0 - self.alpha

    def check(self, model: Any) -> None:
        """Checks that examples have one label and one vector."""
        if model.kind != "classes" or model.task.token_axis is not None:
            raise refuse(self, model, "it needs one label out of several for each example.")
        shape = input_of_head(model).shape
        if None in shape[1:]:
            raise refuse(self, model, f"its last layer reads features of the shape {shape}.")

    def before(self, step: Step) -> None:
        """Reads the vectors."""
        step.taps.read(_NAME, input_of_head(step.model))

    def term(self, step: Step) -> Any:
        """Returns alpha times the mean loss of the examples."""
        labels = step.targets
        if len(labels.shape) > 1 and labels.shape[-1] != 1:
            raise ModelError(
                "SupervisedContrastive compares class indices (batch,), found rows with a share of "
                "each class. Leave one of both out."
            )
        labels = ops.reshape(ops.cast(labels, "int32"), (-1,))
        vectors = step.gathered(ops.cast(step.taps.values[_NAME], "float32"))
        vectors = ops.reshape(vectors, (ops.shape(labels)[0], -1))
        values = contrastive_losses(
            vectors, labels, ops.reshape(step.counted, (-1,)), self.temperature
        )
        return self.alpha * step.mean(values, of_all_devices=True)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {"alpha": self.alpha, "temperature": self.temperature}


def contrastive_losses(vectors: Any, labels: Any, counted: Any, temperature: float) -> Any:
    """Returns the supervised contrastive loss of each example, (n,).

    Args:
        vectors: (n, D), of any length.
        labels: Class indices (n,).
        counted: (n,) bool; other examples are in no pair.
        temperature: What the cosine similarities are divided by.
    """
    squares = ops.sum(ops.square(vectors), axis=1, keepdims=True)
    vectors = vectors * ops.rsqrt(ops.maximum(squares, 1e-24))
    cosines = ops.matmul(vectors, ops.transpose(vectors)) / temperature  # (n, n)
    n = ops.shape(labels)[0]
    others = ops.not_equal(ops.arange(n)[:, None], ops.arange(n)[None, :])
    others = ops.logical_and(others, counted[None, :])
    log_sum = ops.logsumexp(ops.where(others, cosines, -1e30), axis=1, keepdims=True)
    pairs = ops.logical_and(others, ops.equal(labels[:, None], labels[None, :]))
    losses = ops.where(pairs, log_sum - cosines, 0.0)
    number = ops.sum(ops.cast(pairs, "float32"), axis=1)
    return ops.sum(losses, axis=1) / ops.maximum(number, 1.0)
