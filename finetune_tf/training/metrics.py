"""Metrics of Keras on what a model gives: logits, and targets of which some count for nothing."""

from collections.abc import Iterator
from typing import Any, Literal

import keras
from keras import ops

from finetune_tf.base.keras_internals import copy_direction, function_of
from finetune_tf.errors import ModelError
from finetune_tf.messages import say, warn
from finetune_tf.tasks import IGNORED, Kind, Task
from finetune_tf.training.outputs import fitting_loss, kind_of, name_of

Activation = Literal["softmax", "sigmoid", "decision", "none"]
Targets = Literal["class_numbers", "rows", "second_class", "labels"]

# Metrics over class numbers; all others of a classifier take a row of 0 and 1 for each target.
_CLASS_NUMBERS = (
    "SparseCategoricalAccuracy",
    "SparseTopKCategoricalAccuracy",
    "SparseCategoricalCrossentropy",
)
# Metrics that compare predictions instead of probabilities.
_DECISIONS = ("Accuracy", "IoU", "MeanIoU")
# Metrics that take scores on any scale.
_SCORES = ("Hinge", "SquaredHinge", "CategoricalHinge")
# Metrics of yes and no: of two classes they are about the second one.
_YES_NO = (
    *("AUC", "Precision", "Recall", "PrecisionAtRecall", "RecallAtPrecision"),
    *("TruePositives", "TrueNegatives", "FalsePositives", "FalseNegatives"),
    *("SensitivityAtSpecificity", "SpecificityAtSensitivity"),
    *("BinaryAccuracy", "BinaryCrossentropy", "BinaryIoU", "Hinge", "SquaredHinge"),
)
_NUMBERS = (
    *("MeanSquaredError", "RootMeanSquaredError", "MeanAbsoluteError", "LogCoshError", "R2Score"),
    *("MeanAbsolutePercentageError", "MeanSquaredLogarithmicError"),
)
# Metrics that say nothing of single numbers, but of vectors.
_VECTORS = ("CosineSimilarity", "PearsonCorrelation", "ConcordanceCorrelation")
# Metrics that keep labels apart and take one weight a text.
_ONE_WEIGHT = ("F1Score", "FBetaScore", "R2Score", "IoU", "MeanIoU", "OneHotIoU", "OneHotMeanIoU")


@keras.saving.register_keras_serializable("finetune_tf")
class OnLogits(keras.metrics.Metric):
    """A Keras metric that is given what it expects instead of logits and class numbers.

    Targets of -100 count for nothing.

    Args:
        metric: The metric; it keeps its name and its state.
        activation: What makes its predictions of logits: "softmax" over the classes, "sigmoid" of
            each logit, "decision" (the class number, or 0 and 1), or "none".
        targets: What it compares with: "class_numbers", "rows" of 0 and 1 over the classes,
            "second_class" (whether it is the second of two), or "labels", rows as they are given.
        **kwargs: As for every Keras metric.
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
        """Targets (…,) or (…, outputs), logits (…, outputs), and weights (…,) or of the targets."""
        logits = ops.cast(y_pred, "float32")
        outputs = logits.shape[-1]
        if self._targets == "labels":
            targets = ops.reshape(ops.cast(y_true, "float32"), (-1, outputs))
            logits = ops.reshape(logits, (-1, outputs))
            if sample_weight is not None and len(sample_weight.shape) == 2:
                if type(self.metric).__name__ in _ONE_WEIGHT:
                    raise ModelError(
                        f"{self.name} takes one weight a text, found one for each label. Put it "
                        "into metrics= instead of weighted_metrics=."
                    )
                if isinstance(self.metric, keras.metrics.MeanMetricWrapper):
                    targets, logits = targets[..., None], logits[..., None]
            self.metric.update_state(targets, self._predictions(logits), sample_weight)
            return
        has_rows = len(y_true.shape) == len(logits.shape) and y_true.shape[-1] != 1
        logits = ops.reshape(logits, (-1, outputs))  # (targets, classes)
        weight = None if sample_weight is None else ops.cast(sample_weight, "float32")
        if has_rows:
            rows = ops.reshape(ops.cast(y_true, "float32"), (-1, outputs))
            numbers = ops.argmax(rows, axis=-1)
        else:
            numbers = ops.reshape(ops.cast(y_true, "int32"), (-1,))
            counted = ops.not_equal(numbers, IGNORED)
            numbers = ops.where(counted, numbers, 0)
            rows = ops.one_hot(numbers, outputs) if self._targets == "rows" else None
            if weight is None:
                weight = ops.cast(counted, self.metric.dtype)  # an IoU counts in whole numbers
            else:
                weight = ops.cast(counted, "float32") * ops.reshape(weight, (-1,))
        if self._targets == "second_class":
            logits = logits[:, 1:] - logits[:, :1]  # whose sigmoid is the softmax's second number
            targets = rows[:, 1:] if has_rows else ops.cast(numbers, "float32")[:, None]
        else:
            targets = rows if self._targets == "rows" else numbers
        if weight is not None and has_rows:
            weight = ops.reshape(weight, (-1,))
        self.metric.update_state(targets, self._predictions(logits), weight)

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
        """As the metric's."""
        return self.metric.result()

    def reset_state(self) -> None:
        """As the metric's."""
        self.metric.reset_state()

    def get_config(self) -> dict:
        """Keras config."""
        return {
            **super().get_config(),
            "metric": keras.saving.serialize_keras_object(self.metric),
            "activation": self._activation,
            "targets": self._targets,
        }

    @classmethod
    def from_config(cls, config: dict) -> "OnLogits":
        """The inverse of `get_config`."""
        metric = keras.saving.deserialize_keras_object(config["metric"])
        return cls(**{**config, "metric": metric})


