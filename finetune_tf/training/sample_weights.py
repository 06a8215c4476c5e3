"""Sample weights and class weights, expanded to one weight for each term of the loss."""

import math
import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np
from keras import ops

from finetune_tf.base.labels import Labels, is_integer_text
from finetune_tf.base.values import check_range, concrete
from finetune_tf.data.encodings import targets_of
from finetune_tf.errors import ArgumentError, DataError
from finetune_tf.tasks import IGNORED, Kind, Task


def class_weights(
    given: Any, kind: Kind, task: Task, classes: int, tokenizer: Any
) -> np.ndarray | None:
    """Converts `class_weight` to an array in the order of the classes.

    Args:
        given: A dict from class to weight. Classes are indices or label names (for fill-mask,
            tokens of the vocabulary). Classes that are not in the dict have the weight 1.
        kind: The kind of the model's outputs.
        task: The task of the model.
        classes: The number of outputs.
        tokenizer: A function without arguments that returns the tokenizer whose tokens are the
            classes.

    Returns:
        Weights (classes,) in float32, or None if `given` is None.

    Raises:
        ArgumentError: If the task has no classes, a class is unknown or occurs twice, or a weight
            is negative or not finite.

    Example:
        >>> from finetune_tf.training.sample_weights import class_weights
        >>> class_weights({"good": 3.0}, "classes", model.task, 2, None)
        array([1., 3.], dtype=float32)
    """
    if given is None:
        return None
    labels = task.labels
    if kind not in ("classes", "several", "yes_no") or task.targets_are_positions:
        what = "a regression" if kind == "number" else task.name
        raise ArgumentError(
            f"class_weight is for classes, but {what} has none. Give a weight for each text "
            "instead: sample_weight=, or the third element of a dataset's batches."
        )
    if not isinstance(given, Mapping):
        raise ArgumentError(
            "class_weight must be a dict from class to weight, such as {0: 1.0, 1: 5.0} or "
            f"{{'neg': 1.0, 'pos': 5.0}}, or \"balanced\", found {given!r:.80}."
        )
    count = 2 if kind == "yes_no" else classes
    weights, seen = np.ones(count, dtype="float32"), {}
    for key, weight in given.items():
        index = _class_index(key, kind, labels, count, tokenizer)
        if index is None:
            known = ", ".join(labels) if labels is not None else "the words of the vocabulary"
            raise ArgumentError(
                f"class_weight contains the class {key!r}, but the model's classes are the indices "
                f"from 0 to {count - 1}, or {known}."
            )
        if index in seen:
            raise ArgumentError(
                f"class_weight contains class {index} twice, as {seen[index]!r} and as {key!r}."
            )
        is_number = isinstance(weight, numbers.Real) and not isinstance(weight, bool)
        if not is_number or not math.isfinite(weight) or weight < 0:
            raise ArgumentError(
                "A class weight must be a finite number of at least 0, found "
                f"{weight!r} for {key!r}."
            )
        weights[index], seen[index] = weight, key
    return weights


def balanced_weights(
    x: Any, y: Any, kind: Kind, classes: int, validation_split: float = 0.0
) -> dict[int, float]:
    """Returns the class weights that `class_weight="balanced"` stands for.

    They are n / (C · n_c) for n rows, C classes that occur and n_c rows of class c, as in
    scikit-learn, so that the classes have the same weight in total and a row has the weight 1 on
    average.

    Args:
        x: Inputs or batches. Those of `Examples.batches` know how often each class occurs.
        y: Class indices (rows,) if `x` are inputs.
        kind: The kind of the model's outputs.
        classes: The number of outputs.
        validation_split: The share of the rows at the end of arrays that `fit` holds out, which
            have no part in the weights.

    Raises:
        ArgumentError: If not each row has one class, or their numbers are unknown.

    Example:
        >>> from finetune_tf.training.sample_weights import balanced_weights
        >>> balanced_weights(None, np.array([0, 0, 0, 1]), "classes", 2)
        {0: 0.6666666666666666, 1: 2.0}
    """
    counts, targets = getattr(x, "class_counts", None), targets_of(x, y)
    if counts is None and kind == "classes" and hasattr(targets, "shape"):
        found = concrete(targets)
        if found is not None and found.size == len(found) and found.dtype.kind in "iu":
            found = found[: math.floor(len(found) * (1.0 - (validation_split or 0.0)))]
            counts = np.bincount(found[found >= 0].reshape(-1), minlength=classes)
    if counts is None or kind != "classes":
        raise ArgumentError(
            'class_weight="balanced" needs one class for each row, in arrays or in the batches of '
            "Examples.batches, which know how often each class occurs. Otherwise pass a dict from "
            "class to weight."
        )
    present = np.flatnonzero(counts)
    return {int(c): float(counts.sum() / (len(present) * counts[c])) for c in present}


