"""What happens during a fit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from finetune_tf.encodings import targets_in, unwrapped
from finetune_tf.messages import say
from finetune_tf.spelling import names_checked
from finetune_tf.tasks import IGNORED
from finetune_tf.training.schedules import schedule_of


class BindSchedule(keras.callbacks.Callback):
    """Tells the preset's schedule how long the fit is.

    Models of finetune_tf add it to every fit by themselves; other Keras models need it in
    `callbacks` when they are compiled with a preset. It belongs last, after callbacks that
    resume an earlier fit.

    Args:
        initial_epoch: As given to `fit`; a resumed fit goes on where its schedule was.
    """

    def __init__(self, initial_epoch: int = 0) -> None:
        super().__init__()
        self._initial_epoch = initial_epoch

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Binds the schedule before the first step is traced."""
        schedule = schedule_of(self.model.optimizer)
        if schedule is None:
            return
        steps, epochs = self.params.get("steps"), self.params["epochs"]
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        whole = optimizer.gradient_accumulation_steps
        if steps and whole:
            steps = -(-steps // whole) * whole  # with what `ApplyLeftover` makes of the last ones
        done = (self.model._initial_epoch or self._initial_epoch) * (steps or 0)
        # Not `iterations`: with gradient accumulation, schedules are asked by micro-step.
        first_step = int(optimizer._iterations.numpy()) - done
        schedule.bind(self.model, steps * epochs if steps else None, first_step)
        if keras.backend.backend() != "tensorflow":
            # There its numbers are constants of a traced step, so an earlier trace is stale.
            self.model.make_train_function(force=True)


class ApplyLeftover(keras.callbacks.Callback):
    """Takes the step that is due at the end of an epoch when gradients are accumulated.

    Keras leaves the gradients of batches that do not fill a step to the next epoch, and drops them
    at the end of the last one. Models of finetune_tf add this callback to every fit by themselves.
    """

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Before the validation at the end of an epoch."""
        self._apply()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """After an epoch without validation."""
        self._apply()

    def _apply(self) -> None:
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()  # JAX keeps the numbers of a running fit elsewhere
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        whole = optimizer.gradient_accumulation_steps
        waiting = int(optimizer._iterations.numpy()) % whole if whole else 0
        if not waiting:
            return
        variables = optimizer._trainable_variables
        for gradient in optimizer._accumulated_gradients:
            gradient.assign(gradient * (whole / waiting))  # a mean over the batches there are
        # As if the step were full and its last batch had no gradient.
        optimizer._iterations.assign_add(whole - waiting - 1)
        optimizer.apply([keras.ops.zeros(v.shape, v.dtype) for v in variables], variables)


class Measure(keras.callbacks.Callback):
    """Adds what a function makes of all logits and targets to the log of each epoch.

    For measures that are no mean over batches, such as F1.

    Args:
        measure: Called with logits and targets, (rows, …) both; gives numbers by name. Of tokens,
            batches are padded to one length, targets with -100.
        batches: What to predict: pairs of inputs and targets, or inputs with labels among them;
            or one such pair of all rows.
        batch_size: Of such a pair.
    """

    @names_checked
    def __init__(
        self,
        measure: Callable[[np.ndarray, np.ndarray], dict],
        batches: Any,
        batch_size: int = 32,
    ) -> None:
        super().__init__()
        if isinstance(batches, tuple):
            import tensorflow as tf

            arrays = tuple(map(unwrapped, batches))
            batches = tf.data.Dataset.from_tensor_slices(arrays).batch(batch_size)
        self._measure, self._batches = measure, batches

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Predicts and measures; callbacks that come later see the result."""
        logits, targets = [], []
        for batch in self._batches:
            inputs, given = batch if isinstance(batch, tuple) else (batch, batch)
            logits.append(np.asarray(self.model.call(inputs, training=False)))
            targets.append(np.asarray(targets_in(given)))
        found = self._measure(_on_end(logits), _on_end(targets))
        (logs if logs is not None else {}).update(found)
        say(", ".join(f"{name}: {value:.4f}" for name, value in found.items()))


def _on_end(batches: list[np.ndarray]) -> np.ndarray:
    """Batches on end, those of tokens padded to one length."""
    if batches[0].ndim < 2:
        return np.concatenate(batches)
    longest = max(batch.shape[1] for batch in batches)
    rest = [(0, 0)] * (batches[0].ndim - 2)
    widths = [[(0, 0), (0, longest - batch.shape[1]), *rest] for batch in batches]
    padded = map(lambda b, w: np.pad(b, w, constant_values=IGNORED), batches, widths)
    return np.concatenate(list(padded))


class SavePretrained(keras.callbacks.Callback):
    """Saves the model as a Hugging Face folder while it trains.

    Args:
        folder: As for `save_pretrained`.
        each_epoch: Whether to save after each epoch, and not only after the last one.
        tokenizer: Saved with the model in the place of its own.
        repo_id: "owner/name" on the Hub to upload to after the last epoch; None for no upload.
        token: As for `push_to_hub`.
    """

    @names_checked
    def __init__(
        self,
        folder: str | Path,
        each_epoch: bool = True,
        tokenizer: Any = None,
        repo_id: str | None = None,
        token: Any = None,
    ) -> None:
        super().__init__()
        self._folder, self._each_epoch = Path(folder), each_epoch
        self._tokenizer, self._repo_id, self._token = tokenizer, repo_id, token

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Saves."""
        if self._each_epoch:
            self._save()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Saves unless an epoch did, and uploads."""
        if not self._each_epoch:
            self._save()
        if self._repo_id:
            self.model.push_to_hub(self._repo_id, token=self._token)

    def _save(self) -> None:
        if self._tokenizer is not None:
            self.model.tokenizer = self._tokenizer
        self.model.save_pretrained(self._folder)
