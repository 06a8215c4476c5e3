"""Targets that fit what the model gives and what its loss takes."""

from typing import Any

import numpy as np

from finetune_tf.base.values import check_class_numbers, check_range, dtype_of, is_float
from finetune_tf.errors import DataError
from finetune_tf.tasks import IGNORED, Kind, Task
from finetune_tf.training.outputs import fit_of


def check_type(targets: Any, kind: Kind, loss: Any) -> None:
    """Checks the type of a batch's targets, once for each trace of a step, which sees no numbers.

    Args:
        targets: Of a batch.
        kind: What the outputs of the model are.
        loss: Of the model; one that somebody wrote is trusted.

    Raises:
        DataError: If class numbers are floats, of which a fraction would be cut off unseen.
    """
    fit = fit_of(loss, kind)
    if fit is not None and dtype_of(targets) == "string":
        raise DataError(
            "Targets are numbers, found texts in the batches. Give the number of each label: "
            "model.labels.index(name), or what ft.data.from_arrays(texts, labels).batches(model) "
            "makes."
        )
    if kind == "classes" and fit is not None and not fit.rows and is_float(targets):
        raise DataError(
            "Class numbers are whole numbers, found floats in the batches. Cast them: "
            "dataset.map(lambda inputs, labels: (inputs, tf.cast(labels, 'int32')))."
        )


def check_shape(targets: Any, outputs: Any, kind: Kind, loss: Any) -> None:
    """Checks that the shape of targets fits that of the outputs.

    A loss that somebody wrote is trusted.

    Args:
        targets: Of a batch, or of all rows.
        outputs: Of the model.
        kind: What the outputs are.
        loss: Of the model.

    Raises:
        DataError: If they do not fit together.
    """
    fit = fit_of(loss, kind)
    shape, wanted = getattr(targets, "shape", None), outputs.shape
    if fit is None or shape is None or kind == "vectors":
        return
    rank = len(wanted)
    if getattr(shape, "rank", 0) is None:  # TensorFlow has joined two traces of a step
        raise DataError(
            "The targets have another number of axes than those of an earlier call, or no one "
            "number of them. Give them all in one shape, or call model.compile(…) again."
        )
    if kind == "classes":
        rows = len(shape) == rank and shape[-1] not in (None, 1)
        if rows and not fit.rows:
            raise DataError(
                f"The loss takes class numbers, one a text, found rows of {shape[-1]} numbers. "
                "Write labels.argmax(axis=-1) if one class each is right; if several may be, load "
                "the model with problem_type='multi_label_classification'."
            )
        if fit.rows and not (len(shape) == rank and shape[-1] in (None, wanted[-1])):
            raise DataError(_wants_rows(shape, wanted[-1]))
        if not fit.rows and len(shape) not in (rank - 1, rank):
            raise DataError(
                f"The loss takes a class number for each output, (batch, …) of rank {rank - 1}, "
                f"found targets of shape {tuple(shape)}."
            )
    elif kind == "several":
        if len(shape) != rank or shape[-1] not in (None, wanted[-1]):
            raise DataError(_wants_rows(shape, wanted[-1]))
    elif len(shape) > rank or (len(shape) == rank and shape[-1] not in (None, 1)):
        raise DataError(
            f"The model gives one number a text, so targets are (batch,), found {tuple(shape)}."
        )


def checked_targets(
    targets: Any, kind: Kind, task: Task, loss: Any, outputs: tuple, length: Any
) -> Any:
    """Targets whose numbers are what the loss takes, class numbers as int32.

    Args:
        targets: An array or a tensor; see `values.check_range` about those of a traced step.
        kind: What the model's outputs are.
        task: Of the model.
        loss: Of the model; one that somebody wrote is trusted.
        outputs: The shape of the model's outputs.
        length: Tokens of a row, a tensor too; None where nobody knows.

    Raises:
        DataError: If a number is none that the loss takes.
    """
    fit = fit_of(loss, kind)
    if fit is None:
        return targets
    if kind == "classes" and not fit.rows:
        shape = targets.shape if hasattr(targets, "shape") else np.shape(targets)
        if len(shape) == len(outputs) and shape[-1] != 1:
            return targets  # rows, which `check_shape` refuses
        return _class_numbers(targets, task, outputs, length)
    check_range(targets, None, None, "Targets are finite numbers, found {found}.")
    if kind in ("classes", "several", "yes_no"):
        what = "0 and 1, one for each label" if kind == "several" else "0 and 1"
        lowest = -1 if fit.takes == "outputs" else 0  # a hinge takes -1 and 1, too
        message = (
            f"Targets are {what}, or shares between, found {{found}}. "
            "No target counts for nothing here: leave such rows out, or give them the weight 0."
        )
        check_range(targets, lowest, 1, message)
    return targets


def _class_numbers(numbers: Any, task: Task, outputs: tuple, length: Any) -> Any:
    classes = length if task.targets_are_positions else outputs[-1]
    if classes is None:
        return numbers
    return check_class_numbers(task.target_title, numbers, classes, IGNORED, task.target_advice)


def _wants_rows(shape: tuple, outputs: int | None) -> str:
    return (
        f"The loss takes a row of 0 and 1 for each of the {outputs} labels, found targets of shape "
        f"{tuple(shape)}. Write np.eye({outputs})[labels] for class numbers."
    )
