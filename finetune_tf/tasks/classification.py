"""Classification of any inputs: one label, several labels, or a number for each example."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from keras import ops

from finetune_tf.architectures import Backbone, ClassificationHead
from finetune_tf.base.labels import Labels
from finetune_tf.errors import ArgumentError, DataError
from finetune_tf.tasks.decisions import Decisions, decide, thresholds_of
from finetune_tf.tasks.explained import Aim, label_index, log_odds
from finetune_tf.tasks.task import Columns, Encoded, HeadParts, Kind, Task
from finetune_tf.tasks.unseen import label_numbers

_KINDS: dict[str, Kind] = {
    "single_label_classification": "classes",
    "multi_label_classification": "several",
    "regression": "number",
}


@dataclass(frozen=True, repr=False)
class Prediction:
    """The prediction for one text or image.

    Attributes:
        label: The most probable label; for a multi-label model the list of labels with a
            probability of 0.5 or more; None for a regression. If thresholds were chosen with
            `ft.calibration.choose_thresholds`, they decide in place of 0.5.
        score: The probability of the label; for a multi-label model the highest one; for a
            regression the number itself.
        probabilities: The probability of each label; empty for a regression.
    """

    label: str | list[str] | None
    score: float
    probabilities: dict[str, float]

    def __repr__(self) -> str:
        label = "" if self.label is None else f"{self.label!r}, "
        return f"Prediction({label}{self.score:.3f})"


class Classification(Task):
    """One value per label for an example; the base class of tasks on texts and on images."""

    has_labels = True
    can_explain = True
    target_column = "label"

    def outputs(
        self,
        backbone: Backbone,
        head: HeadParts,
        config: Mapping[str, Any],
        pooling: str,
        dtype: Any,
        modules: Any,
    ) -> Any:
        """Logits (batch, labels) on pooled features."""
        own = pooling == "pooler"
        mode = head.pooling if own else pooling
        transform = head.transform(dtype=dtype) if own and head.transform is not None else None
        if mode == "frames":
            features = transform(backbone.hidden)
        elif transform is not None and mode == "late":
            features = replace(backbone, hidden=transform(backbone.hidden)).pooled("mean", dtype)
        else:
            features = backbone.pooled(mode, dtype, config.get("pad_token_id"))
            features = features if transform is None else transform(features)
        return ClassificationHead(
            len(self.labels),
            head.dropout,
            initializer_range=config.get("initializer_range", 0.02),
            use_bias=head.output_bias or not own,
            name="classifier",
        )(features)

    @property
    def output_kind(self) -> Kind:
        """The kind that belongs to the problem type."""
        return _KINDS[self.labels.problem_type]

    @property
    def problem_type(self) -> str:
        """The problem type of the labels."""
        return self.labels.problem_type

    @property
    def evaluator(self) -> str:
        """The evaluator of the problem type."""
        return self.problem_type

    @property
    def monitor(self) -> tuple[str, str]:
        """The accuracy; of a regression the loss."""
        return ("val_loss", "min") if self.problem_type == "regression" else super().monitor

    def config_keys(self) -> dict[str, Any]:
        """Names of the labels and the problem type."""
        return {**super().config_keys(), "problem_type": self.labels.problem_type}

    def targets(self, examples: Columns) -> np.ndarray:
        """Converts the label column to targets in the order of the model's labels.

        Returns:
            Class numbers (rows,) int32; or 0/1 (rows, labels) float32 for several labels; or
            numbers (rows,) float32 for a regression.

        Raises:
            DataError: If a label is not one of the model's.
        """
        values, labels = examples.columns["label"], self.labels
        if labels.problem_type == "regression":
            return np.asarray([_number(value, i, examples) for i, value in enumerate(values)])
        if labels.problem_type == "single_label_classification":
            numbers = label_numbers([(value,) for value in values], labels, examples)
            return np.asarray([row[0] for row in numbers], dtype="int32")
        targets = np.zeros((len(values), len(labels)), dtype="float32")
        for i, row in enumerate(values):
            if isinstance(row, str) or not isinstance(row, Sequence | np.ndarray):
                raise DataError(
                    f"{examples.places.title(i)} of {examples.name} has the label {row!r}; a "
                    "model of several labels expects a list of label names."
                )
        for i, row in enumerate(label_numbers(values, labels, examples)):
            targets[i, row] = 1.0
        return targets

    def decide(self, rows: list[np.ndarray], encoded: Encoded, examples: Columns) -> np.ndarray:
        """Converts logits to predictions in the form of `targets`."""
        thresholds = thresholds_of(self.labels, self.config)
        return decide(self.probabilities(np.stack(rows)), self.labels, thresholds)

    @property
    def has_decisions(self) -> bool:
        """Whether this is no regression."""
        return self.problem_type != "regression"

    def decisions(self, rows: list[np.ndarray], encoded: Encoded, examples: Columns) -> Decisions:
        """One decision for each row; for several labels one for each label of it."""
        is_several = self.problem_type == "multi_label_classification"
        logits = np.stack(rows).astype("float64")
        return Decisions(logits, self.targets(examples), np.arange(len(rows)), is_several)

    def describe(
        self, rows: list[np.ndarray], encoded: Encoded, examples: Columns
    ) -> list[Prediction]:
        """Converts logits to labels with their probabilities."""
        probabilities, labels = self.probabilities(np.stack(rows)), self.labels
        decided = decide(probabilities, labels, thresholds_of(labels, self.config))
        return [
            _prediction(row, choice, labels)
            for row, choice in zip(probabilities, decided, strict=True)
        ]

    def explained(
        self, rows: list[np.ndarray], encoded: Encoded, examples: Columns, targets: list
    ) -> list[Aim]:
        """A label, by default the predicted one, the most probable of several; or the number.

        Raises:
            ArgumentError: If a target is no label of the model.
        """
        described = self.describe(rows, encoded, examples)
        return [self._aim(*each) for each in zip(range(len(rows)), described, targets, strict=True)]

    def _aim(self, row: int, prediction: Prediction, target: Any) -> Aim:
        if self.problem_type == "regression":
            if target is not None:
                raise ArgumentError(
                    f"A regression has one output, {self.labels[0]!r}, which is what is explained; "
                    f"leave target={target!r} out."
                )
            return Aim(row, (0,), self.labels[0], f"{prediction.score:.4g}", is_number=True)
        probabilities, name = prediction.probabilities, prediction.label
        predicted = [name] if isinstance(name, str) else name
        # Thresholds may decide for another label than the most probable one.
        likely = max(predicted or probabilities, key=probabilities.get)
        index = label_index(likely if target is None else target, self.labels)
        probability = probabilities[likely] if predicted else None
        return Aim(
            row, (index,), self.labels[index], ", ".join(predicted) or "no label", probability
        )

    def explained_score(self, outputs: Any, index: Any) -> Any:
        """The log-odds of the label; for a regression the number."""
        if self.problem_type == "single_label_classification":
            return log_odds(outputs, index[0])
        return ops.take(outputs, index[0], axis=1)

    def read_predictions(self, values: list, examples: Any) -> np.ndarray:
        """Converts labels, numbers, or probabilities in the order of the model's labels."""
        if self.problem_type == "regression":
            values = np.ravel(values).tolist()
        elif are_scores(values, len(self.labels)):
            return decide(np.array(values, dtype=np.float64), self.labels)
        return super().read_predictions(values, examples)

    @property
    def shared_evaluator(self) -> str:
        """The evaluator of the problem type for models that read different inputs."""
        return f"examples/{self.problem_type}"

    def has_outputs_of(self, other: Task) -> bool:
        """Classifications with the same problem type and labels can be compared.

        What they read of an example does not matter, such as its text or its image, and neither do
        the names of the outputs of two regressions.
        """
        if not isinstance(other, Classification) or other.problem_type != self.problem_type:
            return False
        return self.problem_type == "regression" or set(self.labels) == set(other.labels)

    def reordered(self, predictions: np.ndarray, wanted: Labels) -> np.ndarray:
        """Reorders predictions for labels of the same names in another order."""
        labels = self.labels
        if labels.problem_type == "multi_label_classification":
            return predictions[:, [labels.index(name) for name in wanted]]
        if labels.problem_type == "regression":
            return predictions
        return np.asarray([wanted.index(name) for name in labels])[predictions]

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Converts logits (rows, labels) to probabilities; for a regression to numbers (rows,)."""
        labels = self.labels
        logits = np.asarray(logits, dtype="float64")
        if labels.problem_type == "regression":
            return logits[:, 0]
        if labels.problem_type == "multi_label_classification":
            return np.exp(-np.logaddexp(0.0, -logits))  # a sigmoid that cannot overflow
        exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return exponents / exponents.sum(axis=-1, keepdims=True)


def _prediction(row: np.ndarray, decided: Any, labels: Labels) -> Prediction:
    """Names a row of probabilities (labels,), or a number, and what `decide` made of it."""
    if labels.problem_type == "regression":
        return Prediction(None, float(row), {})
    probabilities = {name: float(value) for name, value in zip(labels, row, strict=True)}
    if labels.problem_type == "single_label_classification":
        return Prediction(labels[decided], probabilities[labels[decided]], probabilities)
    chosen = [name for name, is_chosen in zip(labels, decided, strict=True) if is_chosen]
    return Prediction(chosen, max(probabilities.values()), probabilities)


def are_scores(values: list, labels: int) -> bool:
    """Whether each row is one number per label."""
    return all(
        isinstance(row, list | tuple)
        and len(row) == labels
        and all(isinstance(value, int | float) for value in row)
        for row in values
    )


def _number(value: Any, row: int, examples: Columns) -> np.float32:
    try:
        number = np.float32(float(value))
    except (TypeError, ValueError, OverflowError):
        number = np.float32("nan")
    if not np.isfinite(number):
        raise DataError(
            f"{examples.places.title(row)} of {examples.name} has the score {value!r}; a "
            "regression expects a number."
        )
    return number
