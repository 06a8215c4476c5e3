"""What happens during a fit."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from finetune_tf.base.arguments import check
from finetune_tf.base.keras_internals import (
    accumulated_gradients,
    all_layers,
    first_epoch,
    inner_optimizer,
    optimized_variables,
    set_trainable_flag,
    step_counter,
    sync_state,
    trainable_flag,
)
from finetune_tf.base.spelling import names_checked
from finetune_tf.data.encodings import targets_in, unwrapped
from finetune_tf.graph.pieces import learnable_variables
from finetune_tf.messages import say
from finetune_tf.tasks import IGNORED
from finetune_tf.training import fit_errors
from finetune_tf.training.freezing import follow_flags
from finetune_tf.training.schedules import schedule_of

FEW_STEPS = 10  # of a fit, below which a line says so


class BindSchedule(keras.callbacks.Callback):
    """Tells the preset's schedule how long the fit is.

    Models of finetune_tf add it to every fit by themselves; other Keras models need it in
    `callbacks` when they are compiled with a preset. It belongs last, after callbacks that
    resume an earlier fit.

    Args:
        initial_epoch: As given to `fit`; a resumed fit goes on where its schedule was.
        others: The other callbacks of the fit. Where one of Keras's that set the rate is among
            them, the rate starts at its peak and the schedule leaves it alone.
    """

    def __init__(self, initial_epoch: int = 0, others: Sequence[Any] = ()) -> None:
        check(initial_epoch=initial_epoch)
        super().__init__()
        self._given_epoch = initial_epoch
        self._rate_setters = fit_errors.rate_setters(others)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Binds the schedule before the first step is traced; says if there are few steps."""
        steps, epochs = self.params.get("steps"), self.params["epochs"]
        optimizer = inner_optimizer(self.model.optimizer)
        whole = optimizer.gradient_accumulation_steps or 1
        if steps:
            steps = -(-steps // whole) * whole  # with what `ApplyLeftover` makes of the last ones
        epochs_done = first_epoch(self.model) or self._given_epoch
        updates = (steps or 0) // whole * (epochs - epochs_done)
        if 0 < updates < FEW_STEPS:
            say(
                f"This fit takes {updates} step{'s' if updates > 1 else ''}, which is little to "
                "learn from: use more epochs, or a smaller batch_size."
            )
        schedule = schedule_of(self.model.optimizer)
        if schedule is None:
            return
        done = epochs_done * (steps or 0)
        # Not `iterations`: with gradient accumulation, schedules are asked by micro-step.
        first_step = int(step_counter(optimizer).numpy()) - done
        if self._rate_setters:
            schedule.hold_peak(self.model, self._rate_setters[0])
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
        sync_state(self.model)
        optimizer = inner_optimizer(self.model.optimizer)
        whole = optimizer.gradient_accumulation_steps
        waiting = int(step_counter(optimizer).numpy()) % whole if whole else 0
        if not waiting:
            return
        variables = optimized_variables(optimizer)
        for gradient in accumulated_gradients(optimizer):
            gradient.assign(gradient * (whole / waiting))  # a mean over the batches there are
        # As if the step were full and its last batch had no gradient.
        step_counter(optimizer).assign_add(whole - waiting - 1)
        optimizer.apply([keras.ops.zeros(v.shape, v.dtype) for v in variables], variables)


class FollowTrainable(keras.callbacks.Callback):
    """Lets `trainable` take effect inside a running fit, from the next step on.

    Keras reads it when a fit starts, and ignores in silence what callbacks change later. Models of
    finetune_tf add this callback to every fit by themselves; in a fit of another Keras model it
    belongs after the callbacks that set `trainable`.

    Args:
        watched: The model, or another one that shares layers with it; by default the model itself.
        changed: Called when a flag has changed. By default it fits the optimizer and the training
            step to what learns now.
    """

    def __init__(
        self, watched: keras.Model | None = None, changed: Callable[[], Any] | None = None
    ) -> None:
        super().__init__()
        self._watched, self._changed = watched, changed

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Notes the flags that the training step is traced for."""
        watched = self._watched or self.model
        # Looked up once: to walk through a model costs a thousand times what a flag does.
        self._watched_layers, self._variables = (
            list(all_layers(watched)),
            learnable_variables(watched),
        )
        self._flags = self._now()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """After whatever a callback did since the last step, and before the next one."""
        now = self._now()
        if now == self._flags:
            return
        if keras.backend.backend() == "jax":
            # JAX keeps the numbers of a running fit elsewhere, in the order of the old flags.
            self._set(self._flags)
            sync_state(self.model)
            self._set(now)
        self._flags = now
        if self._changed is None:
            follow_flags(self.model)
        else:
            self._changed()

    def _now(self) -> list[bool]:
        flags = [trainable_flag(layer) for layer in self._watched_layers]
        return flags + [variable.trainable for variable in self._variables]

    def _set(self, flags: list[bool]) -> None:
        for layer, flag in zip(self._watched_layers, flags, strict=False):
            set_trainable_flag(layer, flag)
        for variable, flag in zip(self._variables, flags[len(self._watched_layers) :], strict=True):
            variable.trainable = flag


class StopAtNonFiniteLoss(keras.callbacks.Callback):
    """Ends a fit with an error when its loss is NaN or infinite, since nothing good comes after.

    Models of finetune_tf add it to every fit by themselves, unless `keras.callbacks.TerminateOnNaN`
    is there. Steps that a LossScaleOptimizer skips have a finite loss and are no errors.

    Raises:
        ModelError: From `fit`, with the step, the rate, the state of the weights, and advice.
    """

    async_safe = True  # Keras reads the loss in another thread, so that no step waits for it

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Starts anew."""
        self._epoch, self._done, self._bad = 0, 0, None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Notes where the fit is."""
        self._epoch, self._done = epoch, 0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks at the loss, a mean over the epoch so far that stays NaN once it is."""
        if self._bad is None and not np.isfinite((logs or {}).get("loss", 0.0)):
            self._bad = (logs["loss"], self._epoch + 1, self._done + 1, batch + 1)
        self._done = batch + 1

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Raises what the last step left behind."""
        if self._bad is not None:
            raise fit_errors.non_finite_loss(self.model, *self._bad)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Raises, after looking at the loss over the validation data as well."""
        self.on_train_batch_begin(0)
        loss = (logs or {}).get("val_loss", 0.0)
        if not np.isfinite(loss):
            raise fit_errors.non_finite_validation(self.model, loss, epoch + 1)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Raises if the last step ruined the weights, which no loss has seen."""
        fit_errors.check_weights(self.model)


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
        check(batch_size=batch_size)
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
        found = self._measure(_concatenated(logits), _concatenated(targets))
        (logs if logs is not None else {}).update(found)
        say(", ".join(f"{name}: {value:.4f}" for name, value in found.items()))


def _concatenated(batches: list[np.ndarray]) -> np.ndarray:
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
