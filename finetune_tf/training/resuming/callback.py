"""`Resume`: a callback from whose saves a killed fit continues exactly."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import keras

from finetune_tf.base.arguments import check, shown
from finetune_tf.base.interruption import StopRequest, finishing_steps
from finetune_tf.base.keras_fits import RunningFit, enclose_callbacks, running_fit
from finetune_tf.base.paths import absolute
from finetune_tf.base.spelling import names_checked
from finetune_tf.errors import ArgumentError, CheckpointError, ModelError
from finetune_tf.tasks.decisions import forgetting_after_loading
from finetune_tf.training.resuming.callback_states import refuse_inexact
from finetune_tf.training.resuming.orbax_folders import require_orbax
from finetune_tf.training.resuming.orbax_saves import OrbaxSaves
from finetune_tf.training.resuming.saved_fit import SavedFit
from finetune_tf.training.resuming.saves import Saves, read
from finetune_tf.training.resuming.state import ModelState

_SAVES = {"safetensors": Saves, "orbax": OrbaxSaves}
# How many fits of each folder this process has finished, so that the next one has its own saves.
_finished: dict[Path, int] = {}


class Resume(keras.callbacks.Callback):
    """Saves the state of a fit, and continues from it when the same script is started again.

    A run that is killed at any moment and started again ends with the same weights, history and
    order of the data as one that was never killed, bit for bit (on the CPU of one machine, with
    TensorFlow or JAX). A save contains the weights, the state of random generators, the variables
    of the optimizer, the schedule, `trainable` flags, the place in the data, the history and the
    states of the other callbacks. Weights that are frozen and unchanged are left out.

    A save is one file with a checksum. It is written under a temporary name by another thread,
    so that training waits only until the state is collected, and moved into place with one rename.
    If the newest file is damaged, the one before is used. If the disk is full, training continues
    and the former saves remain.

    If the fit is finished, starting the script again returns at once, with the same weights and
    history. The first fit of a process with a folder uses the saves in `fit-1`, and the fit after
    it those in `fit-2`, so a script may contain several fits.

    The callback can be anywhere among the callbacks, also in a fit of another Keras model. Data
    and callbacks whose state cannot be restored are refused with an error.

    Args:
        folder: The folder of the saves, which is created. Use one folder for each script.
        every_steps: Saves after so many steps as well; by default only at the end of each epoch.
        keep: The number of newest saves to keep. The save of the epoch with the best validation
            result is kept as well.
        writer: "safetensors" writes one file for each save, in process 0. "orbax" (JAX) writes a
            folder through Orbax, into which each process writes the parts of the arrays that its
            devices hold, after they were copied to the memory of the host. Saves of both are read,
            whatever the writer is. Weights that are frozen are compared before training goes on.

    Raises:
        MissingExtraError: If the package of the writer is not installed.
        ModelError: From `fit`, if the settings differ from those of the interrupted run, or a
            part of the fit cannot be continued exactly. The message names it.
        DataError: From `fit`, if the order of the data cannot be repeated.

    Example:
        >>> callbacks = [ft.callbacks.Resume("my-run", every_steps=100)]
        >>> batches = train.batches(model, batch_size=4, shuffle=True)
        >>> history = model.fit(batches, epochs=2, callbacks=callbacks, verbose=0)
        >>> sorted(path.name for path in (callbacks[0].folder / "fit-1").iterdir())
        ['epoch-0001-step-000000.safetensors', 'epoch-0002-step-000000.safetensors']
    """

    @names_checked
    def __init__(
        self,
        folder: str | Path,
        every_steps: int | None = None,
        keep: int = 2,
        writer: Literal["safetensors", "orbax"] = "safetensors",
    ) -> None:
        check(**{"Resume.every_steps": every_steps, "Resume.keep": keep})
        if writer not in _SAVES:
            raise ArgumentError(
                f"writer must be {' or '.join(map(repr, _SAVES))}, found {shown(writer)}."
            )
        if writer == "orbax":
            if keras.backend.backend() != "jax":
                raise ModelError(
                    'writer="orbax" saves arrays of JAX, found the backend '
                    f"{keras.backend.backend()}: leave it out, or set KERAS_BACKEND=jax before "
                    "Python starts."
                )
            require_orbax()
        super().__init__()
        self._saves = _SAVES[writer]
        self.folder = absolute(Path(folder))
        self._every_steps, self._keep = every_steps, keep
        self._number: int | None = None  # of the fit, if it does not depend on the process
        self._request: StopRequest | None = None
        self._running: SavedFit | None = None

    @names_checked
    def load_weights(self, model: keras.Model, which: Literal["last", "best"] = "last") -> Path:
        """Gives a model the weights of a save, and nothing else of its state.

        This is how to go on from a run that diverged, or to train further than planned: with the
        weights, other settings and another folder.

        Args:
            model: The model, built as for the run.
            which: "last", or "best" for the epoch with the best validation result.

        Returns:
            The path of the save.

        Raises:
            CheckpointError: If there is no such save, or it belongs to another model.
            ModelError: If weights that were frozen, and are not in the save, differ from those of
                the run.

        Example:
            >>> resume = ft.callbacks.Resume("a-run")
            >>> history = model.fit(train.batches(model), callbacks=[resume], verbose=0)
            >>> resume.load_weights(ft.load(checkpoint, labels=train.labels)).name
            'epoch-0001-step-000000.safetensors'
        """
        if which not in ("last", "best"):
            raise ArgumentError(f"which must be 'last' or 'best', found {shown(which)}.")
        fits = [path for path in self.folder.glob("fit-*") if path.name[4:].isdecimal()]
        fits.sort(key=lambda path: int(path.name[4:]))
        newest = Saves(fits[-1], self._keep).newest() if fits else None
        if newest is None:
            raise CheckpointError(f"{self.folder} contains no save of a fit.")
        path, state, arrays = newest
        if which == "best" and state["best"] is not None:
            path = path.with_name(state["best"]["file"])
            state, arrays = read(path)
        elif which == "best":
            raise CheckpointError(f"No save in {self.folder} has a validation result.")
        if [[list(v.shape), v.dtype] for v in model.variables] != state["settings"]["variables"]:
            raise CheckpointError(
                f"{path} belongs to a model with other variables. Build the model as for the run."
            )
        own = ModelState(model)
        with forgetting_after_loading(model):
            own.load_weights(own.with_frozen(arrays, state, self.folder))
        return path

    # What Keras calls

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Adds the callbacks that do the work before and after all others."""
        if keras.backend.backend() not in ("tensorflow", "jax"):
            raise ModelError(
                "Resume needs the backend TensorFlow or JAX, found "
                f"{keras.backend.backend()}: set KERAS_BACKEND=tensorflow or KERAS_BACKEND=jax."
            )
        fit = running_fit()
        if fit is None:
            raise ModelError("Resume works in model.fit only.")
        if sum(isinstance(callback, Resume) for callback in fit.callbacks.callbacks) > 1:
            raise ModelError("A fit has one Resume, found several. Leave all but one out.")
        if not fit.model.built:
            raise ModelError(
                "Resume needs a model that is built. Call it on a batch before fit, or begin it "
                "with keras.Input."
            )
        enclose_callbacks(fit, _Before(self), _After(self, fit))

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Inside the block, Ctrl-C ends the fit after the current step and a save.

        Models of finetune_tf enter it in `fit`.
        """
        with contextlib.ExitStack() as stack:
            given = self._request
            if given is None:
                self._request = stack.enter_context(finishing_steps())
            try:
                yield
            finally:
                self._request = given
                if self._running is not None:
                    self._running.finish()
                    self._running = None

    def stop_on(self, request: StopRequest, number: int) -> None:
        """Ends a fit on another request than that of `listening`, and gives the fit a number."""
        self._request, self._number = request, number

    def begin(self, fit: RunningFit) -> SavedFit:
        """Begins to save a fit, after `on_train_begin` of all other callbacks."""
        own = (Resume, _Before, _After, keras.callbacks.History, keras.callbacks.ProgbarLogger)
        others = [c for c in fit.callbacks.callbacks if not isinstance(c, own)]
        for callback in others:
            refuse_inexact(callback)
        number = self._number or _finished.get(self.folder, 0) + 1
        saves = self._saves(self.folder / f"fit-{number}", self._keep)
        how = f"ft.callbacks.Resume({str(self.folder)!r}).load_weights(model)"
        self._running = SavedFit(fit, others, saves, self._every_steps, self._request, how)
        return self._running

    @property
    def running(self) -> SavedFit:
        """The fit that is saved."""
        return self._running

    def end(self) -> None:
        """Ends a fit that is complete."""
        self._running.finish()
        self._running = None
        _finished[self.folder] = _finished.get(self.folder, 0) + 1


def listening(callbacks: Any) -> contextlib.AbstractContextManager:
    """Returns `Resume.listening` of the callbacks of a fit, if there is a Resume among them.

    Raises:
        ModelError: As for `refuse_inexact`.
    """
    callbacks = getattr(callbacks, "callbacks", callbacks)
    callbacks = keras.tree.flatten(callbacks)
    found = [callback for callback in callbacks if isinstance(callback, Resume)]
    if not found:
        return contextlib.nullcontext()
    for callback in callbacks:
        refuse_inexact(callback)  # before it begins
    return found[0].listening()


class _Before(keras.callbacks.Callback):
    """The part of `Resume` that is called before all other callbacks."""

    def __init__(self, resume: Resume) -> None:
        super().__init__()
        self._resume = resume

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._resume.running.before_step(batch)

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._resume.running.begin_validation()

    def on_test_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._resume.running.check_validation()


class _After(keras.callbacks.Callback):
    """The part of `Resume` that is called after all other callbacks."""

    def __init__(self, resume: Resume, fit: RunningFit) -> None:
        super().__init__()
        self._resume, self._fit = resume, fit

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._resume.begin(self._fit)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._resume.running.begin_epoch(epoch)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._resume.running.end_epoch(epoch, logs or {})

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._resume.end()
