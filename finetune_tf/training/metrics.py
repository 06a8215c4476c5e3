"""Adapts Keras metrics to models that return logits and to targets of -100, which are ignored."""

from collections.abc import Iterator
from typing import Any, Literal

import keras
from keras import ops

from finetune_tf.base.keras_internals import copy_direction, function_of, mask_of
from finetune_tf.errors import ModelError
from finetune_tf.messages import say, warn
from finetune_tf.tasks import IGNORED, Kind, Task
from finetune_tf.training.classification import Accuracy
from finetune_tf.training.outputs import fitting_loss, kind_of, name_of

Activation = Literal["softmax", "sigmoid", "decision", "none"]
Targets = Literal["class_numbers", "rows", "second_class", "labels"]

# Metrics that expect class indices; all other classification metrics expect one-hot targets.
_SPARSE_METRICS = (
    "SparseCategoricalAccuracy",
    "SparseTopKCategoricalAccuracy",
    "SparseCategoricalCrossentropy",
)
# Metrics that expect predicted classes instead of probabilities.
_PREDICTION_METRICS = ("Accuracy", "IoU", "MeanIoU")
# Metrics that expect scores on any scale.
_SCORE_METRICS = ("Hinge", "SquaredHinge", "CategoricalHinge")
# Binary metrics; with two classes, the second one is the positive class.
_BINARY_METRICS = (
    *("AUC", "Precision", "Recall", "PrecisionAtRecall", "RecallAtPrecision"),
    *("TruePositives", "TrueNegatives", "FalsePositives", "FalseNegatives"),
    *("SensitivityAtSpecificity", "SpecificityAtSensitivity"),
    *("BinaryAccuracy", "BinaryCrossentropy", "BinaryIoU", "Hinge", "SquaredHinge"),
)
_REGRESSION_METRICS = (
    *("MeanSquaredError", "RootMeanSquaredError", "MeanAbsoluteError", "LogCoshError", "R2Score"),
    *("MeanAbsolutePercentageError", "MeanSquaredLogarithmicError"),
)
# Metrics of vectors, which are not meaningful for single numbers.
_VECTOR_METRICS = ("CosineSimilarity", "PearsonCorrelation", "ConcordanceCorrelation")
# Metrics that treat labels separately and accept one weight per text only.
_TEXT_WEIGHT_METRICS = (
    "F1Score",
    "FBetaScore",
    "R2Score",
    "IoU",
    "MeanIoU",
    "OneHotIoU",
    "OneHotMeanIoU",
)


