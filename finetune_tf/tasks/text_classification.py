"""Text classification: one text or a pair to one label, several labels, or a number."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from finetune_tf.architectures import ClassificationHead
from finetune_tf.errors import DataError
from finetune_tf.labels import Labels


class Columns(Protocol):
    """What a task reads of examples."""

    columns: dict[str, list]
    name: str


@dataclass(frozen=True)
class Encoded:
    """Examples as numbers.

    Attributes:
        features: Per input name one array of ids a row, each of its own length.
        pad_values: What fills an input up to the length of its batch.
        targets: (rows, …), or None without labels.
        truncated: How many rows were longer than allowed and lost their end.
    """

    features: dict[str, list[np.ndarray]]
    pad_values: dict[str, int]
    targets: np.ndarray | None
    truncated: int


class TextClassification:
    """One text, or a pair of texts, to one value per label."""

    name = "text-classification"
    class_suffix = "ForSequenceClassification"
    presets = {
        "single_label_classification": "cross_entropy",
        "multi_label_classification": "binary_cross_entropy",
        "regression": "mean_squared_error",
    }

    def head(self, features: Any, config: dict, labels: Labels) -> Any:
        """Puts the classifier on pooled features.

        Args:
            features: (batch, hidden_size), symbolic.
            config: A complete Hugging Face config.
            labels: Names of the outputs.

        Returns:
            Logits (batch, len(labels)), float32.
        """
        dropout = config.get("classifier_dropout", config["hidden_dropout_prob"])
        return ClassificationHead(
            len(labels),
            dropout,
            initializer_range=config["initializer_range"],
            name="classifier",
        )(features)

    def encode(self, examples: Columns, tokenizer: Any, max_length: int, labels: Labels) -> Encoded:
        """Token ids and targets of examples.

        Args:
            examples: With a column "text", and optionally "text_pair" and "label".
            tokenizer: A fast tokenizer of transformers.
            max_length: Tokens a row may have, special ones included.
            labels: Of the model, in logit order.
        """
        texts = examples.columns["text"]
        pairs = examples.columns.get("text_pair")
        ids, types = _tokenize(tokenizer, texts, pairs)
        too_long = [i for i, row in enumerate(ids) if len(row) > max_length]
        if too_long:
            cut = _tokenize(
                tokenizer,
                [texts[i] for i in too_long],
                [pairs[i] for i in too_long] if pairs else None,
                truncation=True,
                max_length=max_length,
            )
            for i, short_ids, short_types in zip(too_long, *cut, strict=True):
                ids[i], types[i] = short_ids, short_types
        return Encoded(
            features={
                "input_ids": [np.asarray(row, dtype="int32") for row in ids],
                "token_type_ids": [np.asarray(row, dtype="int32") for row in types],
            },
            pad_values={"input_ids": tokenizer.pad_token_id or 0, "token_type_ids": 0},
            targets=self.targets(examples, labels) if "label" in examples.columns else None,
            truncated=len(too_long),
        )

    def targets(self, examples: Columns, labels: Labels) -> np.ndarray:
        """The label column in the order of the model's labels.

        Returns:
            Class numbers (rows,) int32; or 0/1 (rows, labels) float32 for several labels; or
            numbers (rows,) float32 for a regression.

        Raises:
            DataError: If a label is none of the model's.
        """
        values = examples.columns["label"]
        if labels.problem_type == "regression":
            return np.asarray([_number(value, i, examples) for i, value in enumerate(values)])
        if labels.problem_type == "single_label_classification":
            return np.asarray(
                [_class_number(value, labels, i, examples) for i, value in enumerate(values)],
                dtype="int32",
            )
        targets = np.zeros((len(values), len(labels)), dtype="float32")
        for i, row in enumerate(values):
            if isinstance(row, str) or not isinstance(row, Sequence | np.ndarray):
                raise DataError(
                    f"Row {i} of {examples.name} has the label {row!r}; a model of several "
                    "labels a text expects a list of label names."
                )
            for value in row:
                targets[i, _class_number(value, labels, i, examples)] = 1.0
        return targets

    def probabilities(self, logits: np.ndarray, labels: Labels) -> np.ndarray:
        """Logits (rows, labels) as probabilities; of a regression the numbers (rows,)."""
        logits = np.asarray(logits, dtype="float64")
        if labels.problem_type == "regression":
            return logits[:, 0]
        if labels.problem_type == "multi_label_classification":
            return np.exp(-np.logaddexp(0.0, -logits))  # a sigmoid that cannot overflow
        exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return exponents / exponents.sum(axis=-1, keepdims=True)


def _tokenize(
    tokenizer: Any, texts: list[str], pairs: list[str] | None, **limits: Any
) -> tuple[list[list[int]], list[list[int]]]:
    encoded = tokenizer(
        texts,
        pairs,
        add_special_tokens=True,
        return_attention_mask=False,
        return_token_type_ids=True,
        verbose=False,
        **limits,
    )
    return encoded["input_ids"], encoded["token_type_ids"]


def _class_number(value: Any, labels: Labels, row: int, examples: Columns) -> int:
    number = labels.number_of(value)
    if number is None:
        raise DataError(
            f"Row {row} of {examples.name} has the label {value!r}, which is none of the model's "
            f"{len(labels)} labels: {', '.join(labels)}. Load the model with labels=train.labels."
        )
    return number


def _number(value: Any, row: int, examples: Columns) -> np.float32:
    try:
        number = np.float32(float(value))
    except (TypeError, ValueError):
        number = np.float32("nan")
    if not np.isfinite(number):
        raise DataError(
            f"Row {row} of {examples.name} has the score {value!r}; a regression expects a number."
        )
    return number