def fitting_metrics(metrics: Any, task: Task, loss: Any) -> list | None:
    """Metrics that take what the model gives, whatever form they were written in.

    Args:
        metrics: In any of the forms that Keras takes for a model of one output.
        task: Of the model.
        loss: Of the model; binary cross-entropy on one output makes it the logit of yes.

    Returns:
        A flat list, as Keras reads all of these forms; None where there are no metrics.

    Raises:
        ModelError: If a metric does not fit the model, or there is none of that name.
    """
    kind = kind_of(task, loss)
    if kind == "number" and loss is not None and name_of(loss) is None:
        kind = None  # somebody's own loss: only they know what the number is
    flat = [_fitting(metric, kind, task) for metric in _leaves(metrics)]
    return flat or None


def _leaves(metrics: Any) -> Iterator[Any]:
    if isinstance(metrics, dict) and "class_name" not in metrics:
        metrics = list(metrics.values())
    if isinstance(metrics, list | tuple):
        for metric in metrics:
            yield from _leaves(metric)
    elif metrics is not None:
        yield metrics


def _fitting(metric: Any, kind: Kind | None, task: Task) -> Any:
    from finetune_tf.training.presets import Accuracy

    given = metric
    if isinstance(given, str) and given.lower() in ("accuracy", "acc"):
        if kind == "classes":
            return Accuracy(name=given)
        metric = keras.metrics.BinaryAccuracy(name=given)
    elif isinstance(given, str) and given.lower() in ("crossentropy", "ce"):
        classes, labels_ = "SparseCategoricalCrossentropy", "BinaryCrossentropy"
        metric = getattr(keras.metrics, classes if kind == "classes" else labels_)(name=given)
    if isinstance(metric, keras.losses.Loss):
        return fitting_loss(metric, task)
    if isinstance(metric, OnLogits):
        return metric
    metric = _as_object(metric)
    if isinstance(given, str):
        metric.name = given
    own = type(metric).__name__
    shown = given if isinstance(given, str) else own
    if isinstance(metric, Accuracy) and kind == "classes":
        return metric
    if kind is None or not _is_keras(metric):
        if not isinstance(metric, keras.metrics.Mean):
            _say_own(metric, kind, task)
        return given if callable(given) and not isinstance(given, type) else metric
    if kind in ("number", "vectors"):
        if own in _NUMBERS or (kind == "vectors" and own in _VECTORS):
            return metric
        raise ModelError(_does_not_fit(shown, kind))
    activation, targets = _reading(metric, kind, task)
    if own in ("F1Score", "FBetaScore") and kind == "several" and metric.threshold is None:
        if isinstance(given, str):
            metric = type(metric)(threshold=0.5, name=given)
        else:
            warn(
                f"{own} without a threshold counts only the highest label of a text, but several "
                "may be right. Write threshold=0.5."
            )
    return OnLogits(metric, activation, targets)


