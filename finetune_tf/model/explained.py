"""A Keras model with clear error messages for invalid data in all methods."""

import contextlib
import inspect
import sys
from collections.abc import Iterator
from typing import Any

import keras

from finetune_tf.base.arguments import by_name, check_call
from finetune_tf.base.keras_internals import state_kept, step_counter, wrapped_optimizers
from finetune_tf.data.encodings import unwrapped
from finetune_tf.distribution.current import check_place, running
from finetune_tf.errors import ModelError
from finetune_tf.model.checked import CheckedModel
from finetune_tf.tasks.decisions import forget_after_training, forgetting_after_loading
from finetune_tf.training import fit_errors
from finetune_tf.training.freezing import renew_training
from finetune_tf.training.progress import is_live

# The parameters of Keras's `evaluate`; the first ones are self, x and y.
_EVALUATE = tuple(inspect.signature(keras.Model.evaluate).parameters)
_PREDICT = tuple(inspect.signature(keras.Model.predict).parameters)  # self, x, …


class ExplainedModel(CheckedModel):
    """Adds to `evaluate`, `predict` and the methods on one batch the checks that `fit` has.

    - `Examples` and texts are rejected with a message that shows how to encode them;
    - labels outside of the range of the outputs, and a lack of memory, raise clear errors;
    - a loss that is NaN or infinite is an error;
    - a model that is not compiled is compiled with its preset;
    - on JAX, an error leaves the model with its weights;
    - changes of `trainable` take effect in the next call.
    """

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Computes loss and metrics, as Keras's `evaluate`.

        A model that is not compiled is compiled with its preset first.

        Args:
            x: As in Keras; usually the result of `Examples.batches`.
            y: As in Keras.
            *args: As in Keras.
            **kwargs: As in Keras; `class_weight` as in `fit`. Unless `verbose` is given,
                a bar is drawn in terminals and notebooks only; elsewhere, one line is written.

        Returns:
            Loss and metrics, as in Keras.

        Raises:
            DataTypeError: If `x` contains `Examples` or texts.
            DataError: If there are no labels, a label is outside of the range of the outputs, or
                batches were made for a model with other labels.
            ModelError: If memory runs out, or the loss is NaN or infinite.

        Example:
            >>> results = model.evaluate(test.batches(model), verbose=0, return_dict=True)
            >>> sorted(results)
            ['accuracy', 'loss']
        """
        if "_use_cached_eval_dataset" in kwargs:  # called by Keras's `fit`, which checks the data
            with state_kept(self):
                return super().evaluate(x, y, *args, **kwargs)
        kwargs = by_name("evaluate", _EVALUATE[3:], args, kwargs)
        check_call(keras.Model.evaluate, x, y, **kwargs)
        self._check_and_compile("evaluate", x)
        with self._running():
            logs = super().evaluate(x, y, **_without_bar_in_files(kwargs))
        fit_errors.check_loss(self, "evaluate", logs)
        return logs

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Computes the logits of batches, as Keras's `predict`; see `ft.predict` for texts.

        Args:
            x: As in Keras; usually the result of `Examples.batches`.
            *args: As in Keras.
            **kwargs: As in Keras; `verbose` as for `evaluate`.

        Returns:
            The logits of all rows, a NumPy array in float32; of packed batches those of each text,
            in the order of the texts in the data.

        Raises:
            DataTypeError: If `x` contains `Examples` or texts.
            ModelError: If memory runs out, or the outputs of packed batches are not one vector for
                each text, or not all of their batches are predicted.

        Example:
            >>> model.predict({"input_ids": np.array([[2, 5, 3], [2, 6, 3]])}, verbose=0).shape
            (2, 2)
        """
        check_call(keras.Model.predict, x, *args, **kwargs)
        fit_errors.check_data("predict", x)
        kwargs = by_name("predict", _PREDICT[2:], args, kwargs)
        places = _places_of_texts(self, x, kwargs.get("steps"))
        with self._running():
            outputs = super().predict(x, **_without_bar_in_files(kwargs))
        return outputs if places is None else outputs[places]

    def train_on_batch(self, x: Any, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Runs one training step; arguments, result and errors are as for `evaluate`."""
        with self._forgetting():
            return self._on_batch("train_on_batch", super().train_on_batch, x, y, *args, **kwargs)

    def test_on_batch(self, x: Any, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Evaluates one batch; arguments, result and errors are as for `evaluate`."""
        return self._on_batch("test_on_batch", super().test_on_batch, x, y, *args, **kwargs)

    def predict_on_batch(self, x: Any) -> Any:
        """Returns the logits of one batch; argument and errors are as for `predict`."""
        fit_errors.check_data("predict_on_batch", x)
        with self._running():
            return super().predict_on_batch(unwrapped(x))

    def load_weights(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Loads weights that `save_weights` wrote; arguments and errors are as in Keras.

        Calibration and thresholds were chosen for other weights and are removed, with a message,
        unless the file has the weights that the model has.
        """
        with forgetting_after_loading(self):
            super().load_weights(filepath, *args, **kwargs)

    def _on_batch(self, call: str, run: Any, x: Any, y: Any, *args: Any, **kwargs: Any) -> Any:
        self._check_and_compile(call, x)
        with self._running():
            logs = run(unwrapped(x), unwrapped(y), *args, **kwargs)
        fit_errors.check_loss(self, call, logs)
        return logs

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        """Explains errors, and gives Keras batches as a distribution wants them."""
        with fit_errors.explaining(), running(self), state_kept(self):
            yield

    @contextlib.contextmanager
    def _forgetting(self) -> Iterator[None]:
        """Forgets calibration and thresholds if a step was taken, also if an error ends a fit."""
        before = self._steps_taken()
        try:
            yield
        finally:
            # A clone of the graph has no `info`.
            if "info" in self.__dict__ and self._steps_taken() != before:
                forget_after_training(self.info)

    def _steps_taken(self) -> int:
        optimizer = getattr(self, "optimizer", None)
        optimizers = [] if optimizer is None else wrapped_optimizers(optimizer) or [optimizer]
        return sum(int(step_counter(each).numpy()) for each in optimizers)

    def _check_and_compile(self, call: str, x: Any) -> None:
        fit_errors.check_data(call, x)
        check_place(self)
        if getattr(self, "optimizer", None) is None and not self.compiled:
            self.compile()
        fit_errors.check_labels(self, x)
        if call == "train_on_batch":
            fit_errors.check_precision(self)
            renew_training(self)


def _places_of_texts(model: keras.Model, x: Any, steps: int | None) -> Any:
    """Returns where the outputs of the texts of packed batches are, (texts,); else None."""
    places_of_texts = getattr(x, "places_of_texts", None)
    if places_of_texts is None:
        return None
    if model.task.token_axis is not None:
        raise ModelError(
            "predict got packed batches, where the outputs of several texts share a row, as their "
            "tokens do. Use ft.predict(model, …), or batches without packing."
        )
    if steps is not None or x.cursor.batch:
        raise ModelError(
            "predict puts the outputs of packed batches into the order of their texts, for which "
            "it needs all batches of an epoch. Leave steps out and set batches.cursor.batch = 0, "
            "or use batches without packing."
        )
    return places_of_texts()


def _without_bar_in_files(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Returns the arguments with one line instead of a bar where none can be redrawn."""
    if kwargs.get("verbose", "auto") == "auto" and not is_live(sys.stdout):
        return kwargs | {"verbose": 2}
    return kwargs
