"""Reptile: an initialization that moves towards the values after an adaptation.

References:
    Nichol, Achiam and Schulman, On First-Order Meta-Learning Algorithms, 2018.
"""

from typing import Any, Self

import keras
import numpy as np

from finetune_tf.base.arguments import check
from finetune_tf.base.spelling import names_checked
from finetune_tf.meta.adaptation import AdaptingLearner, Head
from finetune_tf.meta.episodes import Episode, drawn
from finetune_tf.meta.functional import Moments, Values, accuracy, cross_entropy
from finetune_tf.meta.learner import Batch
from finetune_tf.meta.network import Rows
from finetune_tf.meta.norms import Statistics

_DECAY, _EPSILON = 0.999, 1e-8  # Adam's, for the mean of squared gradients


class Reptile(AdaptingLearner):
    """Trains an initialization by moving it towards the values after many steps on an episode.

    An adaptation takes `steps` steps of Adam without momentum (beta_1 = 0), each on a part of the
    rows. `fit` moves the initialization by a share of the way to the adapted values, a share that
    decreases to 0 (Nichol et al. 2018). There are no query sets and no second derivatives, so
    memory does not grow with the number of steps. It needs more episodes than MAML.

    Dropout is off.

    Args:
        model: A built model with stages: from `ft.load`, or another Functional or Sequential one.
            Its trainable variables are adapted; the output of frozen stages is computed once.
        inner_rate: The rate of the steps of an adaptation.
        steps: The number of these steps in `fit`.
        adapt_steps: Their number in `adapt` and `evaluate`; more than in `fit`.
        inner_batch: The rows of each of these steps.
        head: How the output layer starts in each adaptation; see `MAML`.
        statistics: Which statistics batch normalization uses; see `MAML`.
        step_size: The share of the way at the beginning of a fit.
        keep_head: Whether the model's own head computes the features too.

    Raises:
        ArgumentError: If a number is out of range.
        ModelError: If the model has no stages, or computes in float16.

    Example:
        >>> learner = ft.meta.Reptile(model, head="prototypes", adapt_steps=5)
        >>> learner.adapt(train).labels == train.labels
        True
    """

    @names_checked
    def __init__(
        self,
        model: keras.Model,
        inner_rate: float = 1e-3,
        steps: int = 5,
        adapt_steps: int | None = 50,
        inner_batch: int = 10,
        head: Head = "learned",
        statistics: Statistics = "support",
        step_size: float = 1.0,
        keep_head: bool = False,
    ) -> None:
        check(inner_batch=inner_batch, step_size=step_size)
        super().__init__(model, inner_rate, steps, adapt_steps, head, statistics, "auto", keep_head)
        self._inner_batch, self._step_size = inner_batch, step_size

    @names_checked
    def fit(
        self,
        examples: Any,
        ways: int = 5,
        shots: int = 10,
        episodes: int = 1000,
        episodes_per_step: int = 5,
        seed: int = 0,
    ) -> Self:
        """Trains the initialization.

        Args:
            examples: `Examples` with labels, or a pair (inputs, classes) of arrays.
            ways: The classes of an episode.
            shots: The rows of each class; more than are adapted to later help.
            episodes: The number of episodes.
            episodes_per_step: The episodes whose adapted values are averaged for a step.
            seed: Decides the episodes, their parts, and the output layer at the beginning.

        Returns:
            The learner; `history` has the loss and the accuracy in the last part of each episode,
            before that step.

        Raises:
            ArgumentError: If a number is out of range.
            DataError: If the examples do not have enough classes or rows.
            ModelError: If nothing is trainable, or the loss is not a finite number.
        """
        check(episodes=episodes, episodes_per_step=episodes_per_step)
        sequence = drawn(examples, ways, shots, 0, seed)
        return self._fit(sequence, self.network.rows_of(examples), episodes, episodes_per_step)

    def _new_optimizer(self) -> keras.optimizers.Optimizer:
        return keras.optimizers.SGD(self._step_size)

    def _apply(self, summed: list, count: int, progress: float) -> None:
        self._optimizer.learning_rate = self._step_size * (1 - progress)
        super()._apply(summed, count, progress)

    def _gradients(self, rows: Rows, episode: Episode, seed: list[int]) -> tuple[Any, Any, list]:
        batch = rows.batch(episode.support_rows)
        classes = episode.support_classes.astype("int32")
        parts = self._parts(len(classes), self._steps, seed)
        start, values, loss, share, _ = self._run(batch, classes, episode.ways, parts)
        # The way back, since optimizers subtract gradients.
        ways_back = [a - b for a, b in zip(start, values, strict=True)]
        return loss, share, ways_back[: len(self._variables)]

    def _adapt(self, support: Batch, classes: np.ndarray, ways: int) -> tuple[Values, Moments]:
        parts = self._parts(len(classes), self._adapt_steps, [0])
        _, values, _, _, moments = self._run(support, classes, ways, parts)
        return values, moments

    def _parts(self, rows: int, steps: int, seed: list[int]) -> np.ndarray:
        """Returns the rows (steps, rows of a part) of each step: all of them in random orders."""
        size = min(self._inner_batch, rows)
        generator = np.random.default_rng(seed)
        orders = [generator.permutation(rows) for _ in range(-(-steps * size // rows))]
        return np.concatenate(orders)[: steps * size].reshape(steps, size).astype("int32")

    def _run(self, batch: Batch, classes: np.ndarray, ways: int, parts: np.ndarray) -> tuple:
        import tensorflow as tf

        number = tf.TensorSpec((), tf.int32)
        signature = [
            self._spec(batch),
            tf.TensorSpec((None,), tf.int32),
            number,
            tf.TensorSpec((None, None), tf.int32),
        ]
        return self._function("run", self._descend, signature)(batch, classes, ways, parts)

    def _descend(self, batch: Any, classes: Any, ways: Any, parts: Any) -> tuple:
        """Returns the values before and after, the last loss and accuracy, and the statistics."""
        import tensorflow as tf

        values = [tf.convert_to_tensor(variable.value) for variable in self._variables]
        start = self._start(values, batch, classes, ways)

        def step(i: Any, values: Values, squares: Values, *_: Any) -> tuple:
            part = {name: tf.gather(array, parts[i]) for name, array in batch.items()}
            of_part = tf.gather(classes, parts[i])
            with tf.GradientTape() as tape:
                tape.watch(values)
                logits, _ = self._logits_of(values, part)
                loss = tf.cast(cross_entropy(logits, of_part), tf.float32)
            zero = tf.UnconnectedGradients.ZERO
            gradients = tape.gradient(loss, values, unconnected_gradients=zero)
            gradients = list(map(tf.convert_to_tensor, gradients))
            squares = [
                _DECAY * old + (1 - _DECAY) * tf.square(gradient)
                for old, gradient in zip(squares, gradients, strict=True)
            ]
            unbias = 1 - tf.pow(_DECAY, tf.cast(i + 1, "float32"))
            values = [
                value
                - self._inner_rate
                * gradient
                / (tf.sqrt(square / tf.cast(unbias, value.dtype)) + _EPSILON)
                for value, gradient, square in zip(values, gradients, squares, strict=True)
            ]
            return i + 1, values, squares, loss, accuracy(logits, of_part)

        steps = tf.shape(parts)[0]
        zeros = [tf.zeros_like(value) for value in start]
        number = tf.zeros((), "float32")
        _, values, _, loss, share = tf.while_loop(
            lambda i, *_: i < steps, step, (tf.constant(0), start, zeros, number, number)
        )
        return start, values, loss, share, self._moments(values, batch)