def _class_index(
    key: Any, kind: Kind, labels: Labels | None, count: int, tokenizer: Any
) -> int | None:
    if isinstance(key, numbers.Integral) and not isinstance(key, bool):
        if labels is not None and str(key) in labels and labels.index(str(key)) != key:
            raise ArgumentError(
                f"The key {key} of class_weight could be the class index {key} or the label "
                f"named {str(key)!r}. Write names as strings: {{{str(key)!r}: …}}."
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
    """Returns the class weight of each target.

    Args:
        weights: The weights of the classes (classes,).
        targets: Class indices, or rows over the classes.
        kind: The kind of the model's outputs.
        rank: The rank of the targets if they are class indices.

    Returns:
        Weights (batch, …) in the shape of the class indices; (batch, labels) for multi-label
        outputs.
    """
    last, weights = len(weights) - 1, ops.convert_to_tensor(weights)
    if kind == "several":
        return ops.broadcast_to(weights, ops.shape(targets))  # (batch, labels)
    if kind == "yes_no":
        yes = ops.reshape(ops.cast(targets, "float32"), (-1,))
        yes = ops.where(ops.isnan(yes), 0.0, yes)  # of an empty place, whose weight has no effect
        return weights[0] + yes * (weights[1] - weights[0])  # (batch,)
    if len(targets.shape) > rank and targets.shape[-1] != 1:
        return ops.sum(ops.cast(targets, "float32") * weights, axis=-1)  # (batch, …)
    indices = ops.cast(_squeezed(targets, rank), "int32")
    counted = ops.not_equal(indices, IGNORED)
    # An index outside of the classes is reported by the loss, not here.
    return ops.take(weights, ops.clip(indices, 0, last)) * ops.cast(counted, "float32")


def times(weights: Any, of_classes: Any) -> Any:
    """Multiplies the weights of texts or targets by those of their classes.

    Args:
        weights: (batch,), (batch, 1), or in the shape of `of_classes`.
        of_classes: The result of `by_class`.

    Returns:
        The products in the shape of `of_classes`.
    """
    rank = len(of_classes.shape)
    weights = ops.cast(weights, "float32")
    if len(weights.shape) == rank + 1 and weights.shape[-1] == 1:
        weights = ops.squeeze(weights, axis=-1)
    return _expand_to_rank(weights, ops.shape(of_classes)[0], rank) * of_classes


def spread(weights: Any, targets: Any, outputs: Any, kind: Kind, pairs: bool) -> Any:
    """Expands weights to the shape of the terms of the loss.

    Args:
        weights: (batch,), (batch, 1), or in the shape of the targets.
        targets: The targets of the batch.
        outputs: The outputs of the model, (batch, …, classes).
        kind: The kind of the outputs.
        pairs: Whether there are two rows of outputs for each target.

    Returns:
        Weights (batch,), (batch, length), (batch, 2) or, if there is one weight for each label,
        (batch, labels). The weight of a target of -100 is 0.

    Raises:
        DataError: If the shape of the weights does not fit that of the targets.

    Example:
        >>> from finetune_tf.training.sample_weights import spread
        >>> targets = np.array([[1, 0, -100], [0, 1, 1]])
        >>> logits = np.zeros((2, 3, 2), "float32")
        >>> weights = spread(np.array([1.0, 2.0]), targets, logits, "classes", False)
        >>> keras.ops.convert_to_numpy(weights).tolist()
        [[1.0, 1.0, 0.0], [2.0, 2.0, 2.0]]
    """
    rank = 1 if pairs else len(outputs.shape) - 1
    weights = ops.cast(weights, "float32")
    if len(weights.shape) == rank + 1 and weights.shape[-1] == 1:
        weights = ops.squeeze(weights, axis=-1)
    given = len(weights.shape)
    by_label = kind == "several" and given == rank + 1
    if not 1 <= given <= rank + by_label:
        raise _shape_error(weights, targets)
    wanted = targets if pairs or by_label else outputs
    if any(
        None not in (own, other) and own not in (other, 1 if axis else other)
        for axis, (own, other) in enumerate(zip(weights.shape, wanted.shape, strict=False))
    ):
        raise _shape_error(weights, targets)
    if by_label:
        return weights
    if pairs:
        return _expand_to_rank(weights, ops.shape(targets)[0], rank)
    weights = _expand_to_rank(weights, ops.shape(outputs)[0], rank)
    weights = weights * ops.ones_like(outputs[..., 0], dtype="float32")  # (batch, …)
    if kind == "classes" and (len(targets.shape) == rank or targets.shape[-1] == 1):
        counted = ops.not_equal(ops.cast(_squeezed(targets, rank), "int32"), IGNORED)
        weights = ops.where(counted, weights, 0.0)
    return weights


def check_weights(weights: Any, rows: int | None) -> None:
    """Checks the values of sample weights; see `values.check_range` for symbolic tensors.

    Args:
        weights: An array or a tensor.
        rows: The number of texts, or None if it is unknown.

    Raises:
        DataError: If a weight is negative or not finite, or their number differs from `rows`.
    """
    found = concrete(weights)
    message = "Weights must be finite numbers of at least 0, found {found}."
    if found is None:
        check_range(weights, 0, None, message)
        return
    if found.dtype.kind not in "iufb":
        raise DataError(f"Weights must be numbers, found {found.flat[0]!r:.40}.")
    if found.ndim == 0 or (rows is not None and len(found) != rows):
        length = "a single number" if found.ndim == 0 else f"{len(found)} weights"
        raise DataError(
            f"sample_weight must have one weight for each of the {rows} texts, found {length}."
        )
    check_range(found, 0, None, message)


def _expand_to_rank(weights: Any, rows: Any, rank: int) -> Any:
    """Reshapes (batch, …) to (batch, …, 1, …) of a rank.

    The number of rows is explicit, so that a single weight for a batch is an error instead of being
    broadcast.
    """
    ones = (1,) * (rank - len(weights.shape))
    return ops.reshape(weights, (rows, *ops.shape(weights)[1:], *ones))


def _squeezed(targets: Any, rank: int) -> Any:
    return ops.squeeze(targets, axis=-1) if len(targets.shape) > rank else targets


def _shape_error(weights: Any, targets: Any) -> DataError:
    return DataError(
        "There must be one weight per text, (batch,), or one per target, found weights of shape "
        f"{tuple(weights.shape)} for targets of shape {tuple(targets.shape)}."
    )
