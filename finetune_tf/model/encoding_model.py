"""A Keras model that takes what tokenizers give: encodings, and labels among the inputs."""

from typing import Any

import keras

from finetune_tf.data.encodings import targets_in, targets_of, unwrapped
from finetune_tf.errors import DataError


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


def _copes_without(loss: Any) -> bool:
    """Whether a loss looks at missing targets itself, and knows better what is wrong with them."""
    base = keras.losses.Loss
    return loss is None or (isinstance(loss, base) and type(loss).__call__ is not base.__call__)
