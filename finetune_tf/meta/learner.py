"""What all learners have in common: training in episodes, adaptation, evaluation."""

import itertools
from collections.abc import Callable
from typing import Any, Literal, Self

import keras
import numpy as np

from finetune_tf.base.arguments import check
from finetune_tf.base.spelling import names_checked
from finetune_tf.errors import DataError, ModelError
from finetune_tf.messages import say
from finetune_tf.meta.adapted import Adapted, require_finite
from finetune_tf.meta.classes import classes_of
from finetune_tf.meta.episodes import Episode, Episodes, drawn
from finetune_tf.meta.functional import Functional, values_of
from finetune_tf.meta.network import Network, Rows
from finetune_tf.meta.norms import Statistics, check_statistics
from finetune_tf.meta.results import EpisodeReport, one_thread, probe_accuracy
from finetune_tf.model.finetune_model import FineTuneModel
from finetune_tf.tasks.decisions import forget_after_training
from finetune_tf.training.compiling import computes_in_float16
from finetune_tf.training.fit_errors import check_precision, check_weights
from finetune_tf.training.pretrained import learning_pretrained, remember_changed

Batch = dict[str, np.ndarray]
_PRETRAINED_RATE, _NEW_RATE = 5e-5, 1e-3
_FEATURE_BATCH = 64
_LAST = 100  # the episodes that the message after a fit averages over


