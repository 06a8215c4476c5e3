"""Short trainings on TensorFlow, which begin sooner than those of Keras."""

from collections.abc import Callable, Sequence
from typing import Any

import keras

from finetune_tf import kernels
from finetune_tf.data.array_batches import ArrayBatches


def runs_steps(model: keras.Model) -> bool:
    """Whether `fit_steps` can train a model; otherwise, Keras does.

    It needs TensorFlow without a `tf.distribute` strategy, which would divide the batches.
    """
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    has_strategy = tf.distribute.has_strategy()
    return not has_strategy and model.distribute_strategy is tf.distribute.get_strategy()


def traced_step(model: keras.Model, batches: ArrayBatches) -> Callable:
    """Returns the training step of a compiled model as one function of the arrays of a batch.

    Keras reads batches from a tf.data pipeline, inside of a second function around that of the
    step. To build and optimize these takes as long as several steps of a small model.

    Args:
        model: The model, which is compiled and whose optimizer is built.
        batches: Batches with targets. The step is traced once for all batches of their structure.
    """
    import tensorflow as tf

    def step(inputs: Any, targets: Any) -> Any:
        return model.train_step((inputs, targets))

    return tf.function(step, input_signature=batches.signature(), autograph=False)


def fit_steps(
    model: keras.Model,
    step: Callable,
    batches: ArrayBatches,
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    """Trains a model for one epoch, as `model.fit` does.

    Args:
        model: The model.
        step: From `traced_step`.
        batches: Batches with targets.
        callbacks: Called as in a fit of one epoch.
    """
    import tensorflow as tf

    kernels.keep_buffers()
    called = keras.callbacks.CallbackList(
        list(callbacks), model=model, epochs=1, steps=len(batches)
    )
    model.stop_training = False
    model.reset_metrics()
    called.on_train_begin()
    called.on_epoch_begin(0)
    logs: dict[str, Any] = {}
    for number in range(len(batches)):
        called.on_train_batch_begin(number)
        logs = step(*tf.nest.map_structure(tf.convert_to_tensor, batches[number]))
        called.on_train_batch_end(number, logs)
        if model.stop_training:
            break
    called.on_epoch_end(0, logs)
    called.on_train_end(logs)


class StepLosses(keras.callbacks.Callback):
    """Collects the loss of each step; Keras shows the mean since the epoch began."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[float] = []
        self._sum = 0.0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Takes the loss of the step out of the mean."""
        total = float(logs["loss"]) * (batch + 1)
        self.values.append(total - self._sum)
        self._sum = total
