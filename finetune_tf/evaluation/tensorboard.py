"""A log of a fit for TensorBoard: losses, learning rates, norms of gradients, predictions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
from keras import ops

from finetune_tf.base.arguments import check
from finetune_tf.base.extras import require_package, require_tensorflow
from finetune_tf.base.keras_internals import inner_optimizer, step_counter, sync_state
from finetune_tf.base.paths import absolute
from finetune_tf.base.spelling import names_checked
from finetune_tf.data import Examples
from finetune_tf.errors import DataTypeError
from finetune_tf.evaluation.predict import predict
from finetune_tf.graph.stages import require_task, stages
from finetune_tf.messages import one_line, say
from finetune_tf.training.gradient_norms import GradientNorms
from finetune_tf.training.gradients import observe, sums_gradients
from finetune_tf.training.parameter_table import rate_factor

_LENGTH = 200  # characters of a text or a prediction in the table of samples


class LogToTensorBoard(keras.callbacks.Callback):
    """Writes what happens in a fit as event files, which TensorBoard shows.

        tensorboard --logdir logs

    Written are:

    - `step/…`: every `every` steps, the loss and the metrics of the epoch so far, and the learning
      rate; with rates by stage, also `learning_rate/…` for each stage;
    - `gradient_norm/…`: the norms of the gradients before they are clipped, of all stages and of
      each. They are computed inside of the training step, which takes a little longer;
    - `epoch/…`: loss and metrics after each epoch, including those of the validation;
    - `predictions`: a table of the predictions for `samples` after each epoch.

    The step is the number of training steps that the optimizer has made, so later fits continue the
    curves. For `epoch/…` and `predictions` it is the epoch, which begins at 1 in each fit: later
    fits continue these with `initial_epoch=`, or need a folder of their own.

    Args:
        folder: The folder of the event files.
        every: How many steps lie between two entries.
        gradient_norms: Whether the norms of the gradients are computed.
        samples: A few examples whose predictions are written after each epoch; None for none.

    Raises:
        MissingExtraError: If the package tensorboard or TensorFlow is not installed.
        DataTypeError: If `samples` are not `Examples`.

    Example:
        >>> log = ft.callbacks.LogToTensorBoard("logs", every=1, samples=train.take(2))
        >>> history = model.fit(train.batches(model, 4), callbacks=[log], verbose=0)
        >>> from pathlib import Path
        >>> len(list(Path("logs").glob("events.*")))
        1
    """

    @names_checked
    def __init__(
        self,
        folder: str | Path,
        every: int = 10,
        gradient_norms: bool = True,
        samples: Examples | None = None,
    ) -> None:
        check(every=every)
        require_package("tensorboard", "LogToTensorBoard needs")
        require_tensorflow("LogToTensorBoard writes its files with")
        if samples is not None and not isinstance(samples, Examples):
            raise DataTypeError(
                f"samples must be Examples, such as test.take(5), found {samples!r:.80}."
            )
        super().__init__()
        self._folder, self._every, self._samples = absolute(folder), every, samples
        self._wants_norms = gradient_norms
        self._norms: GradientNorms | None = None
        self._writer: Any = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Opens the file, and makes the training step compute norms."""
        import tensorflow as tf

        self._writer = tf.summary.create_file_writer(str(self._folder))
        self._step = self._written = int(ops.convert_to_numpy(step_counter(self.model.optimizer)))
        self._norms = None
        if self._samples is not None:
            require_task(getattr(self.model, "whole", self.model))
        if not self._wants_norms:
            return
        if not sums_gradients(self.model.optimizer):
            say(
                "The norms of gradients are logged with TensorFlow, for models from ft.load and "
                "those compiled with a preset, so they are left out here."
            )
            return
        self._norms = GradientNorms(self.model)
        observe(self.model.optimizer, self._norms)
        self.model.make_train_function(force=True)  # it may have been traced without norms

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes the values of the step before; at that time nothing else waits for it."""
        if self._step - self._written >= self._every:
            self._write_step()
        self._step += self.model.steps_per_execution

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Writes the last step of an epoch, before the validation resets the metrics."""
        self._write_step()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes the values of the epoch, and the predictions."""
        import tensorflow as tf

        self._write_step()
        with self._writer.as_default(step=epoch + 1):
            for name, value in (logs or {}).items():
                tf.summary.scalar(f"epoch/{name}", float(value))
            if self._samples is not None:
                tf.summary.text("predictions", self._predictions())
        self._writer.flush()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Closes the file; later steps compute no norms."""
        self._writer.close()
        if self._norms is not None:
            observe(self.model.optimizer, None)
            self.model.train_function = self._norms = None

    def state_dict(self) -> dict[str, Any]:
        """Returns an empty state: the step is that of the optimizer."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues at the step of the optimizer, which was restored."""
        if self._writer is not None:
            counter = step_counter(self.model.optimizer)
            self._step = self._written = int(ops.convert_to_numpy(counter))

    def _write_step(self) -> None:
        import tensorflow as tf

        if self._written == self._step:
            return
        self._written = self._step
        sync_state(self.model)
        with self._writer.as_default(step=self._step):
            for name, value in self.model.get_metrics_result().items():
                tf.summary.scalar(f"step/{name}", float(value))
            for name, value in self._rates().items():
                tf.summary.scalar(name, value)
            for name, value in ({} if self._norms is None else self._norms.read()).items():
                tf.summary.scalar(f"gradient_norm/{name}", value)

    def _rates(self) -> dict[str, float]:
        """The learning rate, and those of stages where they have rates of their own."""
        optimizer = inner_optimizer(self.model.optimizer)
        rate = getattr(optimizer, "learning_rate", None)
        if rate is None:
            return {}
        rate = float(ops.convert_to_numpy(ops.multiply(rate, 1.0)))
        rates = {"step/learning_rate": rate}
        if not hasattr(optimizer, "factor_of"):
            return rates
        for stage in stages(self.model):
            factors = {rate_factor(optimizer, v) for v in stage.variables if v.trainable}
            if len(factors) == 1 and None not in factors:
                rates[f"learning_rate/{stage.name}"] = rate * factors.pop()
        return rates

    def _predictions(self) -> str:
        """A table in Markdown of the samples and their predictions."""
        model = getattr(self.model, "whole", self.model)
        columns = self._samples.columns
        shown = [name for name, rows in columns.items() if isinstance(rows[0], str | int | float)]
        lines = [
            "| " + " | ".join([*shown, "prediction"]) + " |",
            "|" + " --- |" * (len(shown) + 1),
        ]
        predictions = predict(model, self._samples)
        for i, prediction in enumerate(predictions):
            cells = [columns[name][i] for name in shown] + [_described(prediction)]
            lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
        return "\n".join(lines)


def _described(prediction: Any) -> str:
    label, score = getattr(prediction, "label", None), getattr(prediction, "score", None)
    if isinstance(label, str) and isinstance(score, float):
        return f"{label} ({score:.3f})"
    return prediction if isinstance(prediction, str) else repr(prediction)


def _cell(value: Any) -> str:
    text = one_line(str(value)).replace("|", "\\|")
    return text if len(text) <= _LENGTH else text[: _LENGTH - 2] + " …"
