"""Losses on all pairs of texts in a batch, which pull texts of one class together."""

from typing import Any

import keras
from keras import ops

from finetune_tf.base.arguments import check
from finetune_tf.training.objectives.contrastive import contrastive_losses


class PairCosines(keras.losses.Loss):
    """Mean squared error of the cosines of all pairs of a batch and the similarity of their labels.

    The target of a pair is 1 if the texts have the same label, else 0, as in SetFit (Tunstall et
    al., Efficient Few-Shot Learning Without Prompts, 2022). With several labels for a text, it is
    the number of labels that both have, divided by the number of labels that one of them has; 1 for
    two texts without labels. A batch of n texts has n² pairs but needs the memory of n texts. The
    pair of a text with itself has the cosine 1 and adds nothing.

    Args:
        several: Whether targets are 0 and 1 (n, labels) and not class indices (n,).

    Example:
        >>> from finetune_tf.fewshot import PairCosines
        >>> loss = PairCosines()
        >>> vectors = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
        >>> float(loss(np.array([0, 0, 1]), vectors)), float(loss(np.array([0, 1, 0]), vectors)) > 0
        (0.0, True)
    """

    def __init__(self, several: bool = False, name: str = "pair_cosines") -> None:
        super().__init__(name=name)
        self.several = several

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Maps targets and vectors (n, features) to the mean loss of the pairs of a text (n,)."""
        squares = ops.sum(ops.square(y_pred), axis=1, keepdims=True)
        vectors = y_pred * ops.rsqrt(ops.maximum(squares, 1e-24))
        cosines = ops.matmul(vectors, ops.transpose(vectors))  # (n, n)
        wanted = ops.cast(_similarities(y_true, self.several), cosines.dtype)
        return ops.mean(ops.square(cosines - wanted), axis=1)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {"several": self.several, "name": self.name}


class PairContrast(keras.losses.Loss):
    """The supervised contrastive loss of a batch (Khosla et al. 2020), for many classes.

    With many classes nearly all pairs of a batch differ, so the mean over pairs hardly depends on
    those that are alike. This loss compares each pair of one class with all other pairs of the same
    text; see `ft.objectives.SupervisedContrastive` for the formula.

    Args:
        temperature: What the cosines are divided by.
    """

    def __init__(self, temperature: float = 0.1, name: str = "pair_contrast") -> None:
        check(**{"PairContrast.temperature": temperature})
        super().__init__(name=name)
        self.temperature = float(temperature)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Maps class indices (n,) and vectors (n, features) to the loss of each text (n,)."""
        labels = ops.reshape(ops.cast(y_true, "int32"), (-1,))
        counted = ops.ones_like(labels, dtype="bool")
        return contrastive_losses(y_pred, labels, counted, self.temperature)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {"temperature": self.temperature, "name": self.name}


def _similarities(targets: Any, several: bool) -> Any:
    """The similarity of the labels of each pair (n, n), from 0 to 1."""
    if not several:
        labels = ops.reshape(targets, (-1,))
        return ops.equal(labels[:, None], labels[None, :])
    targets = ops.cast(targets, "float32")
    shared = ops.matmul(targets, ops.transpose(targets))
    sizes = ops.sum(targets, axis=1)
    either = sizes[:, None] + sizes[None, :] - shared
    return ops.where(either > 0, shared / ops.maximum(either, 1.0), 1.0)
