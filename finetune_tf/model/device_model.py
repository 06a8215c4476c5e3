"""A model class whose steps on several devices compute the numbers of one device.

On TensorFlow, a `tf.distribute` strategy gives each device a part of the rows of a batch, and Keras
averages the losses of the parts. That is another number where parts differ in size or in their
targets, or where rows are compared with each other. Here, the outputs and targets of all devices
are joined before the loss is computed, so each device computes the loss of the whole batch, and
metrics see the whole batch on the first device. Backends whose steps have all rows are unaffected.
"""

from typing import Any

import keras

from finetune_tf import kernels
from finetune_tf.base.keras_fits import spec_of_batches
from finetune_tf.base.keras_internals import (
    all_layers,
    layers_with_added_losses,
    undivided_losses,
)
from finetune_tf.data.encodings import targets_of
from finetune_tf.errors import ModelError
from finetune_tf.model.weighted import WeightedModel
from finetune_tf.tasks.feature import STARTS


class DeviceModel(WeightedModel):
    """Computes losses and metrics of batches whose rows are on several devices."""

    @property
    def number_of_devices(self) -> int:
        """The number of devices of the strategy in whose scope the model was created."""
        # JAX has no strategies, and its steps have all rows.
        return getattr(getattr(self, "distribute_strategy", None), "num_replicas_in_sync", 1)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Overrides the Keras hook: the loss of the whole batch, divided among the devices.

        Raises:
            ModelError: If a layer adds losses of its own on several devices.
        """
        if kernels.device_count() == 1 or self.runs_without_logits:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        if layers := layers_with_added_losses(self):
            raise ModelError(
                f"The layer {layers[0].name!r} adds a loss with add_loss, which would be computed "
                "from the rows of each device. Train on one device, or write the loss as an "
                "objective; see ft.objectives."
            )
        x, *rows = _gathered(x, y, y_pred, sample_weight)
        with undivided_losses():
            loss = super().compute_loss(x, *rows, training)
        return kernels.divided_among_devices(loss)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Overrides the Keras hook; returns results over all devices, not their mean."""
        if kernels.device_count() == 1:
            return super().compute_metrics(x, y, y_pred, sample_weight)
        if self.runs_without_logits:  # the accuracy, a sum over targets
            super().compute_metrics(x, y, y_pred, sample_weight)
        else:
            x, *rows = _gathered(x, y, y_pred, sample_weight)
            if kernels.is_first_device():
                with undivided_losses():  # a loss may be a metric
                    super().compute_metrics(x, *rows)
        return kernels.of_all_devices(self.get_metrics_result)

    def make_train_function(self, force: bool = False) -> Any:
        """Overrides the Keras hook.

        Raises:
            ModelError: If normalizations of the model would use the statistics of a part of the
                rows on each of several devices.
        """
        names = [layer.name for layer in all_layers(self) if _uses_batch(layer)]
        if names and self.number_of_devices > 1:
            raise ModelError(
                f"The normalization {names[0]!r} trains on the statistics of a batch, of which "
                f"each of the {self.number_of_devices} devices has a part only. Train on one "
                "device, or keep the statistics fixed: ft.train_batch_statistics(model, on=False)."
            )
        return super().make_train_function(force)

    def predict_step(self, *args: Any) -> Any:
        """Overrides the Keras hook."""
        return kernels.with_common_shapes(super().predict_step(*args))

    def _for_devices(self, *parts: Any) -> tuple[Any, ...]:
        """Divides the rows of a single batch among the devices, as Keras divides data sets."""
        if (devices := self.number_of_devices) == 1:
            return parts
        strategy = self.distribute_strategy

        def divided(value: Any) -> Any:
            if value is None:
                return None
            value = keras.ops.convert_to_tensor(value)
            size = -(-value.shape[0] // devices)
            return strategy.experimental_distribute_values_from_function(
                lambda context: value[(i := context.replica_id_in_sync_group) * size :][:size]
            )

        return keras.tree.map_structure(divided, parts)

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Overrides the Keras hook that builds the model from the shapes of a batch.

        With several devices, Keras takes the mean of their parts of the first batch, which fails if
        they differ in size.
        """
        if self.number_of_devices > 1:
            iterator, data_batch = None, spec_of_batches(iterator, data_batch)
        super()._maybe_symbolic_build(iterator, data_batch)


def _gathered(x: Any, y: Any, y_pred: Any, sample_weight: Any) -> tuple[Any, Any, Any, Any]:
    """Joins targets, outputs and weights of all devices, and the places of packed rows in `x`."""
    starts = x.get(STARTS) if hasattr(x, "keys") else None
    values = [targets_of(x, y), y_pred, sample_weight, starts]
    *rows, starts = kernels.gathered(values)
    return (x if starts is None else {**x, STARTS: starts}), *rows


def _uses_batch(layer: keras.layers.Layer) -> bool:
    """Whether training computes statistics of the rows of a batch in a layer."""
    if isinstance(layer, keras.layers.BatchNormalization):
        return bool(layer.trainable)
    return bool(getattr(layer, "learns_statistics", False) and layer.trainable)
