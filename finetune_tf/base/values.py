"""Checks of the values that enter a model: integers, in their range, finite.

Arrays and eager tensors are checked immediately. Only the dtype of a symbolic tensor is known, so
inside `asserting` a traced TensorFlow step gets assertion ops instead. They fail on the first
invalid batch, with the same message, before that batch updates a weight. Steps compiled by XLA
have no such checks, because XLA drops assertion ops.
"""

import contextlib
import contextvars
import re
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from finetune_tf.errors import DataError, FinetuneError, ModelError

# Marks the message of an assertion op as one of ours; the name of the error class follows.
_ASSERTION_MARK = "finetune_tf asserts"
# The assertion ops of the step that is being traced; None outside of `asserting`.
_TRACED_ASSERTIONS: contextvars.ContextVar[list | None] = contextvars.ContextVar(
    "assertions", default=None
)


def dtype_of(value: Any) -> str | None:
    """Returns the name of the dtype, such as "int32"; None if Keras does not know the dtype.

    Args:
        value: An array, a tensor, a symbolic tensor, or a list of numbers.

    Example:
        >>> from finetune_tf.base.values import dtype_of
        >>> dtype_of(np.zeros(3, "float16")), dtype_of([1, 2])
        ('float16', 'int64')
    """
    try:
        dtype = value.dtype if hasattr(value, "dtype") else np.asarray(value).dtype
        return keras.backend.standardize_dtype(dtype)
    except (TypeError, ValueError):
        return None


def concrete(value: Any) -> np.ndarray | None:
    """Returns an array or an eager tensor as an array; None for a symbolic tensor."""
    if isinstance(value, np.ndarray):
        return value
    if keras.utils.is_keras_tensor(value) or not hasattr(value, "shape"):
        return None
    try:
        return np.asarray(value)
    except (NotImplementedError, TypeError, RuntimeError):  # symbolic in TensorFlow, JAX, PyTorch
        return None


def is_float(value: Any) -> bool:
    """Whether an array or tensor has a floating-point dtype."""
    return "float" in (dtype_of(value) or "")


@contextlib.contextmanager
def asserting() -> Iterator[list]:
    """Inside the block, checks of symbolic tensors create assertion ops.

    Yields:
        The list of these ops, for `after`.
    """
    token = _TRACED_ASSERTIONS.set([])
    try:
        yield _TRACED_ASSERTIONS.get()
    finally:
        _TRACED_ASSERTIONS.reset(token)


def after(assertions: list, data: Any) -> Any:
    """Makes the data of a step depend on assertions, so that an invalid batch updates no weight.

    Args:
        assertions: The list that `asserting` yielded.
        data: The nested tensors of a batch.

    Returns:
        The same data, which TensorFlow computes only after the assertions have passed.
    """
    if not assertions:
        return data
    import tensorflow as tf

    with tf.control_dependencies(assertions):
        return keras.tree.map_structure(lambda v: v if v is None else tf.identity(v), data)


def rows_of(value: Any) -> Any:
    """Returns the batch size of a tensor as an int, or as a tensor for use in assertions.

    If a loss combines two tensors, TensorFlow's graph optimizer infers that their sizes are equal,
    and removes an assertion of that as redundant. Therefore the rows are counted by their values
    and not by the shape.

    Args:
        value: An array or tensor (batch, …).
    """
    kind = dtype_of(value) or ""
    if value.shape[0] is not None or keras.backend.backend() != "tensorflow" or kind == "string":
        return ops.shape(value)[0]
    import tensorflow as tf

    first = value
    while len(first.shape) > 1:
        first = first[:, 0]
    first = tf.cast(first, "float32")
    always_true = (first >= -np.inf) | tf.math.is_nan(first)  # the graph optimizer cannot infer it
    return tf.reduce_sum(tf.cast(always_true, "int32"))


def check_range(
    value: Any,
    low: Any,
    high: Any,
    message: str,
    error: type[FinetuneError] = DataError,
    ignored: int | None = None,
) -> None:
    """Checks that all values are finite and in a range.

    Symbolic tensors get an assertion op inside `asserting`, and are not checked elsewhere.

    Args:
        value: A number, an array or a tensor.
        low: The lowest valid value, which may be a tensor; None for no lower bound.
        high: The highest valid value, which may be a tensor; None for no upper bound.
        message: The error message; the placeholders "{found}", "{high}" and "{size}" (`high` + 1)
            are filled in.
        error: The class of the error to raise.
        ignored: A value outside of the range that is valid as well, such as -100.

    Raises:
        FinetuneError: An `error`, if a value is invalid.

    Example:
        >>> from finetune_tf.base.values import check_range
        >>> check_range(np.array([0, 1, -100]), 0, 1, "found {found}", ignored=-100)
        >>> check_range(np.array([0, 2]), 0, 1, "{found} is not in 0 to {high}")
        Traceback (most recent call last):
            ...
        finetune_tf.errors.DataError: 2 is not in 0 to 1
    """
    array = np.asarray(value) if isinstance(value, int) else concrete(value)
    if array is None or any(_is_symbolic(bound) for bound in (low, high)):
        assertions = _TRACED_ASSERTIONS.get()
        if assertions is not None and keras.backend.backend() == "tensorflow":
            assertions += _assert_range(value, low, high, message, error, ignored)
        return
    if array.dtype.kind not in "iufb" or not array.size:
        return
    invalid = ~np.isfinite(array)
    if low is not None:
        invalid |= array < low
    if high is not None:
        invalid |= array > high
    if ignored is not None:
        invalid &= array != ignored
    if invalid.any():
        raise error(_format_message(message, array[invalid].flat[0], high))