def _as_object(metric: Any) -> Any:
    """A metric of its name, function, class or config; somebody's own function as it is."""
    if isinstance(metric, str | dict):
        try:
            metric = keras.metrics.get(metric)
        except (ValueError, TypeError):
            raise ModelError(
                f"There is no metric {metric!r}. Leave metrics out to get those of the task, or "
                "take one of keras.metrics."
            ) from None
    name = getattr(metric, "__name__", "")
    if isinstance(metric, type):
        return metric()
    if not isinstance(metric, keras.metrics.Metric) and _is_keras(metric):
        try:
            return type(keras.metrics.get(name))(name=name)
        except (ValueError, TypeError):  # a function without a metric of its own, such as huber
            return keras.metrics.MeanMetricWrapper(metric, name=name)
    return metric


def _is_keras(metric: Any) -> bool:
    """Whether Keras says what a metric expects; a subclass may read its arguments otherwise."""
    if isinstance(metric, keras.metrics.MeanMetricWrapper) and function_of(metric) is not None:
        return getattr(function_of(metric), "__module__", "").startswith("keras.")
    if isinstance(metric, keras.metrics.Metric):
        return type(metric).update_state.__module__.startswith("keras.")
    return getattr(metric, "__module__", "").startswith("keras.")


def _say_own(metric: Any, kind: Kind | None, task: Task) -> None:
    name = getattr(metric, "name", None) or getattr(metric, "__name__", type(metric).__name__)
    gets = "numbers" if kind in (None, "number") else "vectors" if kind == "vectors" else "logits"
    padded = f", and targets of {IGNORED} where nothing counts" if task.token_axis == 0 else ""
    say(f"compile: metric {name!r} gets {gets} as the model returns them{padded}.")


def _reading(metric: keras.metrics.Metric, kind: Kind, task: Task) -> tuple[Activation, Targets]:
    """What a metric of Keras's has to be given.

    Raises:
        ModelError: If it cannot say anything about such a model.
    """
    name, config, labels = type(metric).__name__, metric.get_config(), task.labels
    if type(metric) is keras.metrics.Mean or name == "Sum":
        raise ModelError(
            f"keras.metrics.{name} is no metric of targets and predictions. Take a metric such as "
            "'accuracy', or leave metrics out."
        )
    on_logits = config.get("from_logits") or name in _SCORES or _has_threshold_zero(name, config)
    if kind != "classes":
        if name in _CLASS_NUMBERS:
            raise ModelError(_does_not_fit(name, kind))
        plain: Activation = "decision" if name in _DECISIONS else "sigmoid"
        return ("none" if on_logits else plain), "labels"
    if name in _DECISIONS:
        return "decision", "class_numbers"
    if name in _CLASS_NUMBERS:
        return ("none" if on_logits else "softmax"), "class_numbers"
    if labels is None:
        raise ModelError(
            f"{name} needs a row of 0 and 1 over all classes for each target, which for "
            f"{task.name} are all tokens or words. Take 'accuracy', SparseTopKCategoricalAccuracy "
            "or SparseCategoricalCrossentropy."
        )
    by_class = any(config.get(key) not in (None, False) for key in ("class_id", "top_k"))
    by_class = by_class or bool(config.get("multi_label"))
    if name in _YES_NO and len(labels) == 2 and not by_class:
        say(f"compile: metric {metric.name!r} is about the label {labels[1]!r}, the second of two.")
        return ("none" if on_logits else "sigmoid"), "second_class"
    return ("none" if on_logits else "softmax"), "rows"


def _has_threshold_zero(name: str, config: dict) -> bool:
    """Whether a metric counts from the logit 0 up; no probability is below."""
    found = config.get("threshold", None if name == "AUC" else config.get("thresholds"))
    found = found if isinstance(found, list | tuple) else [found]
    return all(isinstance(number, int | float) and number <= 0 for number in found)


def _does_not_fit(name: str, kind: Kind) -> str:
    words = {
        "number": "a number a text; take 'mae' or 'mse'",
        "vectors": "vectors; evaluate pairs with ft.evaluate(model, pairs)",
        "several": "several labels a text; take 'accuracy' or 'binary_crossentropy'",
        "yes_no": "a logit a text; take 'accuracy' or 'binary_crossentropy'",
    }
    return f"The metric {name} does not fit the model, which gives {words[kind]}, or none."
