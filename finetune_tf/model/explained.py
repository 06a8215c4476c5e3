"""A Keras model whose errors say what is wrong with what it was given, in fit and elsewhere."""

import inspect
from typing import Any

import keras

from finetune_tf.base.arguments import by_name, check_call
from finetune_tf.data.encodings import unwrapped
from finetune_tf.model.checked import CheckedModel
from finetune_tf.training import fit_errors
from finetune_tf.training.freezing import renew_training

# Keras's parameters, the first ones being self, x and y.
_EVALUATE = tuple(inspect.signature(keras.Model.evaluate).parameters)


class ExplainedModel(CheckedModel):
    """Explains in `evaluate`, `predict` and the calls on one batch what `fit` explains, too.

    - `Examples` and texts are refused with the line that encodes them;
    - labels outside of the outputs, and memory that runs out, are told as such;
    - a loss that is NaN or infinite is an error;
    - a model that nobody compiled is compiled with its preset;
    - `trainable` counts from the next call on.
    """

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Keras's evaluate; compiles with the preset first, where nobody has compiled.

        Args:
            x: As in Keras; usually what `Examples.batches` gives.
            y: As in Keras.
            *args: As in Keras.
            **kwargs: As in Keras.

        Returns:
            Loss and metrics, as in Keras.

        Raises:
            DataTypeError: If `x` are `Examples` or texts.
            DataError: If there are no labels, or one is beyond the outputs.
            ModelError: If memory runs out, or the loss is NaN or infinite.
        """
        if "_use_cached_eval_dataset" in kwargs:  # Keras's fit asks, which looks by itself
            return super().evaluate(x, y, *args, **kwargs)
        kwargs = by_name("evaluate", _EVALUATE[3:], args, kwargs)
        check_call(keras.Model.evaluate, x, y, **kwargs)
        self._prepare("evaluate", x)
        with fit_errors.explaining():
            logs = super().evaluate(x, y, **kwargs)
        fit_errors.check_loss(self, "evaluate", logs)
        return logs

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Keras's predict.

        Args:
            x: As in Keras; usually what `Examples.batches` gives. For texts there is `ft.predict`.
            *args: As in Keras.
            **kwargs: As in Keras.

        Returns:
            Logits of all rows.

        Raises:
            DataTypeError: If `x` are `Examples` or texts.
            ModelError: If memory runs out.
        """
        check_call(keras.Model.predict, x, *args, **kwargs)
        fit_errors.check_data("predict", x)
        with fit_errors.explaining():
            return super().predict(x, *args, **kwargs)

    def train_on_batch(self, x: Any, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Keras's train_on_batch: one step; arguments, result and errors as for `evaluate`."""
        return self._on_batch("train_on_batch", super().train_on_batch, x, y, *args, **kwargs)

    def test_on_batch(self, x: Any, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Keras's test_on_batch; arguments, result and errors as for `evaluate`."""
        return self._on_batch("test_on_batch", super().test_on_batch, x, y, *args, **kwargs)

    def predict_on_batch(self, x: Any) -> Any:
        """Keras's predict_on_batch; argument, result and errors as for `predict`."""
        fit_errors.check_data("predict_on_batch", x)
        with fit_errors.explaining():
            return super().predict_on_batch(unwrapped(x))

    def _on_batch(self, call: str, run: Any, x: Any, y: Any, *args: Any, **kwargs: Any) -> Any:
        self._prepare(call, x)
        with fit_errors.explaining():
            logs = run(unwrapped(x), unwrapped(y), *args, **kwargs)
        fit_errors.check_loss(self, call, logs)
        return logs

    def _prepare(self, call: str, x: Any) -> None:
        fit_errors.check_data(call, x)
        if getattr(self, "optimizer", None) is None and not self.compiled:
            self.compile()
        if call == "train_on_batch":
            renew_training(self)