def _is_symbolic(bound: Any) -> bool:
    return hasattr(bound, "shape") and concrete(bound) is None


def _assert_range(
    value: Any, low: Any, high: Any, message: str, error: type, ignored: int | None
) -> list:
    import tensorflow as tf

    value = tf.convert_to_tensor(value) if isinstance(value, int) else value
    if not tf.is_tensor(value) or not (value.dtype.is_integer or value.dtype.is_floating):
        return []
    if value.dtype.is_integer:
        value = tf.cast(value, tf.int64)
    dtype = value.dtype
    if ignored is not None:
        # A scalar and not zeros_like, whose shape TensorFlow would infer from the loss.
        value = tf.where(value == tf.cast(ignored, dtype), tf.zeros((), dtype), value)
    lowest, highest = tf.reduce_min(value), tf.reduce_max(value)
    found, is_valid = highest, tf.constant(True)
    if high is not None:
        is_valid = highest <= tf.cast(high, dtype)
    if low is not None:
        is_above = lowest >= tf.cast(low, dtype)
        found, is_valid = tf.where(is_above, found, lowest), is_valid & is_above
    if dtype.is_floating:
        is_finite = tf.reduce_all(tf.math.is_finite(value))
        # If a value is NaN or infinite, so is the sum, which the message then shows.
        found = tf.where(is_finite, found, tf.reduce_sum(value))
        is_valid &= is_finite
    # The minimum of an empty batch is greater than its maximum, but an empty batch is valid.
    is_valid |= tf.equal(tf.size(value), 0)
    limit = tf.constant(0) if high is None else high
    parts = [f"{_ASSERTION_MARK} {error.__name__}", message, found, limit]
    return [tf.raw_ops.Assert(condition=is_valid, data=[tf.convert_to_tensor(v) for v in parts])]


def asserted(error: Exception) -> FinetuneError | None:
    """Converts the failure of an assertion of `check_range` to the error that it represents.

    Args:
        error: An exception raised by a traced step.

    Returns:
        The error to raise; None for any other exception.
    """
    pattern = rf"\[{_ASSERTION_MARK} (\w+)\] \[(.*?)\] \[(\S+)\] \[(\S+)\]"
    match = re.search(pattern, str(error), re.DOTALL)
    if match is None:
        return None
    name, message, found, high = match.groups()
    message = re.sub(r"\\(['\"\\])", r"\1", message)  # TensorFlow escapes quotes
    found = float(found) if re.search(r"[.e\D]", found.lstrip("-")) else int(found)
    kind = next(kind for kind in (DataError, ModelError) if kind.__name__ == name)
    return kind(_format_message(message, found, int(float(high))))


def _format_message(message: str, found: Any, high: Any) -> str:
    shown = f"{found:g}" if isinstance(found, float | np.floating) else str(found)
    return message.format(found=shown, high=high, size=None if high is None else high + 1)


def check_class_numbers(name: str, value: Any, classes: Any, ignored: int, advice: str) -> Any:
    """Checks class indices, and casts those of arrays and eager tensors to int32.

    Floats without a fractional part are accepted, because pandas stores an integer column with
    missing values as floats.

    Args:
        name: What the values are, for the message: "A label".
        value: An array or a tensor.
        classes: The number of classes, which may be a tensor.
        ignored: The index of targets that do not count, such as -100.
        advice: What to do about an index that is out of range, for the message.

    Returns:
        The indices as int32; a symbolic tensor unchanged.

    Raises:
        DataError: If a value is not an integer or is out of range.
    """
    array = concrete(value)
    if array is not None and array.dtype.kind not in "iufb":
        found = repr(array.flat[0]) if array.size else "none"
        raise DataError(f"{name} must be a class number from 0 to {classes - 1}, found {found}.")
    if array is not None and array.dtype.kind == "f":
        invalid = ~np.isfinite(array) | (array != np.round(array))
        if invalid.any():
            raise DataError(
                f"{name} is {array[invalid].flat[0]}, but class numbers must be integers. Correct "
                "the data. If the labels are scores and not classes, load the model with a single "
                "label, which makes it a regression."
            )
    message = outside("{found}", "{size}", name, advice)
    check_range(value, 0, classes - 1, message, ignored=ignored)
    return value if array is None else array.astype("int32")


def outside(number: Any, classes: Any, name: str, advice: str) -> str:
    """Formats the message about a class index for which the model has no output.

    Args:
        number: The class index.
        classes: The number of outputs.
        name: What the value is: "A label".
        advice: What to do about it.
    """
    last = classes - 1 if isinstance(classes, int) else "{high}"
    return (
        f"{name} is {number}, but the model has {classes} outputs, for the class numbers 0 "
        f"to {last}. {advice}"
    )
