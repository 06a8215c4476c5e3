"""Weights per text, per target and per class, as a number for each term of the loss."""

import math
import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np
from keras import ops

from finetune_tf.base.labels import Labels, is_integer_text
from finetune_tf.base.values import check_range, concrete
from finetune_tf.errors import ArgumentError, DataError
from finetune_tf.tasks import IGNORED, Kind, Task


def class_weights(
    given: Any, kind: Kind, task: Task, classes: int, tokenizer: Any
) -> np.ndarray | None:
    """Weights in the order of the classes.

    Args:
        given: Weights by class: by number, from 0, or by the name of a label (for fill-mask, by the
            word of the vocabulary). A class that is not named weighs 1.
        kind: What the outputs of the model are.
        task: Of the model.
        classes: How many outputs it has.
        tokenizer: Called without arguments, gives the tokenizer whose words are the classes.

    Returns:
        (classes,) float32; None where nothing was given.

    Raises:
        ArgumentError: If the task has no classes, a class is none of the model's or stands there
            twice, or a weight is no finite number from 0 on.
    """
    if given is None:
        return None
    labels = task.labels
    if kind in ("number", "vectors") or task.targets_are_positions:
        what = "a regression" if kind == "number" else task.name
        raise ArgumentError(
            f"class_weight weighs classes, and {what} has none. Give a weight for each text "
            "instead: sample_weight=, or the third element of a dataset's batches."
        )
    if not isinstance(given, Mapping):
        raise ArgumentError(
            "class_weight is a dict of weights by class, such as {0: 1.0, 1: 5.0} or "
            f"{{'neg': 1.0, 'pos': 5.0}}, found {given!r:.80}."
        )
    count = 2 if kind == "yes_no" else classes
    weights, seen = np.ones(count, dtype="float32"), {}
    for key, weight in given.items():
        number = _index_of(key, kind, labels, count, tokenizer)
        if number is None:
            known = ", ".join(labels) if labels is not None else "the words of the vocabulary"
            raise ArgumentError(
                f"class_weight names the class {key!r}, but the model's classes are the numbers "
                f"from 0 to {count - 1}, or {known}."
            )
        if number in seen:
            raise ArgumentError(
                f"class_weight names the class {number} twice, as {seen[number]!r} and as {key!r}."
            )
        is_number = isinstance(weight, numbers.Real) and not isinstance(weight, bool)
        if not is_number or not math.isfinite(weight) or weight < 0:
            raise ArgumentError(
                f"A class weight is a finite number from 0 on, found {weight!r} for {key!r}."
            )
        weights[number], seen[number] = weight, key
    return weights


def _index_of(
    key: Any, kind: Kind, labels: Labels | None, count: int, tokenizer: Any
) -> int | None:
    if isinstance(key, numbers.Integral) and not isinstance(key, bool):
        if labels is not None and str(key) in labels and labels.index(str(key)) != key:
            raise ArgumentError(
                f"The key {key} of class_weight could be the class number {key} or the label "
                f"named {str(key)!r}. Write names as texts: {{{str(key)!r}: …}}."
            )
        return int(key) if 0 <= key < count else None
    if not isinstance(key, str):
        return None
    if kind == "yes_no":
        return int(key) if is_integer_text(key) and 0 <= int(key) < count else None
    if labels is not None:
        return labels.index_of(key)
    return tokenizer().get_vocab().get(key)


def by_class(weights: np.ndarray, targets: Any, kind: Kind, rank: int) -> Any:
    """The weight of the class of each target.

    Args:
        weights: Of the classes (classes,).
        targets: Class numbers, or rows of numbers over the classes.
        kind: What the outputs of the model are.
        rank: Of its targets, if they are class numbers.

    Returns:
        (batch, …) as the targets are; (batch, labels) where several labels may be right.
    """
    last, weights = len(weights) - 1, ops.convert_to_tensor(weights)
    if kind == "several":
        return ops.broadcast_to(weights, ops.shape(targets))  # (batch, labels)
    if kind == "yes_no":
        yes = ops.reshape(ops.cast(targets, "float32"), (-1,))
        return weights[0] + yes * (weights[1] - weights[0])  # (batch,)
    if len(targets.shape) > rank and targets.shape[-1] != 1:
        return ops.sum(ops.cast(targets, "float32") * weights, axis=-1)  # (batch, …)
    number = ops.cast(_squeezed(targets, rank), "int32")
    counted = ops.not_equal(number, IGNORED)
    # A number outside of the classes is an error of the loss, not of its weight.
    inside = ops.clip(number, 0, last)
    return ops.take(weights, inside) * ops.cast(counted, "float32")


