"""A Keras model that accepts encodings of tokenizers and labels among the inputs."""

from typing import Any

import keras

from finetune_tf.data.encodings import targets_in, targets_of, unwrapped, with_next_tokens
from finetune_tf.errors import DataError


class EncodingModel(keras.Model):
    """Accepts the output of Hugging Face tokenizers and collators in all Keras methods.

    - `fit`, `evaluate` and `predict` accept encodings (`BatchEncoding`) and lists as well as dicts
      and arrays;
    - targets may be among the inputs, as "labels" (or "label") or as "start_positions" and
      "end_positions", in arrays as well as in batches of a dataset;
    - the "labels" of a causal language model are its tokens, as in transformers, and are shifted.
    """

    @property
    def _labels_are_tokens(self) -> bool:
        """Whether labels among the inputs are the tokens that a causal language model predicts."""
        return False

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Overrides Keras's `fit`."""
        if (validation := kwargs.get("validation_data")) is not None:
            if isinstance(validation, tuple):
                x_y = self._unwrap(*validation)
                validation = (*x_y, *map(unwrapped, validation[2:]))[: len(validation)]
            else:
                inputs, targets = self._unwrap(validation)
                validation = inputs if targets is None else (inputs, targets)
            kwargs["validation_data"] = validation
        x, y = self._unwrap(x, y, kwargs.get("sample_weight"))
        if "sample_weight" in kwargs:
            kwargs["sample_weight"] = unwrapped(kwargs["sample_weight"])
        return super().fit(x, y, *args, **kwargs)

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Overrides Keras's `evaluate`."""
        if not kwargs.get("_use_cached_eval_dataset"):  # otherwise `fit` has unwrapped the data
            x, y = self._unwrap(x, y, kwargs.get("sample_weight"))
        if "sample_weight" in kwargs:
            kwargs["sample_weight"] = unwrapped(kwargs["sample_weight"])
        return super().evaluate(x, y, *args, **kwargs)

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Overrides Keras's `predict`."""
        return super().predict(self._unwrap(x)[0], *args, **kwargs)

    def train_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, **kwargs: Any
    ) -> Any:
        """Overrides Keras's `train_on_batch`."""
        x, y = self._unwrap(x, y, sample_weight)
        return super().train_on_batch(*self._for_devices(x, y, sample_weight), **kwargs)

    def test_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, **kwargs: Any) -> Any:
        """Overrides Keras's `test_on_batch`."""
        x, y = self._unwrap(x, y, sample_weight)
        return super().test_on_batch(*self._for_devices(x, y, sample_weight), **kwargs)

    def predict_on_batch(self, x: Any) -> Any:
        """Overrides Keras's `predict_on_batch`."""
        return super().predict_on_batch(*self._for_devices(self._unwrap(x)[0]))

    def _unwrap(self, x: Any, y: Any = None, weights: Any = None) -> tuple[Any, Any]:
        """Converts inputs and targets to the form that Keras expects.

        Keras ignores sample weights of arrays without a separate argument for the targets, so
        targets among the inputs are moved there.
        """
        x, y = unwrapped(x), unwrapped(y)
        if y is None and hasattr(x, "keys"):
            if self._labels_are_tokens:
                x, y = with_next_tokens(x)
            elif weights is not None:
                y = targets_in(x)
        return self._validated(x, y, unwrapped(weights))

    def _for_devices(self, *parts: Any) -> tuple[Any, ...]:
        """Divides a single batch among several devices; a hook for subclasses."""
        return parts

    def _validated(self, x: Any, y: Any, weights: Any) -> tuple[Any, Any]:
        """Returns validated inputs and targets; a hook for subclasses that check values."""
        return x, y

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Overrides the Keras hook.

        Raises:
            DataError: If there are no targets.
        """
        targets = targets_of(x, y)
        if targets is None and not _handles_missing_targets(self.loss):
            found = f"the inputs {', '.join(x)}" if hasattr(x, "keys") else "only token ids"
            raise DataError(
                "There are no labels to train on: pass them as fit(inputs, labels) or as "
                f"inputs['labels']; found {found}."
            )
        return super().compute_loss(x, targets, y_pred, sample_weight, training)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Overrides the Keras hook."""
        return super().compute_metrics(x, targets_of(x, y), y_pred, sample_weight)


def _handles_missing_targets(loss: Any) -> bool:
    """Returns whether a loss overrides `__call__` and reports missing targets itself."""
    base = keras.losses.Loss
    return loss is None or (isinstance(loss, base) and type(loss).__call__ is not base.__call__)
