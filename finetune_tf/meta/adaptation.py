"""Learners that adapt by gradient steps: what MAML and Reptile have in common.

Shape legend: D features, W ways (classes of an episode).
"""

from collections.abc import Callable
from typing import Any, Literal, get_args

import keras
import numpy as np

from finetune_tf.base.arguments import check
from finetune_tf.errors import ModelError
from finetune_tf.meta.functional import Moments, Values, class_means, values_of
from finetune_tf.meta.learner import Batch, Learner
from finetune_tf.meta.norms import Statistics

#: How the output layer starts in each adaptation: with values that `fit` has learned, for its
#: number of classes; or with those of the nearest class mean.
Head = Literal["learned", "prototypes"]


class AdaptingLearner(Learner):
    """The base class of learners that adapt the network and an output layer by gradient steps.

    Args:
        model: As for `Learner`.
        inner_rate: The rate of the steps of an adaptation.
        steps: The number of these steps in `fit`.
        adapt_steps: Their number in `adapt` and `evaluate`; None for `steps`.
        head: How the output layer starts.
        statistics: As for `Learner`.
        learning_rate: As for `Learner`.
        keep_head: As for `Learner`.
    """

    def __init__(
        self,
        model: keras.Model,
        inner_rate: float,
        steps: int,
        adapt_steps: int | None,
        head: Head,
        statistics: Statistics,
        learning_rate: float | Literal["auto"],
        keep_head: bool,
    ) -> None:
        check(
            inner_rate=inner_rate,
            **{"MAML.steps": steps, "adapt_steps": adapt_steps},
        )
        if head not in get_args(Head):
            raise ModelError(
                f"head must be {' or '.join(map(repr, get_args(Head)))}, found {head!r}."
            )
        super().__init__(model, statistics, learning_rate, keep_head)
        self._inner_rate, self._steps = inner_rate, steps
        self._adapt_steps = steps if adapt_steps is None else adapt_steps
        self._head_kind = head
        self._head: list[keras.Variable] = []
        self._adapts_untrained = head == "prototypes"

    @property
    def _variables(self) -> list[keras.Variable]:
        return [*self.network.variables, *self._head]

    def _prepare(self, ways: int, seed: int) -> None:
        if self._head_kind == "prototypes":
            return
        if not self._head:
            kernel = keras.initializers.GlorotUniform(seed)
            shape, dtype = (self.network.features, ways), "float32"
            self._head = [
                keras.Variable(kernel(shape, dtype), name="meta_head_kernel"),
                keras.Variable(np.zeros(ways, dtype), name="meta_head_bias"),
            ]
        self._require_ready(ways)

    def _require_ready(self, ways: int) -> None:
        if self._head_kind == "prototypes":
            return
        name = type(self).__name__
        if not self._head:
            raise ModelError(
                f'{name} with head="learned" adapts an output layer that fit learns. Call fit '
                'first, or use head="prototypes".'
            )
        known = self._head[0].shape[1]
        if ways != known:
            raise ModelError(
                f"{name} was fitted with {known} ways, and its output layer has as many classes; "
                f"found {ways}. Fit it with ways={ways}, or use "
                'head="prototypes", which adapts to any number of classes.'
            )

    def _start(self, values: Values, batch: Any, classes: Any, ways: Any) -> Values:
        """Returns the values that an adaptation starts with: of the network and output layer."""
        if self._head_kind == "learned":
            return list(values)
        features, _ = self._features_with(values, batch)
        return [*values, *prototype_layer(class_means(features, classes, ways))]

    def _logits_of(
        self, values: Values, batch: Any, moments: Moments | None = None, stored: Any = None
    ) -> tuple[Any, Moments]:
        """Returns the logits (B, W) of a batch, and the statistics that were used."""
        *of_network, kernel, bias = values
        features, found = self._features_with(of_network, batch, moments, stored)
        return output_layer(features, kernel, bias), found

    def _moments(self, values: Values, batch: Any) -> Moments:
        """Returns the statistics that predictions use after an adaptation; [] if they use none."""
        uses = self._features_with.reads_batch and self._features_with.statistics == "support"
        return self._logits_of(values, batch)[1] if uses else []

    def _classifier(self, support: Batch, classes: np.ndarray, ways: int) -> Callable:
        values, moments = self._adapt(support, classes, ways)
        stored = values_of(self._features_with.stored)
        *of_network, kernel, bias = values

        def logits(batch: Batch) -> Any:
            features, _ = self._forward(of_network, batch, moments, stored)
            return output_layer(features, kernel, bias)

        return logits

    def _adapt(self, support: Batch, classes: np.ndarray, ways: int) -> tuple[Values, Moments]:
        """Adapts with a traced function."""
        raise NotImplementedError


def output_layer(features: Any, kernel: Any, bias: Any) -> Any:
    """Returns logits (B, W) of features (B, D), a kernel (D, W) and a bias (W,)."""
    import tensorflow as tf

    return tf.matmul(features, tf.cast(kernel, features.dtype)) + tf.cast(bias, features.dtype)


def prototype_layer(means: Any) -> Values:
    """Returns the kernel (D, W) and the bias (W,) that classify by the nearest mean (W, D).

    Their logits differ from the negative squared distances by the same number for all classes
    (Triantafillou et al., Meta-Dataset, ICLR 2020).
    """
    import tensorflow as tf

    return [2 * tf.transpose(means), -tf.reduce_sum(tf.square(means), axis=1)]