def times(weights: Any, of_classes: Any) -> Any:
    """Weights of texts or targets times those of their classes.

    Args:
        weights: (batch,), (batch, 1), or as `of_classes`.
        of_classes: From `by_class`.

    Returns:
        As `of_classes`.
    """
    rank = len(of_classes.shape)
    weights = ops.cast(weights, "float32")
    if len(weights.shape) == rank + 1 and weights.shape[-1] == 1:
        weights = ops.squeeze(weights, axis=-1)
    return _with_ones(weights, ops.shape(of_classes)[0], rank) * of_classes


def spread(weights: Any, targets: Any, outputs: Any, kind: Kind, pairs: bool) -> Any:
    """Weights in the shape of the terms that a loss adds up.

    Args:
        weights: (batch,), (batch, 1), or as the targets are.
        targets: Of the batch.
        outputs: Of the model, (batch, …, classes).
        kind: What these are.
        pairs: Whether outputs are two rows for each target.

    Returns:
        (batch,), (batch, length), (batch, 2) or, if a weight for each label was given,
        (batch, labels); 0 for a target of -100.

    Raises:
        DataError: If the shapes do not fit together.
    """
    rank = 1 if pairs else len(outputs.shape) - 1
    weights = ops.cast(weights, "float32")
    if len(weights.shape) == rank + 1 and weights.shape[-1] == 1:
        weights = ops.squeeze(weights, axis=-1)
    given = len(weights.shape)
    by_label = kind == "several" and given == rank + 1
    if not 1 <= given <= rank + by_label:
        raise _does_not_fit(weights, targets)
    wanted = targets if pairs or by_label else outputs
    if any(
        None not in (own, other) and own not in (other, 1 if axis else other)
        for axis, (own, other) in enumerate(zip(weights.shape, wanted.shape, strict=False))
    ):
        raise _does_not_fit(weights, targets)
    if by_label:
        return weights
    if pairs:
        return _with_ones(weights, ops.shape(targets)[0], rank)
    weights = _with_ones(weights, ops.shape(outputs)[0], rank)
    weights = weights * ops.ones_like(outputs[..., 0], dtype="float32")  # (batch, …)
    if kind == "classes" and (len(targets.shape) == rank or targets.shape[-1] == 1):
        counted = ops.not_equal(ops.cast(_squeezed(targets, rank), "int32"), IGNORED)
        weights = ops.where(counted, weights, 0.0)
    return weights


def check_weights(weights: Any, rows: int | None) -> None:
    """Checks the numbers of weights; see `values.check_range` about those of a traced step.

    Args:
        weights: An array or a tensor.
        rows: How many texts there are; None where nobody knows.

    Raises:
        DataError: If one is negative or no finite number, or if there are not as many as texts.
    """
    found = concrete(weights)
    message = "Weights are finite numbers from 0 on, found {found}."
    if found is None:
        check_range(weights, 0, None, message)
        return
    if found.dtype.kind not in "iufb":
        raise DataError(f"Weights are numbers, found {found.flat[0]!r:.40}.")
    if found.ndim == 0 or (rows is not None and len(found) != rows):
        length = "a single number" if found.ndim == 0 else f"{len(found)} weights"
        raise DataError(f"sample_weight has one weight for each of {rows} texts, found {length}.")
    check_range(found, 0, None, message)


def _with_ones(weights: Any, rows: Any, rank: int) -> Any:
    """(batch, …) as (batch, …, 1, …) of a rank.

    The number of rows is said, so that one weight for a whole batch is an error and not taken for
    every row.
    """
    ones = (1,) * (rank - len(weights.shape))
    return ops.reshape(weights, (rows, *ops.shape(weights)[1:], *ones))


def _squeezed(targets: Any, rank: int) -> Any:
    return ops.squeeze(targets, axis=-1) if len(targets.shape) > rank else targets


def _does_not_fit(weights: Any, targets: Any) -> DataError:
    return DataError(
        "Weights are one a text, (batch,), or one for each target, found weights of shape "
        f"{tuple(weights.shape)} for targets of shape {tuple(targets.shape)}."
    )
