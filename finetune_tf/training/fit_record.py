"""What a model remembers of a fit, for its model card."""

from typing import Any

import keras
import numpy as np

from finetune_tf.base.keras_internals import inner_optimizer
from finetune_tf.training.schedules import schedule_of


def record_of_fit(
    history: Any, callbacks: Any, optimizer: Any, parameters: tuple[int, int]
) -> dict[str, Any]:
    """Returns the record of a fit that has ended, as JSON values.

    Args:
        history: Keras's History object.
        callbacks: The callbacks of the fit.
        optimizer: The optimizer of the model.
        parameters: The numbers of trainable parameters and of all.

    Returns:
        A dict. "last" has the results of the epoch whose weights the model has: the last one, or
        the one with the number "restored" (from 1), to which `EarlyStopping` returned.
    """
    optimizer = inner_optimizer(optimizer)
    trainable, total = parameters
    rate = schedule_of(optimizer) or optimizer.get_config().get("learning_rate")
    record = {
        "epochs": len(history.epoch),
        "steps": int(history.params.get("steps") or 0),
        "optimizer": type(optimizer).__name__,
        "learning_rate": str(rate),
        "trained": f"{trainable:,} of {total:,} parameters",
    }
    results, place = history.history, -1
    epoch = _restored_epoch(callbacks)
    if epoch in history.epoch[:-1]:
        record["restored"] = epoch + 1
        # Results with fewer values, as with `validation_freq`, do not say which epochs have one.
        results = {k: v for k, v in results.items() if len(v) == len(history.epoch)}
        place = history.epoch.index(epoch)
    return record | {"last": {k: np.asarray(v[place]).tolist() for k, v in results.items()}}


def _restored_epoch(callbacks: Any) -> int | None:
    """The epoch, from 0, whose weights early stopping has restored at the end of a fit."""
    found = keras.tree.flatten(getattr(callbacks, "callbacks", callbacks))
    for callback in reversed(found):
        is_stop = isinstance(callback, keras.callbacks.EarlyStopping)
        if is_stop and callback.restore_best_weights and callback.best_weights is not None:
            return int(callback.best_epoch)
    return None