@keras.saving.register_keras_serializable("finetune_tf")
class OnLogits(keras.metrics.Metric):
    """Wraps a Keras metric and converts logits and targets to the form that it expects.

    Targets of -100 are ignored, and so are rows that the mask of the logits leaves out: places of
    packed rows without a text.

    Args:
        metric: The wrapped metric, which keeps its name and its state.
        activation: How logits are converted to predictions: "softmax" over the classes, "sigmoid"
            of each logit, "decision" (the predicted class, or 0 and 1 per label), or "none".
        targets: The form of the targets for the metric: "class_numbers" (class indices), "rows"
            (one-hot), "second_class" (whether the target is the second of two classes), or
            "labels" (multi-hot rows, unchanged).
        **kwargs: Arguments of every Keras metric.

    Example:
        >>> from finetune_tf.training.metrics import OnLogits
        >>> precision = OnLogits(keras.metrics.Precision(), "sigmoid", "second_class")
        >>> precision.update_state(np.array([1, 0, -100]), np.array([[0, 2], [0, 1], [3, 0]]))
        >>> float(precision.result())
        0.5
    """

    def __init__(
        self,
        metric: keras.metrics.Metric,
        activation: Activation,
        targets: Targets,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"name": metric.name, **kwargs})
        self.metric, self._activation, self._targets = metric, activation, targets
        copy_direction(self, metric)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Updates the wrapped metric.

        Args:
            y_true: Targets (…,) or (…, outputs).
            y_pred: Logits (…, outputs).
            sample_weight: Weights (…,), or in the shape of the targets.
        """
        mask, logits = mask_of(y_pred), ops.cast(y_pred, "float32")
        outputs = logits.shape[-1]
        if self._targets == "labels":
            targets = ops.reshape(ops.cast(y_true, "float32"), (-1, outputs))
            logits = ops.reshape(logits, (-1, outputs))
            if sample_weight is not None and len(sample_weight.shape) == 2:
                if type(self.metric).__name__ in _TEXT_WEIGHT_METRICS:
                    raise ModelError(
                        f"{self.name} accepts one weight per text, found one per label. Pass it in "
                        "metrics= instead of weighted_metrics=."
                    )
                if isinstance(self.metric, keras.metrics.MeanMetricWrapper):
                    targets, logits = targets[..., None], logits[..., None]
            weight = sample_weight if mask is None else self._masked(sample_weight, mask, outputs)
            self.metric.update_state(targets, self._predictions(logits), weight)
            return
        has_rows = len(y_true.shape) == len(logits.shape) and y_true.shape[-1] != 1
        logits = ops.reshape(logits, (-1, outputs))  # (targets, classes)
        weight = None if sample_weight is None else ops.cast(sample_weight, "float32")
        if has_rows:
            rows = ops.reshape(ops.cast(y_true, "float32"), (-1, outputs))
            indices = ops.argmax(rows, axis=-1)
        else:
            indices = ops.reshape(ops.cast(y_true, "int32"), (-1,))
            counted = ops.not_equal(indices, IGNORED)
            indices = ops.where(counted, indices, 0)
            rows = ops.one_hot(indices, outputs) if self._targets == "rows" else None
            if weight is None:
                weight = ops.cast(counted, self.metric.dtype)  # IoU metrics count in integers
            else:
                weight = ops.cast(counted, "float32") * ops.reshape(weight, (-1,))
        if self._targets == "second_class":
            # The sigmoid of the difference is the softmax probability of the second class.
            logits = logits[:, 1:] - logits[:, :1]
            targets = rows[:, 1:] if has_rows else ops.cast(indices, "float32")[:, None]
        else:
            targets = rows if self._targets == "rows" else indices
        if weight is not None and has_rows:
            weight = ops.reshape(weight, (-1,))
        self.metric.update_state(targets, self._predictions(logits), weight)

    def _masked(self, weight: Any, mask: Any, outputs: int) -> Any:
        """Weights (rows,) or (rows, outputs) that are 0 where the mask (rows,) is."""
        counted = ops.cast(mask, self.metric.dtype if weight is None else weight.dtype)
        weight = counted if weight is None else weight
        if type(self.metric).__name__ in ("IoU", "MeanIoU", "BinaryIoU"):  # they flatten rows
            weight = ops.repeat(weight[:, None], outputs, axis=1)
        return weight * (counted if len(weight.shape) == 1 else counted[:, None])

    def _predictions(self, logits: Any) -> Any:
        if self._activation == "softmax":
            return ops.softmax(logits, axis=-1)
        if self._activation == "sigmoid":
            return ops.sigmoid(logits)
        if self._activation == "decision":
            if self._targets == "labels":
                return ops.cast(ops.greater_equal(logits, 0.0), "float32")
            return ops.argmax(logits, axis=-1)
        return logits

    def result(self) -> Any:
        """Returns the result of the wrapped metric."""
        return self.metric.result()

    def reset_state(self) -> None:
        """Resets the wrapped metric."""
        self.metric.reset_state()

    def get_config(self) -> dict:
        """Returns the Keras config."""
        return {
            **super().get_config(),
            "metric": keras.saving.serialize_keras_object(self.metric),
            "activation": self._activation,
            "targets": self._targets,
        }

    @classmethod
    def from_config(cls, config: dict) -> "OnLogits":
        """Creates the metric from the result of `get_config`."""
        metric = keras.saving.deserialize_keras_object(config["metric"])
        return cls(**{**config, "metric": metric})


def fitting_metrics(metrics: Any, task: Task, loss: Any) -> list | None:
    """Adapts metrics to the outputs of a model.

    Args:
        metrics: The metrics in any form that Keras accepts for a model with one output.
        task: The task of the model.
        loss: The loss of the model. With binary cross-entropy, a single output is the logit of
            the positive class.

    Returns:
        A flat list of metrics, or None if there are none.

    Raises:
        ModelError: If a metric does not fit the model, or its name is unknown.
    """
    kind = kind_of(task, loss)
    if kind == "number" and loss is not None and name_of(loss) is None:
        kind = None  # with a custom loss, the meaning of the output is unknown
    flat = [_adapt_metric(metric, kind, task) for metric in _flatten(metrics)]
    return flat or None


def _flatten(metrics: Any) -> Iterator[Any]:
    if isinstance(metrics, dict) and "class_name" not in metrics:
        metrics = list(metrics.values())
    if isinstance(metrics, list | tuple):
        for metric in metrics:
            yield from _flatten(metric)
    elif metrics is not None:
        yield metrics


def _adapt_metric(metric: Any, kind: Kind | None, task: Task) -> Any:
    given = metric
    if isinstance(given, str) and given.lower() in ("accuracy", "acc"):
        if kind == "classes":
            return Accuracy(name=given)
        metric = keras.metrics.BinaryAccuracy(name=given)
    elif isinstance(given, str) and given.lower() in ("crossentropy", "ce"):
        sparse, binary = "SparseCategoricalCrossentropy", "BinaryCrossentropy"
        metric = getattr(keras.metrics, sparse if kind == "classes" else binary)(name=given)
    if isinstance(metric, keras.losses.Loss):
        return fitting_loss(metric, task)
    if isinstance(metric, OnLogits):
        return metric
    metric = _as_metric(metric)
    if isinstance(given, str):
        metric.name = given
    class_name = type(metric).__name__
    shown = given if isinstance(given, str) else class_name
    if isinstance(metric, Accuracy) and kind == "classes":
        return metric
    if kind is None or not _is_keras(metric):
        if not isinstance(metric, keras.metrics.Mean):
            _report_custom_metric(metric, kind, task)
        return given if callable(given) and not isinstance(given, type) else metric
    if kind in ("pairs", "independent_pairs"):
        raise ModelError(_misfit_message(shown, kind))
    if kind in ("number", "vectors"):
        if class_name in _REGRESSION_METRICS:
            return OnLogits(metric, "none", "labels") if kind == "number" else metric
        if kind == "vectors" and class_name in _VECTOR_METRICS:
            return metric
        raise ModelError(_misfit_message(shown, kind))
    activation, targets = _expected_arguments(metric, kind, task)
    if class_name in ("F1Score", "FBetaScore") and kind == "several" and metric.threshold is None:
        if isinstance(given, str):
            metric = type(metric)(threshold=0.5, name=given)
        else:
            warn(
                f"{class_name} without a threshold counts only the label with the highest score of "
                "each text, but several labels can be correct. Write threshold=0.5."
            )
    return OnLogits(metric, activation, targets)


def _as_metric(metric: Any) -> Any:
    """Creates a metric from its name, function, class or config; keeps a custom function."""
    if isinstance(metric, str | dict):
        try:
            metric = keras.metrics.get(metric)
        except (ValueError, TypeError):
            raise ModelError(
                f"There is no metric {metric!r}. Leave metrics out to get those of the task, or "
                "use one of keras.metrics."
            ) from None
    name = getattr(metric, "__name__", "")
    if isinstance(metric, type):
        return metric()
    if not isinstance(metric, keras.metrics.Metric) and _is_keras(metric):
        try:
            return type(keras.metrics.get(name))(name=name)
        except (ValueError, TypeError):  # a function without a metric class, such as huber
            return keras.metrics.MeanMetricWrapper(metric, name=name)
    return metric


def _is_keras(metric: Any) -> bool:
    """Returns whether Keras itself defines how the metric is updated, not a custom subclass."""
    if isinstance(metric, keras.metrics.MeanMetricWrapper) and function_of(metric) is not None:
        return getattr(function_of(metric), "__module__", "").startswith("keras.")
    if isinstance(metric, keras.metrics.Metric):
        return type(metric).update_state.__module__.startswith("keras.")
    return getattr(metric, "__module__", "").startswith("keras.")


def _report_custom_metric(metric: Any, kind: Kind | None, task: Task) -> None:
    name = getattr(metric, "name", None) or getattr(metric, "__name__", type(metric).__name__)
    outputs = (
        "numbers" if kind in (None, "number") else "vectors" if kind == "vectors" else "logits"
    )
    padded = f", with targets of {IGNORED} at ignored positions" if task.token_axis == 0 else ""
    say(f"compile: metric {name!r} receives {outputs} as the model returns them{padded}.")


def _expected_arguments(
    metric: keras.metrics.Metric, kind: Kind, task: Task
) -> tuple[Activation, Targets]:
    """Returns the forms of predictions and targets that a Keras metric expects.

    Raises:
        ModelError: If the metric is not applicable to the model.
    """
    name, config, labels = type(metric).__name__, metric.get_config(), task.labels
    if type(metric) is keras.metrics.Mean or name == "Sum":
        raise ModelError(
            f"keras.metrics.{name} does not compare targets with predictions. Use a metric such as "
            "'accuracy', or leave metrics out."
        )
    expects_logits = (
        config.get("from_logits") or name in _SCORE_METRICS or _has_threshold_zero(name, config)
    )
    if kind != "classes":
        if name in _SPARSE_METRICS:
            raise ModelError(_misfit_message(name, kind))
        usual: Activation = "decision" if name in _PREDICTION_METRICS else "sigmoid"
        return ("none" if expects_logits else usual), "labels"
    if name in _PREDICTION_METRICS:
        return "decision", "class_numbers"
    if name in _SPARSE_METRICS:
        return ("none" if expects_logits else "softmax"), "class_numbers"
    if labels is None:
        raise ModelError(
            f"{name} needs one-hot targets over all classes, but the classes of {task.name} are "
            "all tokens or all words of the vocabulary. Use 'accuracy', "
            "SparseTopKCategoricalAccuracy or SparseCategoricalCrossentropy."
        )
    by_class = any(config.get(key) not in (None, False) for key in ("class_id", "top_k"))
    by_class = by_class or bool(config.get("multi_label"))
    if name in _BINARY_METRICS and len(labels) == 2 and not by_class:
        say(
            f"compile: metric {metric.name!r} uses the second label, {labels[1]!r}, as the "
            "positive class."
        )
        return ("none" if expects_logits else "sigmoid"), "second_class"
    return ("none" if expects_logits else "softmax"), "rows"


def _has_threshold_zero(name: str, config: dict) -> bool:
    """Returns whether all thresholds are 0 or less, which makes sense for logits only."""
    found = config.get("threshold", None if name == "AUC" else config.get("thresholds"))
    found = found if isinstance(found, list | tuple) else [found]
    return all(isinstance(value, int | float) and value <= 0 for value in found)


def _misfit_message(name: str, kind: Kind) -> str:
    outputs, advice = {
        "number": ("one number per text", "Use 'mae' or 'mse'"),
        "vectors": ("vectors", "Evaluate pairs with ft.evaluate(model, pairs)"),
        "pairs": ("rows of pairs", "Evaluate it with ft.evaluate(model, test)"),
        "independent_pairs": ("rows of pairs", "Evaluate it with ft.evaluate(model, test)"),
        "several": ("one logit per label", "Use 'accuracy' or 'binary_crossentropy'"),
        "yes_no": ("one logit per text", "Use 'accuracy' or 'binary_crossentropy'"),
    }[kind]
    return (
        f"The metric {name} does not fit the model, which returns {outputs}. {advice}, or leave "
        "metrics out."
    )
