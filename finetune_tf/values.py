"""Checks of the numbers that enter a model: whole, within their range, finite.

Only values that are there already are looked at: arrays, and tensors outside of a traced step. Of
a symbolic tensor nothing but the type is known, so there the type is checked.
"""

from typing import Any

import keras
import numpy as np

from finetune_tf.errors import DataError


def dtype_of(value: Any) -> str | None:
    """The name of an array's or tensor's type, such as "int32"; None where it has none of Keras's.

    Args:
        value: An array, a tensor, a symbolic tensor, or a list of numbers.
    """
    try:
        dtype = value.dtype if hasattr(value, "dtype") else np.asarray(value).dtype
        return keras.backend.standardize_dtype(dtype)
    except (TypeError, ValueError):
        return None


def concrete(value: Any) -> np.ndarray | None:
    """The numbers of an array or an eager tensor; None of what has no numbers yet."""
    if isinstance(value, np.ndarray):
        return value
    if keras.utils.is_keras_tensor(value) or not hasattr(value, "shape"):
        return None
    try:
        return np.asarray(value)
    except (NotImplementedError, TypeError, RuntimeError):  # symbolic in TensorFlow, JAX, PyTorch
        return None


def is_float(value: Any) -> bool:
    """Whether an array or tensor has a floating-point type."""
    return "float" in (dtype_of(value) or "")


def range_of(value: Any) -> tuple[float, float] | None:
    """The lowest and the highest number, NaN if there is one; None where there are no numbers."""
    found = concrete(value)
    if found is None or not found.size or found.dtype.kind not in "iufb":
        return None
    return found.min(), found.max()


def check_finite(name: str, value: Any) -> None:
    """Checks that numbers are neither NaN nor infinite.

    Args:
        name: What they are, for the message, in the plural.
        value: An array or a tensor.

    Raises:
        DataError: If one of them is.
    """
    found = range_of(value)
    wrong = [number for number in found or () if not np.isfinite(number)]
    if wrong:
        raise DataError(f"{name} are finite numbers, found {wrong[0]}.")


def check_class_numbers(name: str, value: Any, classes: int, ignored: int, advice: str) -> Any:
    """Checks class numbers, and makes int32 of them.

    Floats without a fraction are taken, since a column of a table with a gap has such a type.

    Args:
        name: What they are, for the message: "A label".
        value: An array or an eager tensor; whatever is symbolic is given back.
        classes: How many there are.
        ignored: The number that counts for nothing.
        advice: What to do about a number outside of the classes.

    Returns:
        The numbers as int32.

    Raises:
        DataError: If one of them is no whole number, or outside of the classes.
    """
    numbers = concrete(value)
    if numbers is None:
        return value
    if numbers.dtype.kind not in "iufb":
        found = repr(numbers.flat[0]) if numbers.size else "none"
        raise DataError(f"{name} is a class number from 0 to {classes - 1}, found {found}.")
    if numbers.dtype.kind == "f":
        wrong = ~np.isfinite(numbers) | (numbers != np.round(numbers))
        if wrong.any():
            raise DataError(
                f"{name} is {numbers[wrong].flat[0]}, but class numbers are whole. Correct the "
                "data; for numbers that are no classes, load the model with one label, which is "
                "a regression."
            )
    wrong = (numbers != ignored) & ((numbers < 0) | (numbers >= classes))
    if wrong.any():
        raise DataError(outside(numbers[wrong].flat[0], classes, name, advice))
    return numbers.astype("int32")


LABELS_ADVICE = (
    "Correct the data, or load the model with as many labels as the data have: ft.load(…, "
    "labels=train.labels)."
)


def outside(number: float, classes: int, name: str = "A label", advice: str = LABELS_ADVICE) -> str:
    """The message about a class number that the model has no output for.

    Args:
        number: The class number.
        classes: How many outputs there are.
        name: What it is.
        advice: What to do.
    """
    return (
        f"{name} is {number:g}, but the model has {classes} outputs, for the class numbers from 0 "
        f"to {classes - 1}. {advice}"
    )
