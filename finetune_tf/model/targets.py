"""Validation of targets against the outputs of the model and its loss."""

from typing import Any

import numpy as np
from keras import ops

from finetune_tf.base.values import check_class_numbers, check_range, dtype_of, is_float
from finetune_tf.errors import DataError
from finetune_tf.tasks import IGNORED, Kind, Task
from finetune_tf.training.outputs import fit_of

_NO_SHARES = (
    "Write labels.argmax(axis=-1) if each text has one class; if texts can have several, load the "
    "model with problem_type='multi_label_classification'."
)


def check_type(targets: Any, kind: Kind, loss: Any) -> None:
    """Checks the dtype of targets, which is known even while a step is traced.

    Args:
        targets: The targets of a batch.
        kind: The kind of the model's outputs.
        loss: The loss of the model; for a custom loss, nothing is checked.

    Raises:
        DataError: If targets are texts, or class indices are floats, whose fractions would be
            truncated silently.
    """
    fit = fit_of(loss, kind)
    if fit is not None and dtype_of(targets) == "string":
        raise DataError(
            "Targets must be numbers, found texts in the batches. Convert each label to its index "
            "with model.labels.index(name), or use "
            "ft.data.from_arrays(texts, labels).batches(model)."
        )
    if kind == "classes" and fit is not None and not fit.rows and is_float(targets):
        raise DataError(
            "Class indices must be integers, found floats in the batches. Cast them: "
            "dataset.map(lambda inputs, labels: (inputs, tf.cast(labels, 'int32')))."
        )


def are_shares(targets: Any, outputs: Any, kind: Kind, loss: Any) -> bool:
    """Whether targets are rows with the share of each class, for a loss over class indices.

    Args:
        targets: The targets of a batch or of all rows; None if there are none.
        outputs: The outputs of the model.
        kind: The kind of the outputs.
        loss: The loss of the model.
    """
    fit = fit_of(loss, kind)
    shape = tuple(getattr(targets, "shape", None) or ())
    return (
        kind == "classes"
        and fit is not None
        and not fit.rows
        and len(shape) == len(outputs.shape) == 2
        and shape[-1] == outputs.shape[-1] > 1
        and is_float(targets)
    )


def check_shape(targets: Any, outputs: Any, kind: Kind, loss: Any) -> None:
    """Checks the shape of the targets against that of the outputs.

    Args:
        targets: The targets of a batch or of all rows.
        outputs: The outputs of the model.
        kind: The kind of the outputs.
        loss: The loss of the model; for a custom loss, nothing is checked.

    Raises:
        DataError: If the shapes do not fit together.
    """
    fit = fit_of(loss, kind)
    shape, wanted = getattr(targets, "shape", None), outputs.shape
    if fit is None or shape is None or kind == "vectors":
        return
    if kind in ("pairs", "independent_pairs"):
        if len(shape) != 1:
            raise DataError(
                "The targets of pairs are numbers of groups, of the shape (batch,), but have "
                f"the shape {tuple(shape)}. Use Examples.batches(model), which makes them."
            )
        return
    rank = len(wanted)
    if getattr(shape, "rank", 0) is None:  # TensorFlow has relaxed the shapes of two traces
        raise DataError(
            "The rank of the targets is unknown or differs from that of an earlier call. Use "
            "targets of the same rank, or call model.compile(…) again."
        )
    if kind == "classes":
        rows = len(shape) == rank and shape[-1] not in (None, 1)
        if rows and not fit.rows and not are_shares(targets, outputs, kind, loss):
            raise DataError(
                f"The loss expects class indices, one per text, found rows of {shape[-1]} numbers. "
                f"{_NO_SHARES}"
            )
        if fit.rows and not (len(shape) == rank and shape[-1] in (None, wanted[-1])):
            raise DataError(_rows_expected(shape, wanted[-1]))
        if not fit.rows and len(shape) not in (rank - 1, rank):
            raise DataError(
                f"The loss expects a class index for each output, (batch, …) of rank {rank - 1}, "
                f"found targets of shape {tuple(shape)}."
            )
    elif kind == "several":
        if len(shape) != rank or shape[-1] not in (None, wanted[-1]):
            raise DataError(_rows_expected(shape, wanted[-1]))
    elif len(shape) > rank or (len(shape) == rank and shape[-1] not in (None, 1)):
        raise DataError(
            "The model returns one number per text, so targets must have the shape (batch,), found "
            f"{tuple(shape)}."
        )


def checked_targets(
    targets: Any, kind: Kind, task: Task, loss: Any, outputs: tuple, length: Any
) -> Any:
    """Checks the values of targets and converts class indices to int32.

    Args:
        targets: An array or a tensor; see `values.check_range` for symbolic tensors.
        kind: The kind of the model's outputs.
        task: The task of the model.
        loss: The loss of the model; for a custom loss, nothing is checked.
        outputs: The shape of the model's outputs.
        length: The number of tokens of a row, a number or a tensor; None if it is unknown.

    Returns:
        The targets.

    Raises:
        DataError: If a value is outside of the range that the loss accepts.
    """
    fit = fit_of(loss, kind)
    if fit is None:
        return targets
    if kind == "classes" and not fit.rows:
        shape = targets.shape if hasattr(targets, "shape") else np.shape(targets)
        if len(shape) == len(outputs) and shape[-1] != 1:
            # Rows, which `check_shape` rejects unless they are shares of the classes.
            if is_float(targets):
                check_range(
                    targets, 0, 1, f"Shares of classes are in 0 to 1, found {{found}}. {_NO_SHARES}"
                )
                message = (
                    f"Shares of classes sum to 1, found a row that sums to {{found}}. {_NO_SHARES}"
                )
                check_range(ops.sum(targets, axis=-1), 0.99, 1.01, message)
            return targets
        return _checked_class_indices(targets, task, outputs, length)
    check_range(targets, None, None, "Targets must be finite numbers, found {found}.")
    if kind in ("classes", "several", "yes_no"):
        expected = "between 0 and 1, one for each label" if kind == "several" else "between 0 and 1"
        lowest = -1 if fit.takes == "outputs" else 0  # hinge losses also accept -1 and 1
        message = (
            f"Targets must be numbers {expected}, found {{found}}. This loss does not ignore any "
            "target value: leave out such rows, or give them the weight 0."
        )
        check_range(targets, lowest, 1, message)
    return targets


def _checked_class_indices(targets: Any, task: Task, outputs: tuple, length: Any) -> Any:
    classes = length if task.targets_are_positions else outputs[-1]
    if classes is None:
        return targets
    return check_class_numbers(task.target_title, targets, classes, IGNORED, task.target_advice)


def _rows_expected(shape: tuple, outputs: int | None) -> str:
    return (
        f"The loss expects rows with 0 or 1 for each of the {outputs} labels, found targets of "
        f"shape {tuple(shape)}. Write np.eye({outputs})[labels] to convert class indices."
    )
