"""The phases of `finetune`: what each one trains, on which model, and which weights it keeps."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from finetune_tf.errors import CacheError, ModelError
from finetune_tf.evaluation.curves import add_epochs
from finetune_tf.messages import say
from finetune_tf.model.feature_cache import cache_features
from finetune_tf.model.finetune_model import FineTuneModel
from finetune_tf.training import select
from finetune_tf.training.select import Selector

# The trainable variables of each phase. The last phase runs for the requested number of epochs.
POLICIES: dict[str, tuple[Selector, ...]] = {
    "full": (select.everything(),),
    "head": (select.head(),),
    # Training the head first protects the pretrained weights from the large gradients of a random
    # head (Howard and Ruder, ULMFiT, 2018; Kumar et al., Fine-Tuning can Distort Pretrained
    # Features and Underperform Out-of-Distribution, 2022).
    "head-first": (select.head(), select.everything()),
}


class PhaseWeights:
    """The history and the best weights of a phase, which may be interrupted."""

    def __init__(self, fitted: FineTuneModel, best: keras.callbacks.EarlyStopping | None) -> None:
        self._fitted, self._best = fitted, best
        fitted.history = None  # discards the history of an earlier phase
        self.callbacks = [] if best is None else [best]

    def add_history(self, history: dict[str, list[float]]) -> None:
        """Appends the finished epochs to the history of earlier phases."""
        add_epochs(history, getattr(self._fitted.history, "history", {}))

    def restore(self, history: dict[str, list[float]]) -> str:
        """Completes an interrupted fit: adds the history and restores the best weights.

        Returns:
            A description of the weights that the model has now.
        """
        self.add_history(history)
        self._fitted._eval_epoch_iterator = None  # Keras would reuse it in the next fit
        if self._best is None or self._best.best_weights is None:
            return "of the last step"
        self._best.on_train_end()
        return f"of epoch {self._best.best_epoch + 1}, the best one so far"


def model_to_fit(
    model: FineTuneModel,
    store_features: bool | str | Path,
    make_batches: Callable[[FineTuneModel], Any],
) -> tuple[FineTuneModel, Any]:
    """Returns the model to fit with its batches.

    If at least one block is frozen, that is the trainable upper part of the model on cached
    features; otherwise it is the model itself.
    """
    frozen = itertools.takewhile(lambda s: not any(v.trainable for v in s.variables), model.stages)
    if store_features and any(stage.role == "block" for stage in frozen):
        try:
            upper = cache_features(model, None if store_features is True else store_features)
            return upper, make_batches(upper)
        except CacheError as error:
            say(f"Frozen stages are computed in each epoch: {error}")
    return model, make_batches(model)


def phases_of(policy: Any) -> tuple[Selector, ...]:
    """Returns the trainable variables of each phase of a policy.

    Raises:
        ModelError: If it is not a policy.
    """
    if isinstance(policy, Selector):
        return (policy,)
    phases = tuple(policy) if isinstance(policy, list | tuple) else ()
    if phases and all(isinstance(phase, Selector) for phase in phases):
        return phases
    if not isinstance(policy, str) or policy not in POLICIES:
        raise ModelError(
            f"policy must be one of {', '.join(POLICIES)}, a selector such as "
            f"ft.select.head() | ft.select.blocks(-2), or a list of selectors; found {policy!r}."
        )
    return POLICIES[policy]


def restore_best_epoch(model: FineTuneModel, epochs: int) -> keras.callbacks.Callback:
    """Creates a callback that restores the weights of the best epoch at the end of a phase."""
    monitor, mode = model.task.monitor
    return keras.callbacks.EarlyStopping(
        monitor, mode=mode, patience=epochs, restore_best_weights=True
    )
