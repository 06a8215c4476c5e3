"""A classifier that a learner has adapted to a support set."""

from collections.abc import Callable
from typing import Any

import numpy as np

from finetune_tf.base.labels import Labels
from finetune_tf.base.spelling import names_checked
from finetune_tf.data import Examples
from finetune_tf.errors import DataError, ModelError
from finetune_tf.meta.classes import classes_of, name_of
from finetune_tf.meta.network import Network, Rows
from finetune_tf.model.finetune_model import FineTuneModel
from finetune_tf.tasks.classification import Prediction

_BATCH = 64


class Adapted:
    """A classifier of the classes of a support set; `adapt` of a learner makes it.

    It has its own values in the place of those that the learner adapted, so that neither another
    adaptation nor a further fit changes it.

    Attributes:
        labels: The names of the classes.

    Example:
        >>> learner = ft.meta.Prototypes(model)
        >>> classifier = learner.adapt(train)
        >>> classifier.predict("a good film").label in train.labels
        True
    """

    def __init__(
        self,
        network: Network,
        labels: tuple[str, ...],
        logits: Callable[[dict[str, Any]], Any],
        reads_batch: bool = False,
    ) -> None:
        self.labels = Labels(labels)
        self._network, self._logits, self._reads_batch = network, logits, reads_batch

    @names_checked
    def probabilities(self, rows: Any) -> np.ndarray:
        """Returns the probability of each class, (rows, classes).

        Args:
            rows: `Examples`, or what `ft.predict` accepts for the model: texts or images; for
                other Keras models the arrays that they take.

        Raises:
            DataError: If the rows do not fit the model.
            ModelError: If the logits are not finite numbers.
        """
        found = self._rows_of(rows)
        if self._reads_batch and len(found) < 2:
            raise DataError(
                'With statistics="batch", the rows of a call are normalized together, so one row '
                'alone cannot be predicted. Pass several rows, or use statistics="support".'
            )
        size = len(found) if self._reads_batch else _BATCH
        numbers = np.arange(len(found))
        logits = [
            np.asarray(self._logits(found.batch(numbers[start : start + size])), "float64")
            for start in range(0, len(found), size)
        ]
        raised = np.concatenate(logits)
        require_finite(raised, "The logits are")
        raised = np.exp(raised - raised.max(axis=1, keepdims=True))
        return raised / raised.sum(axis=1, keepdims=True)

    @names_checked
    def predict(self, rows: Any) -> Any:
        """Returns a `Prediction` (label, score, probabilities) for each row.

        Args:
            rows: As for `probabilities`. A single text gets a single prediction.
        """
        if isinstance(rows, str):
            return self.predict([rows])[0]
        predictions = []
        for line in self.probabilities(rows).tolist():
            by_name = dict(zip(self.labels, line, strict=True))
            best = max(by_name, key=by_name.get)
            predictions.append(Prediction(best, by_name[best], by_name))
        return predictions

    @names_checked
    def accuracy(self, examples: Any) -> float:
        """Returns the share of rows that are predicted as their class.

        Args:
            examples: `Examples` with labels, or a pair (inputs, classes) of arrays.

        Raises:
            DataError: If there is a class that the classifier does not know.
        """
        classes = classes_of(examples)
        if unknown := sorted(set(classes.names) - set(self.labels)):
            raise DataError(
                f"The classifier was adapted to {self.labels.listed()}, but {classes.data} has "
                f"{', '.join(unknown)} as well. Leave these rows out, or adapt to them."
            )
        rows = examples if isinstance(examples, Examples) else examples[0]
        predicted = self.probabilities(rows).argmax(axis=1)
        places = np.array([self.labels.index(name) for name in classes.names])
        return float(np.mean(predicted == places[classes.numbers]))

    def _rows_of(self, rows: Any) -> Rows:
        if isinstance(self._network.whole, FineTuneModel):
            if not isinstance(rows, Examples):
                rows = Examples(self._network.whole.task.asked(rows), name="rows")
            return self._network.rows_of(rows)
        if isinstance(rows, tuple):
            name_of(rows)
            rows = rows[0]
        first = next(iter(rows.values())) if isinstance(rows, dict) else rows
        first = first[0] if isinstance(first, list) else first
        return self._network.rows_of((rows, np.zeros(len(first), int)))


def require_finite(values: np.ndarray, what: str) -> None:
    """Checks what a learner computes: the highest of NaNs would be the first class.

    Args:
        values: The numbers.
        what: The beginning of the message.

    Raises:
        ModelError: If one is NaN or infinite.
    """
    if not np.isfinite(values).all():
        raise ModelError(
            f"{what} not finite numbers: the adaptation has diverged, or the weights of the model "
            "are broken. Choose a lower inner_rate= or fewer steps, or load the model again and "
            "fit the learner with a lower rate."
        )
