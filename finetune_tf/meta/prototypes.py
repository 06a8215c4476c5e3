"""Prototypical networks: a class is the mean of the features of its examples.

References:
    Snell, Swersky and Zemel, Prototypical Networks for Few-shot Learning, NeurIPS 2017.
"""

from collections.abc import Callable
from typing import Any, Literal, Self

import keras
import numpy as np

from finetune_tf.base.arguments import check
from finetune_tf.base.spelling import names_checked
from finetune_tf.messages import warn
from finetune_tf.meta.episodes import Episode, drawn
from finetune_tf.meta.functional import (
    accuracy,
    class_means,
    cross_entropy,
    squared_distances,
    values_of,
)
from finetune_tf.meta.learner import Batch, Learner
from finetune_tf.meta.network import Rows
from finetune_tf.meta.norms import Statistics, batch_norms

_YOUNG = 0.05  # a share of initial values in stored statistics that predictions suffer from


class Prototypes(Learner):
    """Classifies by the nearest class mean; `fit` trains features in which that works well.

    The prototype of a class is the mean of the features of its support rows, and the logits of a
    row are the negative squared Euclidean distances of its features to the prototypes (Snell et
    al. 2017). Nothing is trained in an adaptation, so it is the fastest of the learners and a good
    first choice. On a pretrained model it can be used without a fit.

    `fit` trains like any other fit: with dropout, and batch normalization as the model has it.

    Args:
        model: A built model with stages: from `ft.load`, or another Functional or Sequential one.
            Its features are what its head reads; frozen stages are computed once and cached.
        statistics: Which statistics batch normalization uses to adapt and to predict: "stored", or
            those of the support set ("support") or of each batch ("batch").
        learning_rate: The rate of Adam; "auto" is 5e-5 while variables of a checkpoint are
            trained, otherwise 1e-3.
        keep_head: Whether the model's own head computes the features too.

    Example:
        >>> learner = ft.meta.Prototypes(model)
        >>> report = learner.evaluate(train, ways=2, shots=1, queries=1, episodes=5)
        >>> 0 <= report.accuracy.value <= 1
        True
    """

    @names_checked
    def __init__(
        self,
        model: keras.Model,
        statistics: Statistics = "stored",
        learning_rate: float | Literal["auto"] = "auto",
        keep_head: bool = False,
    ) -> None:
        super().__init__(model, statistics, learning_rate, keep_head)

    @names_checked
    def fit(
        self,
        examples: Any,
        ways: int = 5,
        shots: int = 1,
        queries: int = 15,
        episodes: int = 1000,
        seed: int = 0,
    ) -> Self:
        """Trains the trainable variables of the model, one step for each episode.

        Args:
            examples: `Examples` with labels, or a pair (inputs, classes) of arrays.
            ways: The classes of an episode. More ways than in the test often help.
            shots: The rows of each class that make its prototype.
            queries: The rows of each class whose loss is minimized.
            episodes: The number of episodes.
            seed: Decides the episodes.

        Returns:
            The learner; `history` has the loss and the accuracy of each step.

        Raises:
            ArgumentError: If a number is out of range.
            DataError: If the examples do not have enough classes or rows.
            ModelError: If nothing is trainable, or the loss is not a finite number.
        """
        check(queries=queries, episodes=episodes)
        sequence = drawn(examples, ways, shots, queries, seed)
        self._fit(sequence, self.network.rows_of(examples), episodes, per_step=1)
        self._warn_of_young_statistics()
        return self

    def _warn_of_young_statistics(self) -> None:
        """Warns if stored statistics of batch normalization are those of no data in part."""
        shares = [
            part.momentum ** len(self.history["loss"])
            for part in batch_norms(self.network.upper)
            if isinstance(part, keras.layers.BatchNormalization) and part.trainable
        ]
        share = max(shares, default=0.0)
        if self._features_with.statistics == "stored" and share > _YOUNG:
            warn(
                f"{share:.0%} of the stored statistics of batch normalization are still those from "
                "before the fit, with which predictions are normalized. Train for more episodes, "
                'lower the momentum of BatchNormalization, or use statistics="support".'
            )

    def _gradients(self, rows: Rows, episode: Episode, seed: list[int]) -> tuple[Any, Any, list]:
        # One batch, so that batch normalization sees the same statistics in both parts.
        batch = rows.batch(np.concatenate([episode.support_rows, episode.query_rows]))
        classes = np.concatenate([episode.support_classes, episode.query_classes])
        return self._function("gradients", self._of_batch, self._signature(batch))(
            batch, classes.astype("int32"), np.int32(len(episode.support_rows)), episode.ways
        )

    def _signature(self, batch: Batch) -> list:
        import tensorflow as tf

        number = tf.TensorSpec((), tf.int32)
        return [self._spec(batch), tf.TensorSpec((None,), tf.int32), number, number]

    def _of_batch(self, batch: Any, classes: Any, supports: Any, ways: Any) -> tuple:
        import tensorflow as tf

        values = [variable.value for variable in self.network.variables]
        with tf.GradientTape() as tape:
            features = self.network.upper(batch, training=True)
            features = tf.cast(features, tf.float32)
            means = class_means(features[:supports], classes[:supports], ways)
            logits = -squared_distances(features[supports:], means)
            loss = cross_entropy(logits, classes[supports:])
        gradients = tape.gradient(loss, values, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]
        return loss, accuracy(logits, classes[supports:]), gradients

    def _classifier(self, support: Batch, classes: np.ndarray, ways: int) -> Callable:
        values = values_of(self.network.variables)
        stored = values_of(self._features_with.stored)
        features, moments = self._forward(values, support, None, stored)
        means = class_means(features, classes, ways)

        def logits(batch: Batch) -> Any:
            return -squared_distances(self._forward(values, batch, moments, stored)[0], means)

        return logits

    def _logits(self, rows: Rows, episode: Episode, fixed: np.ndarray | None) -> np.ndarray:
        if fixed is None:
            return super()._logits(rows, episode, fixed)
        # Nothing of the network is adapted, so the features of all rows are known.
        support = fixed[episode.support_rows].reshape(episode.ways, -1, fixed.shape[1])
        return -np.asarray(squared_distances(fixed[episode.query_rows], support.mean(axis=1)))
