"""MAML: an initialization from which a few gradient steps learn new classes.

References:
    Finn, Abbeel and Levine, Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks,
    ICML 2017.
"""

from typing import Any, Literal, Self

import keras
import numpy as np

from finetune_tf.base.arguments import check
from finetune_tf.base.spelling import names_checked
from finetune_tf.errors import ModelError
from finetune_tf.meta.adaptation import AdaptingLearner, Head
from finetune_tf.meta.episodes import Episode, drawn
from finetune_tf.meta.functional import Moments, Values, accuracy, cross_entropy
from finetune_tf.meta.learner import Batch
from finetune_tf.meta.network import Rows
from finetune_tf.meta.norms import Statistics, inexact_norms


class MAML(AdaptingLearner):
    """Trains an initialization from which a few gradient steps on a support set work well.

    An adaptation takes `steps` steps of gradient descent on the whole support set. `fit` minimizes
    the loss of the queries after these steps, as a function of the values before them, so it
    differentiates through the steps (Finn et al. 2017). With `first_order=True` the gradients of
    the steps count as constants, which needs less memory and half of the time.

    Dropout is off, so that second derivatives are those of what is computed later. Keras's own
    layer, group and batch normalization are replaced by exact ones while functions are traced,
    because their second derivatives are wrong on TensorFlow.

    Args:
        model: A built model with stages: from `ft.load`, or another Functional or Sequential one.
            Its trainable variables are adapted; the output of frozen stages is computed once.
        inner_rate: The rate of the steps of an adaptation.
        steps: The number of these steps.
        adapt_steps: Their number in `adapt` and `evaluate`; None for `steps`.
        first_order: Whether second derivatives are left out.
        head: How the output layer starts in each adaptation. "learned": with values that `fit`
            learns, for as many classes as it was called with. "prototypes": with those of the
            nearest class mean, for any number of classes (Triantafillou et al. 2020).
        statistics: Which statistics batch normalization uses, in the steps and in predictions:
            those of the support set ("support"); of each batch, so that queries are normalized
            together ("batch", as in the paper); or the stored ones, which do not change
            ("stored").
        learning_rate: The rate of Adam in `fit`; "auto" is 5e-5 while variables of a checkpoint
            are trained, otherwise 1e-3.
        keep_head: Whether the model's own head computes the features too.

    Raises:
        ArgumentError: If a number is out of range.
        ModelError: If the model has no stages, computes in float16, or has a normalization whose
            second derivatives are wrong and that cannot be replaced.

    Example:
        >>> _ = ft.train_only(model, ft.select.blocks(-1))
        >>> learner = ft.meta.MAML(model, inner_rate=0.01, steps=2, head="prototypes")
        >>> classifier = learner.adapt(train)
        >>> classifier.predict("a good film").label in train.labels
        True
    """

    @names_checked
    def __init__(
        self,
        model: keras.Model,
        inner_rate: float = 0.1,
        steps: int = 5,
        adapt_steps: int | None = None,
        first_order: bool = False,
        head: Head = "learned",
        statistics: Statistics = "support",
        learning_rate: float | Literal["auto"] = "auto",
        keep_head: bool = False,
    ) -> None:
        super().__init__(
            model, inner_rate, steps, adapt_steps, head, statistics, learning_rate, keep_head
        )
        self._first_order = first_order
        wrong = [] if first_order else inexact_norms(self.network.upper)
        if wrong:
            raise ModelError(
                f"{', '.join(sorted({part.name for part in wrong}))} "
                f"({type(wrong[0]).__name__}) computes its variance with an operation whose second "
                "derivatives are wrong on TensorFlow, and has a subclass or an option that cannot "
                "be replaced. Use first_order=True, a layer of Keras itself without renorm, "
                "synchronized and rms_scaling, or freeze the stages up to it."
            )

    @names_checked
    def fit(
        self,
        examples: Any,
        ways: int = 5,
        shots: int = 1,
        queries: int = 15,
        episodes: int = 1000,
        episodes_per_step: int = 4,
        seed: int = 0,
    ) -> Self:
        """Trains the initialization.

        Args:
            examples: `Examples` with labels, or a pair (inputs, classes) of arrays.
            ways: The classes of an episode.
            shots: The rows of each class to adapt to.
            queries: The rows of each class whose loss after the adaptation is minimized.
            episodes: The number of episodes.
            episodes_per_step: The episodes whose gradients are averaged for a step of the
                optimizer. They are computed one after the other, so memory does not grow.
            seed: Decides the episodes, and the output layer at the beginning.

        Returns:
            The learner; `history` has the loss and the accuracy of the queries in each step.

        Raises:
            ArgumentError: If a number is out of range.
            DataError: If the examples do not have enough classes or rows.
            ModelError: If nothing is trainable, or the loss is not a finite number.
        """
        check(episodes=episodes, episodes_per_step=episodes_per_step)
        check(queries=queries)
        sequence = drawn(examples, ways, shots, queries, seed)
        return self._fit(sequence, self.network.rows_of(examples), episodes, episodes_per_step)

    def meta_gradients(
        self, support: Any, support_classes: Any, query: Any, query_classes: Any, ways: Any
    ) -> tuple[Any, Any, list]:
        """Returns the loss and the accuracy of the queries, and the gradients of the loss.

        Args:
            support: A batch of the support set.
            support_classes: The class of each of its rows, int32.
            query: A batch of the query set.
            query_classes: The class of each of its rows, int32.
            ways: The number of classes.

        Returns:
            Two scalars, and a gradient for each trained variable.
        """
        import tensorflow as tf

        variables = [tf.convert_to_tensor(variable.value) for variable in self._variables]
        with tf.GradientTape() as tape:
            tape.watch(variables)
            start = self._start(variables, support, support_classes, ways)
            values, moments = self._descend(start, support, support_classes, self._steps)
            logits, _ = self._logits_of(values, query, moments)
            loss = cross_entropy(logits, query_classes)
        zero = tf.UnconnectedGradients.ZERO
        gradients = tape.gradient(loss, variables, unconnected_gradients=zero)
        return loss, accuracy(logits, query_classes), list(map(tf.convert_to_tensor, gradients))

    def _descend(
        self, values: Values, batch: Any, classes: Any, steps: int
    ) -> tuple[Values, Moments]:
        import tensorflow as tf

        for _ in range(steps):
            with tf.GradientTape() as tape:
                tape.watch(values)
                loss = cross_entropy(self._logits_of(values, batch)[0], classes)
            zero = tf.UnconnectedGradients.ZERO
            gradients = tape.gradient(loss, values, unconnected_gradients=zero)
            if self._first_order:
                gradients = map(tf.stop_gradient, gradients)
            values = [
                value - self._inner_rate * tf.convert_to_tensor(gradient)
                for value, gradient in zip(values, gradients, strict=True)
            ]
        return values, self._moments(values, batch)

    def _gradients(self, rows: Rows, episode: Episode, seed: list[int]) -> tuple[Any, Any, list]:
        import tensorflow as tf

        support, query = rows.batch(episode.support_rows), rows.batch(episode.query_rows)
        classes, number = tf.TensorSpec((None,), tf.int32), tf.TensorSpec((), tf.int32)
        signature = [self._spec(support), classes, self._spec(query), classes, number]
        return self._function("gradients", self.meta_gradients, signature)(
            support,
            episode.support_classes.astype("int32"),
            query,
            episode.query_classes.astype("int32"),
            episode.ways,
        )

    def _adapt(self, support: Batch, classes: np.ndarray, ways: int) -> tuple[Values, Moments]:
        import tensorflow as tf

        def adapt(batch: Any, classes: Any, ways: Any) -> tuple:
            values = [tf.convert_to_tensor(variable.value) for variable in self._variables]
            start = self._start(values, batch, classes, ways)
            return self._descend(start, batch, classes, self._adapt_steps)

        number = tf.TensorSpec((), tf.int32)
        signature = [self._spec(support), tf.TensorSpec((None,), tf.int32), number]
        return self._function("adapt", adapt, signature)(support, classes, ways)
