"""Tensors of a checkpoint: what is known of them before they are read, and what they may hold."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from finetune_tf.errors import CheckpointError

#: Types of numbers that weights may be stored in.
FLOATS = ("float64", "float32", "float16", "bfloat16")
#: Types of numbers that weights are written in.
WRITTEN_FLOATS = ("float32", "float16", "bfloat16")


@dataclass(frozen=True)
class LazyTensor:
    """A tensor that knows its shape and type, and is read when asked for its values.

    Attributes:
        name: As the file has it.
        shape: As PyTorch stores it: Linear weights are (out, in).
        dtype: As NumPy calls it, such as "float32"; or as the file does, if NumPy has no such type.
        file: Where it lies.
        load: Gives the array.
        trained: False for what a load drew at random, as the file that was saved since says.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    file: Path
    load: Callable[[], np.ndarray]
    trained: bool = True

    def __str__(self) -> str:
        """The tensor in messages."""
        return f"{self.name} in {self.file}"

    def read(self) -> np.ndarray:
        """The values as they are stored.

        Raises:
            CheckpointError: If the file is damaged there.
        """
        try:
            return self.load()
        except Exception as error:  # of three libraries, which have no class in common
            raise CheckpointError(
                f"The tensor {self} cannot be read ({error or type(error).__name__}): the file is "
                "damaged or was changed. Get it again."
            ) from None

    def require_floats(self) -> None:
        """Refuses a tensor of other numbers than floats.

        Raises:
            CheckpointError: If it holds integers, as quantized checkpoints do, or anything else.
        """
        if self.dtype not in FLOATS:
            raise CheckpointError(
                f"The tensor {self} holds values of the type {self.dtype}. Weights have to be "
                f"{', '.join(FLOATS)}; other types are those of a quantized checkpoint, whose "
                "numbers mean nothing by themselves. Get the checkpoint that is not quantized."
            )

    def equals(self, other: "LazyTensor") -> bool:
        """Whether another tensor has the same shape and values; reads both."""
        if self.shape != other.shape:
            return False
        return np.array_equal(self.read(), other.read())


Tensors = dict[str, LazyTensor]


def common_dtype(tensors: Iterable[LazyTensor]) -> str:
    """The type of numbers that a model made of these tensors is saved in.

    Returns:
        The one type that all of them have; float32 where they differ, are float64, or none is
        there.
    """
    (dtype, *others) = {tensor.dtype for tensor in tensors} or {"float32"}
    return "float32" if others or dtype not in WRITTEN_FLOATS else dtype


def by_name(named: Iterable[tuple[str, LazyTensor]]) -> Tensors:
    """Tensors by the name that they mean; copies of a tensor under one name count once.

    Raises:
        CheckpointError: If two tensors of different values mean the same name.
    """
    found: Tensors = {}
    for name, tensor in named:
        require_equal(found.setdefault(name, tensor), tensor, name)
    return found


def require_equal(first: LazyTensor, second: LazyTensor, meaning: str) -> None:
    """Refuses two tensors that mean the same weights and hold different values.

    Args:
        first: One of them.
        second: The other; nothing is read if it is the same object.
        meaning: What both of them stand for.

    Raises:
        CheckpointError: If their shapes or values differ.
    """
    if first is not second and not first.equals(second):
        refuse_contradiction(first, second, meaning)


def refuse_contradiction(first: object, second: object, meaning: str) -> NoReturn:
    """Raises the error for tensors that mean the same weights and hold different values.

    Args:
        first: A tensor or several, as a message names them.
        second: As `first`.
        meaning: What both of them stand for.
    """
    raise CheckpointError(
        f"The tensors {first} and {second} both stand for {meaning}, but hold different "
        "values, so that one of them is wrong. Remove it from the file, or get the checkpoint "
        "again."
    )


def is_finite(array: np.ndarray) -> bool:
    """Whether an array of floats has neither NaN nor infinity."""
    # The sum of whatever has NaN or infinity in it is no finite number, and takes no memory.
    with np.errstate(all="ignore"):
        return bool(np.isfinite(array.sum())) or bool(np.isfinite(array).all())
