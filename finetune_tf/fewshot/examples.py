"""What few-shot methods ask of examples, checked before a model is loaded or trained."""

from typing import Any

import numpy as np

from finetune_tf.base.labels import Labels, understood
from finetune_tf.data import Examples
from finetune_tf.errors import DataError, ModelError
from finetune_tf.recipe.recipe import check_examples
from finetune_tf.tasks.classification import Classification

_MOST_NAMED = 5


def require_labels(**examples: Any) -> None:
    """Checks that arguments are `Examples` with class labels; those besides `train` may be None.

    Raises:
        DataTypeError: If one is something else.
        DataError: If one has no labels, or numbers in place of classes.
    """
    check_examples(**examples)
    for argument, each in examples.items():
        if each is None:
            continue
        if "label" not in each.columns or each.labels is None:
            raise DataError(
                f"{argument}= needs labels, but {each.name} has the columns "
                f"{', '.join(each.columns)}. Name the column with the labels when reading it, such "
                'as ft.data.from_csv(path, label="category").'
            )
        if each.labels.problem_type == "regression":
            raise DataError(
                f"Few-shot methods learn classes, but the labels of {each.name} are numbers for a "
                "regression. If they are class numbers, read them with problem_type="
                '"single_label_classification"; for a regression, use ft.finetune.'
            )


def require_classifier(model: Any) -> None:
    """Checks that a model is a classifier of texts, whose head is one linear layer.

    Raises:
        ModelError: If it is not.
    """
    task = getattr(model, "task", None)
    is_classifier = isinstance(task, Classification) and task.preprocessor == "tokenizer"
    if not is_classifier or task.problem_type == "regression":
        found = type(model).__name__ if task is None else f"one for {task.title}"
        raise ModelError(
            f"Few-shot methods need a classifier of texts, found {found}. Load it with "
            "ft.load(checkpoint, labels=train.labels, new_head=True)."
        )


def rows_by_label(examples: Examples, labels: Labels) -> list[np.ndarray]:
    """Returns the rows of each label in their order; a row of several labels occurs several times.

    Raises:
        DataError: If a label is not one of `labels`, or a label has no example.
    """
    rows: list[list[int]] = [[] for _ in labels]
    several = labels.problem_type == "multi_label_classification"
    for row, value in enumerate(examples.columns["label"]):
        for each in value if several else [value]:
            name = understood(each, examples.labels, labels)
            number = labels.index_of(name)
            if number is None:
                raise DataError(
                    f"{examples.places.title(row)} of {examples.name} has the label {name!r}, "
                    f"which training does not have; it has {labels.listed()}. Add examples of it "
                    "to the training examples, or leave such rows out."
                )
            rows[number].append(row)
    if missing := [name for name, of_label in zip(labels, rows, strict=True) if not of_label]:
        raise DataError(
            f"{examples.name} has no example of {_named(missing)}. Add at least two examples of "
            "each class, or read the data with the labels that occur: labels=[…]."
        )
    return [np.array(of_label) for of_label in rows]


def rows_without_label(examples: Examples, labels: Labels) -> list[np.ndarray]:
    """Returns the rows that have none of several labels, as a list of one array, or of none."""
    if labels.problem_type != "multi_label_classification":
        return []
    rows = [row for row, names in enumerate(examples.columns["label"]) if not len(names)]
    return [np.array(rows)] if rows else []


def require_pairs(rows: list[np.ndarray], examples: Examples, labels: Labels) -> None:
    """Checks that each class has two examples, and that there are texts to tell apart.

    Raises:
        DataError: If a class has only one, or all texts have the same labels.
    """
    single = [name for name, of_label in zip(labels, rows, strict=True) if len(of_label) < 2]
    if single:
        raise DataError(
            f"Contrastive training compares texts of one class, but {examples.name} has only one "
            f"example of {_named(single)}. Add a second one, or fit a head on the encoder as it is:"
            ' ft.fewshot.fit_head(model, train, kind="prototypes").'
        )
    if all(len(np.unique(of_label)) == len(examples) for of_label in rows):
        raise DataError(
            f"All texts of {examples.name} have the same labels, so contrastive training would "
            "make all texts alike. Add texts that have fewer labels or none."
        )


def require_known(examples: Examples, labels: Labels, argument: str) -> None:
    """Checks that training has all labels of other examples.

    Raises:
        DataError: If a row has a label that training has not.
    """
    several = labels.problem_type == "multi_label_classification"
    values = examples.columns["label"]
    found = {each for value in values for each in (value if several else [value])}
    names = [understood(each, examples.labels, labels) for each in found]
    unknown = sorted(str(name) for name in names if labels.index_of(name) is None)
    if unknown:
        raise DataError(
            f"{argument}= has the class {_named(unknown)}, which the training examples do not "
            f"have; they have {labels.listed()}. A class without training examples cannot be "
            "predicted: add examples of it, or leave its rows out."
        )


def _named(names: list[str]) -> str:
    shown = ", ".join(map(repr, names[:_MOST_NAMED]))
    return shown if len(names) <= _MOST_NAMED else f"{shown} and {len(names) - _MOST_NAMED} more"
