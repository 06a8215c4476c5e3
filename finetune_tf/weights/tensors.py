"""Lazily read tensors of a checkpoint, and checks of their dtypes and values."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from finetune_tf.errors import CheckpointError

#: Dtypes that stored weights may have.
FLOATS = ("float64", "float32", "float16", "bfloat16")
#: Dtypes that weights can be written in.
WRITTEN_FLOATS = ("float32", "float16", "bfloat16")


@dataclass(frozen=True)
class LazyTensor:
    """A tensor of known shape and dtype, whose values are read on demand.

    Attributes:
        name: Its name in the file.
        shape: Its shape in PyTorch: Linear weights are (out, in).
        dtype: NumPy's name of the dtype, such as "float32"; the file's own name of it if NumPy has
            no such dtype.
        file: The file that contains it.
        load: Reads the array.
        trained: False if the file marks it as untrained: it was initialized at random and saved
            before any training.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    file: Path
    load: Callable[[], np.ndarray]
    trained: bool = True

    def __str__(self) -> str:
        """Formats the tensor for messages."""
        return f"{self.name} in {self.file}"

    def read(self) -> np.ndarray:
        """Reads the values in the dtype of the file.

        Raises:
            CheckpointError: If the file is damaged.
        """
        try:
            return self.load()
        except Exception as error:  # three libraries without a common base class
            raise CheckpointError(
                f"The tensor {self} cannot be read ({error or type(error).__name__}): the file is "
                "damaged or was modified. Download it again."
            ) from None

    def require_floats(self) -> None:
        """Checks that the tensor contains floats.

        Raises:
            CheckpointError: If it has another dtype, such as int8 in a quantized checkpoint.
        """
        if self.dtype not in FLOATS:
            raise CheckpointError(
                f"The tensor {self} has the dtype {self.dtype}, but weights have to be one of "
                f"{', '.join(FLOATS)}. Other dtypes are typical of quantized checkpoints, which "
                "are not supported: use the checkpoint that is not quantized."
            )

    def equals(self, other: "LazyTensor") -> bool:
        """Returns whether another tensor has the same shape and values; reads both."""
        if self.shape != other.shape:
            return False
        return np.array_equal(self.read(), other.read())


Tensors = dict[str, LazyTensor]


def common_dtype(tensors: Iterable[LazyTensor]) -> str:
    """Returns the dtype in which a model loaded from these tensors is saved by default.

    Returns:
        The dtype that all of them have; "float32" if they differ, are float64, or there are none.
    """
    (dtype, *others) = {tensor.dtype for tensor in tensors} or {"float32"}
    return "float32" if others or dtype not in WRITTEN_FLOATS else dtype


def by_name(named: Iterable[tuple[str, LazyTensor]]) -> Tensors:
    """Builds a dict from names to tensors; equal tensors of one name are merged.

    Raises:
        CheckpointError: If two tensors of one name have different values.
    """
    found: Tensors = {}
    for name, tensor in named:
        require_equal(found.setdefault(name, tensor), tensor, name)
    return found


def require_equal(first: LazyTensor, second: LazyTensor, meaning: str) -> None:
    """Checks that two tensors for the same weights are equal.

    Args:
        first: One tensor.
        second: The other one; nothing is read if both are the same object.
        meaning: Name of the weights, for the error message.

    Raises:
        CheckpointError: If their shapes or values differ.
    """
    if first is not second and not first.equals(second):
        refuse_contradiction(first, second, meaning)


def refuse_contradiction(first: object, second: object, meaning: str) -> NoReturn:
    """Raises the error for tensors of the same weights with different values.

    Args:
        first: One or several tensors, whose `str` names them in the message.
        second: As `first`.
        meaning: Name of the weights.

    Raises:
        CheckpointError: Always.
    """
    raise CheckpointError(
        f"The tensors {first} and {second} both store {meaning}, but have different values, so "
        "one of them is wrong. Remove that one from the file, or download the checkpoint again."
    )


def is_finite(array: np.ndarray) -> bool:
    """Returns whether an array of floats contains neither NaN nor infinity."""
    # The sum is not finite if any value is not, and computing it allocates no array. A sum of
    # finite values may overflow, so that the values are checked one by one in that case.
    with np.errstate(all="ignore"):
        return bool(np.isfinite(array.sum())) or bool(np.isfinite(array).all())
