"""Callbacks for `fit`: schedules, gradient accumulation, freezing, checks, metrics and saving."""

import operator
from collections.abc import Callable, Iterator, Sequence
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
from finetune_tf.errors import ArgumentError, DataError, ModelError
from finetune_tf.graph.digests import digest_of_weights
from finetune_tf.graph.pieces import learnable_variables
from finetune_tf.messages import say
from finetune_tf.tasks import IGNORED
from finetune_tf.tasks.feature import STARTS
from finetune_tf.training import fit_errors
from finetune_tf.training.freezing import follow_flags
from finetune_tf.training.rates import resolve_groups
from finetune_tf.training.schedules import schedule_of

FEW_STEPS = 10  # a fit with fewer optimizer steps prints a hint


class BindSchedule(keras.callbacks.Callback):
    """Binds the learning-rate schedule of a preset to the length of the fit.

    Models of finetune_tf add this callback to every fit automatically. Other Keras models need it
    in `callbacks` if they are compiled with a preset. It must come last, after callbacks that
    resume an earlier fit.

    Several fits may be parts of one training with one schedule, such as phases in which more and
    more of a model is trained: each gets this callback with the same number of `epochs`.

    Args:
        initial_epoch: The value passed to `fit`. A resumed fit continues its schedule.
        others: The other callbacks of the fit. If a Keras callback that sets the learning rate is
            among them, the rate starts at its peak and the schedule does not change it.
        epochs: The number of epochs of the whole training, if this fit is a part of it; by default
            that of the fit.

    Example:
        >>> network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> network.compile(**ft.presets.mean_squared_error(learning_rate=1e-3))
        >>> x, y = np.ones((8, 3)), np.ones(8)
        >>> callbacks = [ft.callbacks.BindSchedule()]
        >>> history = network.fit(x, y, batch_size=4, callbacks=callbacks, verbose=0)
    """

    def __init__(
        self, initial_epoch: int = 0, others: Sequence[Any] = (), epochs: int | None = None
    ) -> None:
        check(initial_epoch=initial_epoch, **{"BindSchedule.epochs": epochs})
        super().__init__()
        self.epochs = epochs
        self._given_epoch = initial_epoch
        self._rate_setters = fit_errors.rate_setters(others)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Binds the schedule before the first step is traced; prints a hint if steps are few."""
        resolve_groups(self.model.optimizer, self.model)
        steps, epochs = self.params.get("steps"), self.epochs or self.params["epochs"]
        if epochs < self.params["epochs"]:
            raise ArgumentError(
                f"BindSchedule has epochs={epochs}, the length of the whole training, but this fit "
                f"alone goes on to epoch {self.params['epochs']}."
            )
        optimizer = inner_optimizer(self.model.optimizer)
        whole = optimizer.gradient_accumulation_steps or 1
        if steps:
            # `ApplyLeftover` completes the last, partial accumulation of an epoch.
            steps = -(-steps // whole) * whole
        epochs_done = first_epoch(self.model) or self._given_epoch
        updates = (steps or 0) // whole * (epochs - epochs_done)
        if 0 < updates < FEW_STEPS:
            say(
                f"This fit takes only {updates} optimizer step{'s' if updates > 1 else ''}, which "
                "is rarely enough. Use more epochs or a smaller batch_size."
            )
        schedule = schedule_of(self.model.optimizer)
        if schedule is None:
            return
        done = epochs_done * (steps or 0)
        # Not `iterations`: with gradient accumulation, Keras calls schedules with the micro-step.
        first_step = int(step_counter(optimizer).numpy()) - done
        if self._rate_setters:
            schedule.hold_peak(self.model, self._rate_setters[0])
        schedule.bind(self.model, steps * epochs if steps else None, first_step)


class ApplyLeftover(keras.callbacks.Callback):
    """Applies partially accumulated gradients at the end of each epoch.

    With gradient accumulation, Keras carries the gradients of an incomplete step over to the next
    epoch and drops them at the end of the last one. Models of finetune_tf add this callback to
    such fits automatically. In a fit of another Keras model it has to come first, so that callbacks
    which save or measure at the end of an epoch see the last step.

    Example:
        >>> network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> network.compile(keras.optimizers.SGD(0.1, gradient_accumulation_steps=2), "mse")
        >>> x, y = np.ones((12, 3)), np.ones(12)  # three batches: a step and a half
        >>> callbacks = [ft.callbacks.ApplyLeftover()]
        >>> history = network.fit(x, y, batch_size=4, callbacks=callbacks, verbose=0)
    """

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Applies the gradients before the validation at the end of an epoch."""
        self._apply()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Applies the gradients after an epoch without validation."""
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
            gradient.assign(gradient * (whole / waiting))  # the mean over the available batches
        # Complete the step with a last micro-step whose gradients are zero.
        step_counter(optimizer).assign_add(whole - waiting - 1)
        zeros = [keras.ops.zeros(v.shape, v.dtype) for v in variables]
        # Of the class, since an observer of the optimizer expects the gradients of a batch.
        type(optimizer).apply(optimizer, zeros, variables)


class FollowTrainable(keras.callbacks.Callback):
    """Makes changes of `trainable` take effect during a fit, from the next step on.

    Keras reads `trainable` when a fit starts and silently ignores later changes, such as those
    of gradual unfreezing (Howard & Ruder 2018). Models of finetune_tf add this callback to every
    fit automatically; in a fit of another Keras model, it must come after the callbacks that set
    `trainable`.

    Args:
        watched: The model whose flags are watched, which may be another one that shares layers
            with the fitted model; by default the fitted model.
        changed: Called when a flag has changed. By default, the optimizer and the training step
            are rebuilt for the variables that are trainable now.

    Example:
        >>> network = keras.Sequential(
        ...     [keras.Input((3,)), keras.layers.Dense(2, name="lower"), keras.layers.Dense(1)]
        ... )
        >>> ft.train_only(network, ft.select.head())
        >>> network.compile(keras.optimizers.SGD(0.01, momentum=0.9), "mse")
        >>> class Unfreeze(keras.callbacks.Callback):
        ...     def on_epoch_begin(self, epoch, logs=None):
        ...         self.model.get_layer("lower").trainable = epoch >= 1
        >>> callbacks = [Unfreeze(), ft.callbacks.FollowTrainable()]
        >>> x, y = np.ones((4, 3)), np.ones(4)
        >>> history = network.fit(x, y, epochs=2, callbacks=callbacks, verbose=0)
        >>> sum("momentum" in variable.path for variable in network.optimizer.variables)
        4
    """

    def __init__(
        self, watched: keras.Model | None = None, changed: Callable[[], Any] | None = None
    ) -> None:
        super().__init__()
        self._watched, self._changed = watched, changed

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Stores the flags that the training step is traced for."""
        watched = self._watched or self.model
        # Collected once: traversing a model is a thousand times slower than reading a flag.
        self._watched_layers, self._variables = (
            list(all_layers(watched)),
            learnable_variables(watched),
        )
        self._flags = self._now()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Compares the flags with those of the previous step, before the next one runs."""
        now = self._now()
        if now == self._flags:
            return
        if keras.backend.backend() == "jax":
            # On JAX, the state of a running fit is stored in the order of the previous flags.
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
    """Stops a fit with an error when its loss is NaN or infinite.

    Models of finetune_tf add this callback to every fit automatically, unless
    `keras.callbacks.TerminateOnNaN` is used. Steps that a LossScaleOptimizer skips have a finite
    loss and do not count as errors.

    Raises:
        ModelError: From `fit`, with the step, the learning rate, the state of the weights, and
            advice.

    Example:
        >>> network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> network.compile("sgd", "mse")
        >>> callbacks = [ft.callbacks.StopAtNonFiniteLoss()]
        >>> x, y = np.ones((4, 3)), np.array([1.0, 1.0, 1.0, np.nan])
        >>> network.fit(x, y, callbacks=callbacks, verbose=0)
        Traceback (most recent call last):
        ...
        finetune_tf.errors.ModelError: The loss is nan at step 1 of epoch 1...
    """

    async_safe = True  # Keras reads the loss in another thread, so that steps do not wait for it
    #: Says where weights from before the error are saved; `Resume` sets it.
    saved: Callable[[], str] | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Resets the state of an earlier fit."""
        self._epoch, self._done, self._bad = 0, 0, None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Stores the number of the epoch."""
        self._epoch, self._done = epoch, 0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Checks the loss, a running mean over the epoch, which stays NaN once it is NaN."""
        if self._bad is None and not np.isfinite((logs or {}).get("loss", 0.0)):
            self._bad = (logs["loss"], self._epoch + 1, self._done + 1, batch + 1)
        self._done = batch + 1

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Raises the error if an earlier step had a loss that is not finite."""
        if self._bad is not None:
            raise self._with_saved(fit_errors.non_finite_loss(self.model, *self._bad))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Raises the error if the training or the validation loss is not finite."""
        self.on_train_batch_begin(0)
        loss = (logs or {}).get("val_loss", 0.0)
        if not np.isfinite(loss):
            error = fit_errors.non_finite_validation(self.model, loss, epoch + 1)
            raise self._with_saved(error)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Raises an error if the last step, after its loss, made weights NaN or infinite."""
        try:
            fit_errors.check_weights(self.model)
        except ModelError as error:
            raise self._with_saved(error) from None

    def _with_saved(self, error: ModelError) -> ModelError:
        return error if self.saved is None else ModelError(f"{error} {self.saved()}")


class Measure(keras.callbacks.Callback):
    """Computes metrics from all logits and targets of a data set after each epoch.

    Use it for metrics that are not a mean over batches, such as F1. The results are printed and
    added to the logs of the epoch.

    Args:
        measure: Called with the logits and the targets of all rows, (rows, …) each; returns a
            dict of metrics by name. For tasks on tokens, batches are padded to a common length,
            with targets of -100.
        batches: The data to predict: batches of (inputs, targets), batches of inputs that contain
            the labels, or one tuple of arrays (inputs, targets).
        batch_size: The batch size if `batches` is a tuple of arrays.

    Raises:
        DataError: After an epoch, if the batches have sample weights, which it does not use.

    Example:
        >>> def error_rate(logits, targets):
        ...     return {"val_error": float((logits.argmax(-1) != targets).mean())}
        >>> callbacks = [ft.callbacks.Measure(error_rate, test.batches(model))]
        >>> history = model.fit(train.batches(model), callbacks=callbacks, verbose=0)
        >>> len(history.history["val_error"])
        1
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
            batches = _Slices(tuple(map(unwrapped, batches)), batch_size)
        self._measure, self._batches = measure, batches

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Checks that cached features were computed with the weights that the model has."""
        if hasattr(self.model, "refuse_stale_features"):
            self.model.refuse_stale_features(self._batches)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Predicts and measures; later callbacks find the metrics in the logs."""
        logits, targets = [], []
        for batch in self._batches:
            if isinstance(batch, tuple) and len(batch) != 2:
                raise DataError(
                    f"Measure needs batches of inputs and targets, and found {len(batch)} parts: "
                    "it does not use sample weights. Leave them out of its batches."
                )
            inputs, given = batch if isinstance(batch, tuple) else (batch, batch)
            found = np.asarray(self.model.call(inputs, training=False)), targets_in(given)
            if hasattr(inputs, "keys") and STARTS in inputs:  # places without a text do not count
                is_text = np.ravel(inputs[STARTS]) >= 0
                found = [np.asarray(values)[is_text] for values in found]
            logits.append(found[0])
            targets.append(np.asarray(found[1]))
        found = self._measure(_concatenated(logits), _concatenated(targets))
        (logs if logs is not None else {}).update(found)
        say(", ".join(f"{name}: {value:.4f}" for name, value in found.items()))


