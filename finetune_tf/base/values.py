"""Checks of the numbers that enter a model: whole, within their range, finite.

Arrays, and tensors outside of a traced step, are looked at where they stand. Of a symbolic tensor
nothing but the type is known, so inside of `asserting` a traced step of TensorFlow gets assertions,
which fail at the first batch that is wrong, with the same message, before it changes the model.
Steps that XLA compiles go without: it leaves assertions out.
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

# By this the message of an assertion is known; the name of the error's class follows.
_ASSERTED = "finetune_tf asserts"
# Those of the step that is being traced.
_ASSERTIONS: contextvars.ContextVar[list | None] = contextvars.ContextVar(
    "assertions", default=None
)


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


@contextlib.contextmanager
def asserting() -> Iterator[list]:
    """Inside of the block the checks of symbolic tensors are assertions.

    Yields:
        The list of these, for `after`.
    """
    token = _ASSERTIONS.set([])
    try:
        yield _ASSERTIONS.get()
    finally:
        _ASSERTIONS.reset(token)


def after(assertions: list, data: Any) -> Any:
    """A batch that is there once assertions have held, so that a wrong one changes no weight.

    Args:
        assertions: From `asserting`.
        data: Of a step.
    """
    if not assertions:
        return data
    import tensorflow as tf

    with tf.control_dependencies(assertions):
        return keras.tree.map_structure(lambda v: v if v is None else tf.identity(v), data)


def rows_of(value: Any) -> Any:
    """How many rows a part of a batch has: a number, or a tensor that assertions can be made of.

    TensorFlow's optimizer concludes from what a loss does with two tensors that their sizes are
    equal, and takes an assertion that they are for proven. So rows are counted by what they hold.

    Args:
        value: (batch, …).
    """
    kind = dtype_of(value) or ""
    if value.shape[0] is not None or keras.backend.backend() != "tensorflow" or kind == "string":
        return ops.shape(value)[0]
    import tensorflow as tf

    first = value
    while len(first.shape) > 1:
        first = first[:, 0]
    first = tf.cast(first, "float32")
    every = (first >= -np.inf) | tf.math.is_nan(first)  # true, which no optimizer can know
    return tf.reduce_sum(tf.cast(every, "int32"))


def check_range(
    value: Any,
    low: Any,
    high: Any,
    message: str,
    error: type[FinetuneError] = DataError,
    ignored: int | None = None,
) -> None:
    """Checks that numbers are finite and within a range; inside of `asserting` it asserts so.

    Args:
        value: A number, an array or a tensor; a symbolic one passes elsewhere.
        low: The lowest that may be, a tensor too; None for no bound.
        high: The highest that may be, a tensor too; None for no bound.
        message: Of the error; "{found}", "{high}" and "{size}", which is one more, are filled in.
        error: The error's class.
        ignored: A number outside of the range that may be, too.

    Raises:
        FinetuneError: If a number is not; of the class `error`.
    """
    numbers = np.asarray(value) if isinstance(value, int) else concrete(value)
    if numbers is None or any(_is_symbolic(bound) for bound in (low, high)):
        assertions = _ASSERTIONS.get()
        if assertions is not None and keras.backend.backend() == "tensorflow":
            assertions += _assert_range(value, low, high, message, error, ignored)
        return
    if numbers.dtype.kind not in "iufb" or not numbers.size:
        return
    wrong = ~np.isfinite(numbers)
    if low is not None:
        wrong |= numbers < low
    if high is not None:
        wrong |= numbers > high
    if ignored is not None:
        wrong &= numbers != ignored
    if wrong.any():
        raise error(_filled(message, numbers[wrong].flat[0], high))


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
    number = value.dtype
    if ignored is not None:
        # A scalar: TensorFlow takes the shape of zeros_like from what the loss wants later.
        value = tf.where(value == tf.cast(ignored, number), tf.zeros((), number), value)
    lowest, highest = tf.reduce_min(value), tf.reduce_max(value)
    found, right = highest, tf.constant(True)
    if high is not None:
        right = highest <= tf.cast(high, number)
    if low is not None:
        above = lowest >= tf.cast(low, number)
        found, right = tf.where(above, found, lowest), right & above
    if number.is_floating:
        finite = tf.reduce_all(tf.math.is_finite(value))
        # A sum is NaN or infinite if a term is.
        found, right = tf.where(finite, found, tf.reduce_sum(value)), right & finite
    # A batch without rows has the lowest number above the highest one.
    right |= tf.equal(tf.size(value), 0)
    end = tf.constant(0) if high is None else high
    told = [f"{_ASSERTED} {error.__name__}", message, found, end]
    return [tf.raw_ops.Assert(condition=right, data=[tf.convert_to_tensor(v) for v in told])]


def asserted(error: Exception) -> FinetuneError | None:
    """The error that an assertion of `check_range` stands for; None for any other error.

    Args:
        error: Raised by a traced step.
    """
    told = re.search(rf"\[{_ASSERTED} (\w+)\] \[(.*?)\] \[(\S+)\] \[(\S+)\]", str(error), re.DOTALL)
    if told is None:
        return None
    name, message, found, high = told.groups()
    message = re.sub(r"\\(['\"\\])", r"\1", message)  # TensorFlow escapes quotes
    found = float(found) if re.search(r"[.e\D]", found.lstrip("-")) else int(found)
    kind = next(kind for kind in (DataError, ModelError) if kind.__name__ == name)
    return kind(_filled(message, found, int(float(high))))


def _filled(message: str, found: Any, high: Any) -> str:
    shown = f"{found:g}" if isinstance(found, float | np.floating) else str(found)
    return message.format(found=shown, high=high, size=None if high is None else high + 1)


def check_class_numbers(name: str, value: Any, classes: Any, ignored: int, advice: str) -> Any:
    """Checks class numbers, and makes int32 of those that are there already.

    Floats without a fraction are taken, since a column of a table with a gap has such a type.

    Args:
        name: What they are, for the message: "A label".
        value: An array or a tensor; whatever is symbolic is given back.
        classes: How many there are; a tensor too.
        ignored: The number that counts for nothing.
        advice: What to do about a number outside of the classes.

    Returns:
        The numbers as int32.

    Raises:
        DataError: If one of them is no whole number, or outside of the classes.
    """
    numbers = concrete(value)
    if numbers is not None and numbers.dtype.kind not in "iufb":
        found = repr(numbers.flat[0]) if numbers.size else "none"
        raise DataError(f"{name} is a class number from 0 to {classes - 1}, found {found}.")
    if numbers is not None and numbers.dtype.kind == "f":
        wrong = ~np.isfinite(numbers) | (numbers != np.round(numbers))
        if wrong.any():
            raise DataError(
                f"{name} is {numbers[wrong].flat[0]}, but class numbers are whole. Correct the "
                "data; for numbers that are no classes, load the model with one label, which is "
                "a regression."
            )
    message = outside("{found}", "{size}", name, advice)
    check_range(value, 0, classes - 1, message, ignored=ignored)
    return value if numbers is None else numbers.astype("int32")


def outside(number: Any, classes: Any, name: str, advice: str) -> str:
    """The message about a class number that the model has no output for.

    Args:
        number: The class number.
        classes: How many outputs there are.
        name: What it is.
        advice: What to do.
    """
    last = classes - 1 if isinstance(classes, int) else "{high}"
    return (
        f"{name} is {number}, but the model has {classes} outputs, for the class numbers from 0 "
        f"to {last}. {advice}"
    )
