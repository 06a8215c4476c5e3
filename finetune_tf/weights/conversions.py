"""Conversions between the tensors of a checkpoint file and the variables of a model.

PyTorch and Keras hold the same numbers in different arrangements. A conversion says how one is made
of the other, in both directions: `load` turns the tensors of one row of a weight table into values
for its variables, `save` is its exact inverse, and `shapes` says which shapes the tensors have to
have, so that files are checked by their headers before any value is read.

In Keras's arrangement, outputs are the last axis of every kernel and the only axis of a bias.
Projections are therefore joined and split along the last axis, after `KERNEL` where the file holds
a `torch.nn.Linear`: `Chain(KERNEL, Joined((1, 1, 1)))`.
"""

import abc
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Shape = tuple[int, ...]


class Conversion(abc.ABC):
    """An invertible conversion of the tensors of a file to the variables of a model."""

    @abc.abstractmethod
    def load(self, tensors: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The values of the variables, made of the tensors."""

    @abc.abstractmethod
    def save(self, variables: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The tensors, made of the values of the variables; the inverse of `load`."""

    @abc.abstractmethod
    def shapes(self, variables: Sequence[Shape]) -> list[Shape]:
        """The shapes of the tensors, for variables of these shapes."""


class Identity(Conversion):
    """The file holds what the variable holds.

    This is right for embedding tables, biases, normalisation parameters, the statistics of a batch
    normalisation, and for GPT-2's `Conv1D`, whose weight is (in, out) in PyTorch, too.
    """

    def load(self, tensors: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Unchanged."""
        return list(tensors)

    def save(self, variables: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Unchanged."""
        return list(variables)

    def shapes(self, variables: Sequence[Shape]) -> list[Shape]:
        """Unchanged."""
        return list(variables)


class Kernel(Conversion):
    """Kernels of `torch.nn.Linear` and of the convolutions of any number of dimensions.

    PyTorch has (out, in, *window), Keras (*window, in, out): (out, in) becomes (in, out), and OIHW
    becomes HWIO. In a transposed convolution both name the first two axes the other way round, so
    the same conversion holds. So it does with groups, where `in` is the number of a group.
    """

    def load(self, tensors: Sequence[np.ndarray]) -> list[np.ndarray]:
        """(out, in, *window) to (*window, in, out)."""
        return [tensor.transpose(*range(2, tensor.ndim), 1, 0) for tensor in tensors]

    def save(self, variables: Sequence[np.ndarray]) -> list[np.ndarray]:
        """(*window, in, out) to (out, in, *window)."""
        return [value.transpose(-1, -2, *range(value.ndim - 2)) for value in variables]

    def shapes(self, variables: Sequence[Shape]) -> list[Shape]:
        """(*window, in, out) to (out, in, *window)."""
        return [(shape[-1], shape[-2], *shape[:-2]) for shape in variables]


@dataclass(frozen=True)
class DepthwiseKernel(Conversion):
    """A convolution with as many groups as channels, for Keras's depthwise layers.

    PyTorch has (channels x multiplier, 1, *window), Keras (*window, channels, multiplier).

    Attributes:
        multiplier: Outputs of each channel.
    """

    multiplier: int = 1

    def load(self, tensors: Sequence[np.ndarray]) -> list[np.ndarray]:
        """(channels x multiplier, 1, *window) to (*window, channels, multiplier)."""
        return [
            tensor.reshape(-1, self.multiplier, *tensor.shape[2:]).transpose(
                *range(2, tensor.ndim), 0, 1
            )
            for tensor in tensors
        ]

    def save(self, variables: Sequence[np.ndarray]) -> list[np.ndarray]:
        """(*window, channels, multiplier) to (channels x multiplier, 1, *window)."""
        return [
            value.transpose(-2, -1, *range(value.ndim - 2)).reshape(-1, 1, *value.shape[:-2])
            for value in variables
        ]

    def shapes(self, variables: Sequence[Shape]) -> list[Shape]:
        """(*window, channels, multiplier) to (channels x multiplier, 1, *window)."""
        return [(shape[-2] * shape[-1], 1, *shape[:-2]) for shape in variables]


class LeadingAxis(Conversion):
    """The file has a first axis of size 1 that the variable has not: BART's final_logits_bias."""

    def load(self, tensors: Sequence[np.ndarray]) -> list[np.ndarray]:
        """(1, *shape) to (*shape)."""
        return [tensor[0] for tensor in tensors]

    def save(self, variables: Sequence[np.ndarray]) -> list[np.ndarray]:
        """(*shape) to (1, *shape)."""
        return [value[None] for value in variables]

    def shapes(self, variables: Sequence[Shape]) -> list[Shape]:
        """(*shape) to (1, *shape)."""
        return [(1, *shape) for shape in variables]


@dataclass(frozen=True)
class Joined(Conversion):
    """Several tensors are one variable, one behind the other along the last axis.

    Attributes:
        shares: How the last axis is divided among the tensors, in proportion: (1, 1, 1) for query,
            key and value of one size, (heads, key_value_heads, key_value_heads) for grouped heads.
    """

    shares: tuple[int, ...]

    def load(self, tensors: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Several (…, n_i) to one (…, sum of n_i)."""
        return [np.concatenate(tensors, axis=-1)]

    def save(self, variables: Sequence[np.ndarray]) -> list[np.ndarray]:
        """One (…, sum of n_i) to several (…, n_i)."""
        return _divided(variables[0], self.shares)

    def shapes(self, variables: Sequence[Shape]) -> list[Shape]:
        """One (…, sum of n_i) to several (…, n_i)."""
        *rest, size = variables[0]
        return [(*rest, size * share // sum(self.shares)) for share in self.shares]


@dataclass(frozen=True)
class Split(Conversion):
    """One tensor is several variables; the inverse of `Joined`.

    Attributes:
        shares: How the last axis is divided among the variables, in proportion.
    """

    shares: tuple[int, ...]

    def load(self, tensors: Sequence[np.ndarray]) -> list[np.ndarray]:
        """One (…, sum of n_i) to several (…, n_i)."""
        return _divided(tensors[0], self.shares)

    def save(self, variables: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Several (…, n_i) to one (…, sum of n_i)."""
        return [np.concatenate(variables, axis=-1)]

    def shapes(self, variables: Sequence[Shape]) -> list[Shape]:
        """Several (…, n_i) to one (…, sum of n_i)."""
        return [(*variables[0][:-1], sum(shape[-1] for shape in variables))]


def _divided(array: np.ndarray, shares: tuple[int, ...]) -> list[np.ndarray]:
    """Parts of an array along its last axis, in proportion to their shares."""
    ends = np.cumsum(shares) * array.shape[-1] // sum(shares)
    return np.split(array, ends[:-1], axis=-1)


@dataclass(frozen=True)
class Interleaved(Conversion):
    """A fused projection that the file has head by head, and the variable part by part.

    The last axis of the file's is (heads, parts, head_size): query, key and value of the first
    head, then those of the second one, as GPT-NeoX and BLOOM have them. The variable's is (parts,
    heads, head_size): the queries of all heads, then all keys, then all values.

    Attributes:
        heads: Number of heads.
        parts: What is fused: 3 for query, key and value.
    """

    heads: int
    parts: int = 3

    def load(self, tensors: Sequence[np.ndarray]) -> list[np.ndarray]:
        """(…, heads x parts x head_size) to (…, parts x heads x head_size)."""
        return [_swapped(tensor, self.heads, self.parts) for tensor in tensors]

    def save(self, variables: Sequence[np.ndarray]) -> list[np.ndarray]:
        """(…, parts x heads x head_size) to (…, heads x parts x head_size)."""
        return [_swapped(value, self.parts, self.heads) for value in variables]

    def shapes(self, variables: Sequence[Shape]) -> list[Shape]:
        """Unchanged."""
        return list(variables)


def _swapped(array: np.ndarray, outer: int, inner: int) -> np.ndarray:
    """(…, outer x inner x size) to (…, inner x outer x size)."""
    apart = array.reshape(*array.shape[:-1], outer, inner, -1)
    return apart.swapaxes(-3, -2).reshape(array.shape)


class Chain(Conversion):
    """Several conversions, in the order in which they turn tensors into variables.

    Args:
        *steps: The conversions.
    """

    def __init__(self, *steps: Conversion) -> None:
        self.steps = steps

    def load(self, tensors: Sequence[np.ndarray]) -> list[np.ndarray]:
        """All steps, the first one first."""
        for step in self.steps:
            tensors = step.load(tensors)
        return list(tensors)

    def save(self, variables: Sequence[np.ndarray]) -> list[np.ndarray]:
        """All steps, the last one first."""
        for step in reversed(self.steps):
            variables = step.save(variables)
        return list(variables)

    def shapes(self, variables: Sequence[Shape]) -> list[Shape]:
        """All steps, the last one first."""
        for step in reversed(self.steps):
            variables = step.shapes(variables)
        return list(variables)


class Constant(Conversion):
    """A tensor that no variable stands for: not read, and written as a fixed value.

    PyTorch's batch normalisations count their batches in `num_batches_tracked`, which nothing here
    uses, and which transformers reports as missing where a file lacks it.

    Args:
        value: What is written, in its own type.
    """

    def __init__(self, value: np.ndarray | np.generic) -> None:
        self.value = np.asarray(value)

    def load(self, tensors: Sequence[np.ndarray]) -> list[np.ndarray]:
        """No variable."""
        return []

    def save(self, variables: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The value."""
        return [self.value]

    def shapes(self, variables: Sequence[Shape]) -> list[Shape]:
        """The shape of the value."""
        return [self.value.shape]


IDENTITY = Identity()
KERNEL = Kernel()