class _Slices:
    """Batches of arrays of equal lengths, from the beginning in each iteration."""

    def __init__(self, arrays: Any, size: int) -> None:
        self._arrays = keras.tree.map_structure(np.asarray, arrays)
        self._size = size

    def __iter__(self) -> Iterator[Any]:
        rows = len(keras.tree.flatten(self._arrays)[0])
        for start in range(0, rows, self._size):
            part = slice(start, start + self._size)
            yield keras.tree.map_structure(operator.itemgetter(part), self._arrays)


def _concatenated(batches: list[np.ndarray]) -> np.ndarray:
    """Returns the concatenated batches; token sequences are padded to a common length."""
    if batches[0].ndim < 2:
        return np.concatenate(batches)
    longest = max(batch.shape[1] for batch in batches)
    rest = [(0, 0)] * (batches[0].ndim - 2)
    widths = [[(0, 0), (0, longest - batch.shape[1]), *rest] for batch in batches]
    padded = map(lambda b, w: np.pad(b, w, constant_values=IGNORED), batches, widths)
    return np.concatenate(list(padded))


class SavePretrained(keras.callbacks.Callback):
    """Saves the model as a Hugging Face checkpoint during training.

    At the end of the fit, the folder has the weights that the model has then: those of the best
    epoch if `keras.callbacks.EarlyStopping` restores them.

    Args:
        folder: The folder, as for `save_pretrained`.
        each_epoch: Whether to save after each epoch instead of only after the last one.
        tokenizer: The tokenizer to save instead of the model's own.
        repo_id: Hub repository, "owner/name", to upload to after the last epoch; None to not
            upload.
        token: Hub access token, as for `push_to_hub`.

    Example:
        >>> callbacks = [ft.callbacks.SavePretrained("my-model", each_epoch=False)]
        >>> history = model.fit(train.batches(model), callbacks=callbacks, verbose=0)
        >>> ft.load("my-model").labels == model.labels
        True
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
        self._saved: str | None = None  # the digest of the weights
        self._is_finished_later = False

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Saves the model if `each_epoch` is set."""
        if self._each_epoch:
            self._save()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Saves the model if the last epoch did not, and uploads it."""
        if not self._each_epoch:
            self._save()
        if not self._is_finished_later:
            self.finish()

    def finish(self) -> None:
        """Saves the model again if it has got other weights since, and uploads it."""
        self._is_finished_later = False
        if self._saved != self._digest():
            self._save()
        if self._repo_id:
            self.model.push_to_hub(self._repo_id, token=self._token)

    def finish_later(self) -> None:
        """Lets a callback that comes after all others call `finish`."""
        self._is_finished_later = True

    def _save(self) -> None:
        if self._tokenizer is not None:
            self.model.tokenizer = self._tokenizer
        self.model.save_pretrained(self._folder)
        self._saved = self._digest()

    def _digest(self) -> str:
        sync_state(self.model)
        return digest_of_weights(getattr(self.model, "whole", self.model))


class FinishSaving(keras.callbacks.Callback):
    """Calls `SavePretrained.finish` after callbacks that restore weights at the end of a fit.

    Models of finetune_tf add it as the last callback of a fit.
    """

    def __init__(self, saving: Sequence[SavePretrained]) -> None:
        super().__init__()
        self._saving = list(saving)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Takes over the end."""
        for callback in self._saving:
            callback.finish_later()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Saves what has changed, and uploads."""
        for callback in self._saving:
            callback.finish()