class Learner:
    """The base class of `Prototypes`, `MAML` and `Reptile`.

    A subclass defines `_gradients`, by which `fit` trains, and `_classifier`, what a support set
    makes of the network.

    Args:
        model: A built model with stages.
        statistics: Which statistics batch normalization uses when it adapts and predicts.
        learning_rate: The rate of training, or "auto".
        keep_head: Whether the model's own head is a part of the network.

    Attributes:
        history: The "loss" and the "accuracy" of each step of `fit`.
    """

    def __init__(
        self,
        model: keras.Model,
        statistics: Statistics,
        learning_rate: float | Literal["auto"],
        keep_head: bool,
    ) -> None:
        check(learning_rate=learning_rate)
        check_statistics(statistics)
        if keras.backend.backend() != "tensorflow":
            raise ModelError(
                f"{type(self).__name__} differentiates with TensorFlow, but Keras runs on "
                f"{keras.backend.backend()}. Set KERAS_BACKEND=tensorflow."
            )
        self.network = Network(model, keep_head)
        if computes_in_float16(model):
            raise ModelError(
                f"The model computes in float16, in which many gradients are 0, and "
                f"{type(self).__name__} does not scale the loss. Load it with "
                "dtype='mixed_bfloat16' or 'float32'."
            )
        self.history: dict[str, list[float]] = {"loss": [], "accuracy": []}
        self._features_with = Functional(self.network, statistics)
        self._given_rate = learning_rate
        self._optimizer: keras.optimizers.Optimizer | None = None
        self._traced: dict[Any, Callable] = {}

    # What subclasses define

    @property
    def _variables(self) -> list[keras.Variable]:
        """The variables that `fit` trains."""
        return self.network.variables

    def _prepare(self, ways: int, seed: int) -> None:
        """Creates what a fit needs besides the network."""

    def _gradients(self, rows: Rows, episode: Episode, seed: list[int]) -> tuple[Any, Any, list]:
        """Returns the loss, the accuracy and a gradient for each of `_variables`."""
        raise NotImplementedError

    def _classifier(self, support: Batch, classes: np.ndarray, ways: int) -> Callable:
        """Adapts to a support set, and returns a function from batches to logits (B, ways)."""
        raise NotImplementedError

    def _require_ready(self, ways: int) -> None:
        """Raises a ModelError if the learner cannot adapt to so many classes yet."""

    # Public methods of all learners

    @names_checked
    def adapt(self, support: Any) -> Adapted:
        """Returns a classifier of the classes of a support set; the learner stays as it is.

        Args:
            support: `Examples` with labels, or a pair (inputs, classes) of arrays: a few rows of
                each of at least two classes, which may be other ones than those of `fit`.

        Raises:
            DataError: If there are no rows, or fewer than two classes.
            ModelError: If the learner has to be fitted first.
        """
        self.network.check_unchanged()
        classes = classes_of(support)
        if len(classes.names) < 2:
            raise DataError(
                f"A classifier needs at least two classes, but the support set {classes.data} has "
                f"only {classes.names[0]!r}. Add examples of other classes."
            )
        self._require_ready(len(classes.names))
        order = np.argsort(classes.numbers, kind="stable")
        batch = self.network.rows_of(support).batch(order)
        numbers = classes.numbers[order].astype("int32")
        logits = self._classifier(batch, numbers, len(classes.names))
        reads_batch = self._features_with.reads_batch and self._features_with.statistics == "batch"
        return Adapted(self.network, classes.names, logits, reads_batch)

    @names_checked
    def evaluate(
        self,
        examples: Any,
        ways: int = 5,
        shots: int = 1,
        queries: int = 15,
        episodes: int = 200,
        seed: int = 0,
    ) -> EpisodeReport:
        """Measures the accuracy in episodes, and that of a logistic regression in the same ones.

        The logistic regression is fitted to the support set of each episode, on the features that
        the model computes before it adapts. What does not beat it is not worth its time.

        Args:
            examples: Rows of classes that `fit` has not seen; see `split_classes`.
            ways: The classes of an episode.
            shots: The rows of each class to adapt to.
            queries: The rows of each class to predict.
            episodes: The number of episodes; more of them make the intervals smaller.
            seed: Decides the episodes.

        Returns:
            The accuracies with 95 % intervals over episodes; print it.

        Raises:
            ArgumentError: If a number is out of range.
            DataError: If the examples do not have enough classes or rows.
            ModelError: If the learner has to be fitted first, or what it computes in an episode is
                not a finite number.
        """
        check(queries=queries, **{"evaluate.episodes": episodes})
        self.network.check_unchanged()
        sequence = drawn(examples, ways, shots, queries, seed)
        self._require_ready(ways)
        rows = self.network.rows_of(examples)
        fixed = None if self._features_with.reads_batch else self._features(rows)
        found = []
        with one_thread():
            for episode in itertools.islice(sequence, episodes):
                if fixed is None:
                    features = self._features_of(rows, episode)
                else:
                    features = fixed[episode.support_rows], fixed[episode.query_rows]
                for of_part in features:
                    require_finite(of_part, f"The features of episode {len(found):,} are")
                logits = self._logits(rows, episode, fixed)
                require_finite(logits, f"The logits of episode {len(found):,} are")
                right = logits.argmax(axis=1) == episode.query_classes
                probe = probe_accuracy(
                    features[0], episode.support_classes, features[1], episode.query_classes
                )
                found.append((right.mean(), probe))
        accuracies, probes = np.array(found).T
        return EpisodeReport(type(self).__name__, ways, shots, queries, accuracies, probes)

    # Training

    def _fit(self, sequence: Episodes, rows: Rows, episodes: int, per_step: int) -> Self:
        """Trains on episodes, several for each step of the optimizer."""
        self.network.check_unchanged()
        check_precision(self.network.upper)
        self._prepare(sequence.ways, sequence.seed)
        if not self._variables:
            raise ModelError(
                f"{self.network.whole.name!r} has no trainable variables below its head, so "
                f"{type(self).__name__} has nothing to train. Unfreeze some stages, for example "
                "with ft.train_only(model, ft.select.blocks(-1)), and make a new learner"
                + (", or adapt without a fit." if self._adapts_untrained else ".")
            )
        if self._optimizer is None:
            self._optimizer = self._new_optimizer()
            self._optimizer.build(self._variables)
        whole = self.network.whole
        if isinstance(whole, FineTuneModel):
            forget_after_training(whole.info)
            remember_changed(whole, learning_pretrained(whole))
        first = len(self.history["loss"])
        for start in range(0, episodes, per_step):
            self._step(sequence, rows, range(start, min(start + per_step, episodes)), episodes)
        check_weights(self.network.upper)
        last = self.history["accuracy"][first:][-max(1, _LAST // per_step) :]
        say(
            f"{type(self).__name__}: {episodes:,} episodes; accuracy in the last ones "
            f"{np.mean(last):.3f}."
        )
        return self

    def _step(self, sequence: Episodes, rows: Rows, numbers: range, total: int) -> None:
        losses, accuracies, summed = [], [], None
        for number in numbers:
            seed = [sequence.seed, number]
            loss, accuracy, gradients = self._gradients(rows, sequence[number], seed)
            losses.append(float(loss))
            accuracies.append(float(accuracy))
            summed = gradients if summed is None else _sums(summed, gradients)
        if not np.isfinite(losses).all():
            raise ModelError(
                f"The loss of {type(self).__name__} is {np.mean(losses)} in episode "
                f"{numbers[0]:,}; the last step was not applied. Choose a lower rate "
                "(learning_rate=, inner_rate=)."
            )
        self._apply(summed, len(numbers), numbers[0] / total)
        self.history["loss"].append(float(np.mean(losses)))
        self.history["accuracy"].append(float(np.mean(accuracies)))

    def _apply(self, summed: list, count: int, progress: float) -> None:
        """Applies a sum of gradients after a share `progress` of the fit."""
        self._function("apply", self._apply_mean)(summed, np.float32(1 / count))

    def _apply_mean(self, summed: list, share: Any) -> None:
        import tensorflow as tf

        means = [gradient * tf.cast(share, gradient.dtype) for gradient in summed]
        self._optimizer.apply(means, self._variables)

    def _new_optimizer(self) -> keras.optimizers.Optimizer:
        return keras.optimizers.Adam(self._rate())

    def _rate(self) -> float:
        if self._given_rate != "auto":
            return self._given_rate
        filled = set(getattr(getattr(self.network.whole, "info", None), "pretrained", None) or ())
        trains_pretrained = any(variable.path in filled for variable in self.network.variables)
        return _PRETRAINED_RATE if trains_pretrained else _NEW_RATE

    #: Whether adaptation makes sense before a fit.
    _adapts_untrained = True

    # Traced functions

    def _function(self, key: Any, function: Callable, signature: Any = None) -> Callable:
        """Returns a function that is traced once and kept under a key."""
        import tensorflow as tf

        if key not in self._traced:
            options = {} if signature is None else {"input_signature": signature}
            self._traced[key] = tf.function(function, autograph=False, **options)
        return self._traced[key]

    def _forward(
        self, values: list, batch: Batch, moments: Any = None, stored: list | None = None
    ) -> tuple[Any, Any]:
        """Returns the features of a batch with other values, and the statistics that were used."""
        import tensorflow as tf

        stored = values_of(self._features_with.stored) if stored is None else stored
        moments = moments if self._features_with.statistics == "support" else None
        given = tf.nest.map_structure(_spec_of, [values, moments or (), stored])
        signature = [self._spec(batch), *given]

        def forward(batch: Any, values: list, moments: Any, stored: list) -> tuple:
            return self._features_with(values, batch, moments or None, stored)

        function = self._function(("forward", bool(moments)), forward, signature)
        return function(batch, values, moments or (), stored)

    def _spec(self, batch: Batch) -> dict[str, Any]:
        """The spec of batches with any number of rows and, where rows have tokens, of any length.

        `batch` is one of them.
        """
        import tensorflow as tf

        shapes = {tensor.name: tuple(tensor.shape) for tensor in self.network.upper.inputs}
        return {name: tf.TensorSpec(shapes[name], array.dtype) for name, array in batch.items()}

    # Features of the network as it is, for the probe

    def _features(self, rows: Rows) -> np.ndarray:
        """Returns the features (rows, D) of all rows."""
        values = values_of(self.network.variables)
        numbers = np.arange(len(rows))
        parts = [
            self._forward(values, rows.batch(numbers[start : start + _FEATURE_BATCH]))[0].numpy()
            for start in range(0, len(rows), _FEATURE_BATCH)
        ]
        return np.concatenate(parts)

    def _features_of(self, rows: Rows, episode: Episode) -> tuple[np.ndarray, np.ndarray]:
        """Returns the features of the support and the query set with the statistics of batches."""
        values = values_of(self.network.variables)
        support, moments = self._forward(values, rows.batch(episode.support_rows))
        query, _ = self._forward(values, rows.batch(episode.query_rows), moments)
        return support.numpy(), query.numpy()

    def _logits(self, rows: Rows, episode: Episode, fixed: np.ndarray | None) -> np.ndarray:
        """Returns the logits (queries, ways) of an episode after adaptation."""
        classes = episode.support_classes.astype("int32")
        logits = self._classifier(rows.batch(episode.support_rows), classes, episode.ways)
        return np.asarray(logits(rows.batch(episode.query_rows)))


def _spec_of(tensor: Any) -> Any:
    import tensorflow as tf

    return tf.TensorSpec(tensor.shape, tensor.dtype)


def _sums(first: list, second: list) -> list:
    return [a + b for a, b in zip(first, second, strict=True)]
