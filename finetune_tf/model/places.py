"""A model class that leaves out the empty places of packed rows whose targets are numbers.

A packed row has as many places as the row with the most texts, so some are empty. Class numbers
have a value for them, -100, which all losses and metrics ignore. Other targets have none: they are
NaN there, and which places count follows from `text_starts`. Losses of Keras read it as the mask of
the outputs, and metrics as `training.metrics.OnLogits` does.

Shape legend: N rows, S places for texts in a row.
"""

from typing import Any

import keras
from keras import ops

from finetune_tf import kernels
from finetune_tf.base.keras_internals import compiled_with, set_mask
from finetune_tf.data.encodings import targets_of
from finetune_tf.errors import DataError, ModelError
from finetune_tf.model.vocabulary_loss import VocabularyLossModel
from finetune_tf.tasks.feature import STARTS
from finetune_tf.training.metrics import OnLogits
from finetune_tf.training.outputs import fit_of, name_of
from finetune_tf.training.similarity_loss import PairSimilarity

_ADVICE = "Use one of Keras, or batches without packing."


class PlacesModel(VocabularyLossModel):
    """Computes losses and metrics of the texts of packed rows, without empty places."""

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Overrides the Keras hook.

        Raises:
            ModelError: If it is unknown what a custom loss does about empty places.
        """
        is_text, targets = self._places_of(x), targets_of(x, y)
        if is_text is None or targets is None:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        if fit_of(self.loss, self.task.output_kind) is None:
            raise ModelError(
                f"The loss {_name(self.loss)} is not known to leave out the empty places of packed "
                f"rows, whose targets are nan. {_ADVICE}"
            )
        y, y_pred = _without_empty(targets, is_text), _masked(y_pred, is_text)
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Overrides the Keras hook.

        Raises:
            ModelError: As for `compute_loss`, about a metric.
        """
        is_text, targets = self._places_of(x), targets_of(x, y)
        if is_text is None or targets is None:
            return super().compute_metrics(x, y, y_pred, sample_weight)
        given = [compiled_with(self, name) for name in ("metrics", "weighted_metrics")]
        for metric in keras.tree.flatten(given):
            is_loss = isinstance(metric, keras.losses.Loss) and name_of(metric) is not None
            if metric is not None and not isinstance(metric, OnLogits) and not is_loss:
                raise ModelError(
                    f"The metric {_name(metric)} is not known to leave out the empty places of "
                    f"packed rows, whose targets are nan. {_ADVICE}"
                )
        y, y_pred = _without_empty(targets, is_text), _masked(y_pred, is_text)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def targets_of_texts(self, x: Any, targets: Any) -> Any:
        """Returns targets whose values can be checked: those of empty places are 0, not NaN.

        Args:
            x: Inputs.
            targets: The targets of the inputs.

        Raises:
            DataError: If there is not one target for each place.
        """
        if (is_text := self._places_of(x)) is None:
            return targets
        if kernels.device_count() > 1:  # each has other places than those of its rows
            is_text = ops.logical_not(ops.isnan(ops.cast(targets, "float32")))
        elif None not in (sizes := (is_text.shape[0], targets.shape[0])) and sizes[0] != sizes[1]:
            raise DataError(
                f"The packed rows have {sizes[0]} places for targets, found {sizes[1]} targets. "
                "Use batches(model, packing=True), which makes one for each place."
            )
        return _without_empty(targets, is_text)

    def _places_of(self, x: Any) -> Any:
        """Whether each target has a text, (N * S,); None where -100 says so, or nothing is packed.

        A target of a pair has two texts, one after the other. With several devices, `text_starts`
        are those of all of them where targets are.
        """
        is_packed = hasattr(x, "keys") and STARTS in x
        if not is_packed or self.task.output_kind == "classes":
            return None
        is_text = ops.reshape(ops.greater_equal(x[STARTS], 0), (-1,))
        return is_text[::2] if isinstance(self.loss, PairSimilarity) else is_text


def _without_empty(targets: Any, is_text: Any) -> Any:
    """Targets (N * S, …) with 0 in place of NaN, whose product with the weight 0 would be NaN."""
    return ops.where(_expanded(is_text, targets), targets, ops.zeros_like(targets))


def _masked(outputs: Any, is_text: Any) -> Any:
    """Outputs with a mask in the shape of their losses: of (N * S, labels, 1) for each label."""
    mask = is_text
    if len(outputs.shape) == 3:
        mask = ops.broadcast_to(is_text[:, None], ops.shape(outputs)[:2])
    set_mask(outputs, mask)
    return outputs


def _expanded(is_text: Any, values: Any) -> Any:
    rank = len(values.shape)
    if len(is_text.shape) == rank:
        return is_text
    return ops.reshape(is_text, (-1, *[1] * (rank - 1)))


def _name(given: Any) -> str:
    return repr(getattr(given, "name", None) or getattr(given, "__name__", type(given).__name__))
