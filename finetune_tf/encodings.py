"""A Keras model that takes what tokenizers give: encodings, and labels among the inputs."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from finetune_tf.errors import DataError

# What Hugging Face calls targets that stand among the inputs.
LABELS = ("labels", "label")
ENDS = ("start_positions", "end_positions")  # of an answer


class EncodingModel(keras.Model):
    """Unwraps what Hugging Face's tokenizers and collators give, where Keras takes it.

    - `fit`, `evaluate` and `predict` take encodings (`BatchEncoding`) and lists as well as dicts
      and arrays;
    - targets may stand among the inputs, as "labels" (or "label") or as "start_positions" and
      "end_positions", in arrays as well as in batches of a dataset.
    """

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Keras's fit."""
        if (given := kwargs.get("validation_data")) is not None:
            if isinstance(given, tuple):
                x_y = self._given(*given)
                given = (*x_y, *map(unwrapped, given[2:]))[: len(given)]
            else:
                given = self._given(given)[0]
            kwargs["validation_data"] = given
        x, y = self._given(x, y, kwargs.get("sample_weight"))
        if "sample_weight" in kwargs:
            kwargs["sample_weight"] = unwrapped(kwargs["sample_weight"])
        return super().fit(x, y, *args, **kwargs)

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Keras's evaluate."""
        if not kwargs.get("_use_cached_eval_dataset"):  # else `fit` has looked at them
            x, y = self._given(x, y, kwargs.get("sample_weight"))
        if "sample_weight" in kwargs:
            kwargs["sample_weight"] = unwrapped(kwargs["sample_weight"])
        return super().evaluate(x, y, *args, **kwargs)

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Keras's predict."""
        return super().predict(self._given(x)[0], *args, **kwargs)

    def train_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, **kwargs: Any
    ) -> Any:
        """Keras's train_on_batch."""
        x, y = self._given(x, y, sample_weight)
        return super().train_on_batch(x, y, sample_weight, **kwargs)

    def test_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, **kwargs: Any) -> Any:
        """Keras's test_on_batch."""
        x, y = self._given(x, y, sample_weight)
        return super().test_on_batch(x, y, sample_weight, **kwargs)

    def predict_on_batch(self, x: Any) -> Any:
        """Keras's predict_on_batch."""
        return super().predict_on_batch(self._given(x)[0])

    def _given(self, x: Any, y: Any = None, weights: Any = None) -> tuple[Any, Any]:
        """Inputs and targets as Keras takes them.

        Keras leaves out the weights of arrays that have no targets beside the inputs, so targets
        among the inputs are put beside them.
        """
        x, y = unwrapped(x), unwrapped(y)
        if y is None and weights is not None and hasattr(x, "keys"):
            y = targets_in(x)
        return self._checked(x, y, unwrapped(weights))

    def _checked(self, x: Any, y: Any, weights: Any) -> tuple[Any, Any]:
        """For a subclass that knows what the numbers may be."""
        return x, y

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Keras's hook.

        Raises:
            DataError: If there are no targets.
        """
        targets = targets_of(x, y)
        if targets is None and not _copes_without(self.loss):
            found = f"the inputs {', '.join(x)}" if hasattr(x, "keys") else "token ids alone"
            raise DataError(
                "There are no labels to learn from: give them as fit(inputs, labels), or as "
                f"inputs['labels']; found {found}."
            )
        return super().compute_loss(x, targets, y_pred, sample_weight, training)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Keras's hook."""
        return super().compute_metrics(x, targets_of(x, y), y_pred, sample_weight)


def targets_of(x: Any, y: Any) -> Any:
    """Targets beside the inputs, or else among them; bare ids are never targets."""
    if y is None:
        return targets_in(x) if hasattr(x, "keys") else None
    return targets_in(y)


def with_targets(x: Any, y: Any, targets: Any) -> tuple[Any, Any]:
    """Inputs and targets with others in the place of those there, which stay where they stood.

    Args:
        x: Inputs.
        y: Targets, or None where they stand among the inputs.
        targets: (batch, …); of first and last tokens (batch, 2).
    """
    holder = x if y is None else y
    if not hasattr(holder, "keys"):
        return x, targets
    if all(name in holder for name in ENDS):
        new = {name: targets[:, place] for place, name in enumerate(ENDS)}
    else:
        new = {next(name for name in LABELS if name in holder): targets}
    holder = {**holder, **new}
    return (holder, y) if y is None else (x, holder)


def _copes_without(loss: Any) -> bool:
    """Whether a loss looks at missing targets itself, and knows better what is wrong with them."""
    base = keras.losses.Loss
    return loss is None or (isinstance(loss, base) and type(loss).__call__ is not base.__call__)


def unwrapped(data: Any) -> Any:
    """Encodings as dicts, lists as arrays; everything else as it is."""
    if hasattr(data, "keys"):
        return {name: unwrapped(data[name]) for name in data if data[name] is not None}
    if isinstance(data, list) and data and not hasattr(data[0], "shape"):
        try:
            return np.asarray(data)
        except ValueError:
            raise DataError(
                "Rows of a batch have one length, found lists of several. Pad them: "
                "tokenizer(texts, padding=True, return_tensors='np'), or let "
                "ft.data.from_arrays(texts, labels).batches(model) do it."
            ) from None
    return data


def targets_in(given: Any) -> Any:
    """Targets in any of the ways that Hugging Face gives them.

    Args:
        given: Targets themselves, two arrays of first and last tokens, or a dict with targets
            under Hugging Face's names.

    Returns:
        An array; of first and last tokens (batch, 2). None if a dict has none.
    """
    if isinstance(given, Mapping) or hasattr(given, "keys"):
        if all(name in given for name in ENDS):
            given = [given[name] for name in ENDS]
        else:
            return next((given[name] for name in LABELS if name in given), None)
    two = isinstance(given, list | tuple) and len(given) == 2
    if two and not isinstance(given[0], int | float):  # two numbers are the labels of two texts
        return ops.stack([ops.reshape(end, (-1,)) for end in given], axis=1)
    return given
