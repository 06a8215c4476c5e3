"""Conversions between the tensors of a checkpoint file and the variables of a model.

PyTorch and Keras store the same weights in different layouts. A conversion translates between the
two in both directions: `load` turns the tensors of one row of a weight table into values for its
variables, `save` is its exact inverse, and `shapes` returns the shapes that the tensors must have,
so that a file can be checked by its header before any value is read.

In Keras, the output features are the last axis of every kernel and the only axis of a bias.
Projections are therefore concatenated and split along the last axis, after `KERNEL` where the file
holds a `torch.nn.Linear`: `Chain(KERNEL, Joined((1, 1, 1)))`.
"""

import abc
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Shape = tuple[int, ...]


class Conversion(abc.ABC):
    """An invertible conversion from the tensors of a file to the variables of a model."""

    @abc.abstractmethod
    def load(self, tensors: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Converts tensors to the values of the variables."""

    @abc.abstractmethod
    def save(self, variables: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Converts values of the variables to tensors; the inverse of `load`."""

    @abc.abstractmethod
    def shapes(self, variables: Sequence[Shape]) -> list[Shape]:
        """Returns the shapes of the tensors for variables of the given shapes."""


class Identity(Conversion):
    """The tensor and the variable have the same layout.

    This is the conversion for embedding tables, biases, normalization parameters, the moving
    statistics of batch normalization, and GPT-2's `Conv1D`, whose weight is (in, out) in PyTorch
    as well.
    """

    def load(self, tensors: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Returns the tensors unchanged."""
        return list(tensors)

    def save(self, variables: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Returns the values unchanged."""
        return list(variables)

    def shapes(self, variables: Sequence[Shape]) -> list[Shape]:
        """Returns the shapes unchanged."""
        return list(variables)


class Kernel(Conversion):
    """Kernels of `torch.nn.Linear` and of convolutions with any number of spatial dimensions.

    PyTorch stores (out, in, *window), Keras (*window, in, out): (out, in) becomes (in, out), and
    OIHW becomes HWIO. Both libraries swap `in` and `out` in a transposed convolution, so the same
    conversion applies. In a grouped convolution, `in` is the number of input channels per group.

    Example:
        >>> from finetune_tf.weights.conversions import KERNEL
        >>> KERNEL.shapes([(3, 3, 16, 32)])  # the shape in PyTorch of a Keras Conv2D kernel
        [(32, 16, 3, 3)]
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
    """Kernels of depthwise convolutions, which have as many groups as input channels.

    PyTorch stores (channels x multiplier, 1, *window), Keras (*window, channels, multiplier).

    Attributes:
        multiplier: Output channels per input channel, Keras's `depth_multiplier`.
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
    """The tensor has a leading axis of size 1 that the variable lacks: BART's final_logits_bias."""

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
class AddedAxes(Conversion):
    """The variable has leading axes of size 1 that the tensor lacks: CLIP's tables of positions.

    Attributes:
        count: The number of these axes.
    """

    count: int

    def load(self, tensors: Sequence[np.ndarray]) -> list[np.ndarray]:
        """(*shape) to (1, …, 1, *shape)."""
        return [tensor.reshape((1,) * self.count + tensor.shape) for tensor in tensors]

    def save(self, variables: Sequence[np.ndarray]) -> list[np.ndarray]:
        """(1, …, 1, *shape) to (*shape)."""
        return [value.reshape(value.shape[self.count :]) for value in variables]

    def shapes(self, variables: Sequence[Shape]) -> list[Shape]:
        """(1, …, 1, *shape) to (*shape)."""
        return [tuple(shape[self.count :]) for shape in variables]


@dataclass(frozen=True)
class Joined(Conversion):
    """Several tensors are concatenated along the last axis to one variable.

    Attributes:
        shares: Relative sizes of the tensors along the last axis: (1, 1, 1) for query, key and
            value of equal size, (heads, key_value_heads, key_value_heads) for grouped-query
            attention.

    Example:
        >>> from finetune_tf.weights.conversions import Joined
        >>> Joined((1, 1, 1)).shapes([(768, 2304)])  # a fused query, key and value projection
        [(768, 768), (768, 768), (768, 768)]
    """

    shares: tuple[int, ...]

    def load(self, tensors: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Concatenates several (…, n_i) to one (…, sum of n_i)."""
        return [np.concatenate(tensors, axis=-1)]

    def save(self, variables: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Splits one (…, sum of n_i) into several (…, n_i)."""
        return _split_last_axis(variables[0], self.shares)

    def shapes(self, variables: Sequence[Shape]) -> list[Shape]:
        """Splits one (…, sum of n_i) into several (…, n_i)."""
        *rest, size = variables[0]
        return [(*rest, size * share // sum(self.shares)) for share in self.shares]


@dataclass(frozen=True)
class Split(Conversion):
    """One tensor is split along the last axis into several variables; the inverse of `Joined`.

    Attributes:
        shares: Relative sizes of the variables along the last axis.
    """

    shares: tuple[int, ...]

    def load(self, tensors: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Splits one (…, sum of n_i) into several (…, n_i)."""
        return _split_last_axis(tensors[0], self.shares)

    def save(self, variables: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Concatenates several (…, n_i) to one (…, sum of n_i)."""
        return [np.concatenate(variables, axis=-1)]

    def shapes(self, variables: Sequence[Shape]) -> list[Shape]:
        """Concatenates several (…, n_i) to one (…, sum of n_i)."""
        return [(*variables[0][:-1], sum(shape[-1] for shape in variables))]


def _split_last_axis(array: np.ndarray, shares: tuple[int, ...]) -> list[np.ndarray]:
    """Splits an array along its last axis, in proportion to the shares."""
    ends = np.cumsum(shares) * array.shape[-1] // sum(shares)
    return np.split(array, ends[:-1], axis=-1)


@dataclass(frozen=True)
class Interleaved(Conversion):
    """A fused projection that is ordered by head in the file, and by part in the variable.

    The last axis of the tensor is (heads, parts, head_size): query, key and value of the first
    head, then those of the second one, as in GPT-NeoX and BLOOM. The last axis of the variable is
    (parts, heads, head_size): the queries of all heads, then all keys, then all values.

    Attributes:
        heads: Number of attention heads.
        parts: Number of fused projections: 3 for query, key and value.
    """

    heads: int
    parts: int = 3

    def load(self, tensors: Sequence[np.ndarray]) -> list[np.ndarray]:
        """(…, heads x parts x head_size) to (…, parts x heads x head_size)."""
        return [_swap_outer_axes(tensor, self.heads, self.parts) for tensor in tensors]

    def save(self, variables: Sequence[np.ndarray]) -> list[np.ndarray]:
        """(…, parts x heads x head_size) to (…, heads x parts x head_size)."""
        return [_swap_outer_axes(value, self.parts, self.heads) for value in variables]

    def shapes(self, variables: Sequence[Shape]) -> list[Shape]:
        """Returns the shapes unchanged."""
        return list(variables)


def _swap_outer_axes(array: np.ndarray, outer: int, inner: int) -> np.ndarray:
    """(…, outer x inner x size) to (…, inner x outer x size)."""
    unfused = array.reshape(*array.shape[:-1], outer, inner, -1)
    return unfused.swapaxes(-3, -2).reshape(array.shape)


class Chain(Conversion):
    """A composition of conversions.

    Args:
        *steps: The conversions, in the order in which `load` applies them.
    """

    def __init__(self, *steps: Conversion) -> None:
        self.steps = steps

    def load(self, tensors: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Applies all steps, first to last."""
        for step in self.steps:
            tensors = step.load(tensors)
        return list(tensors)

    def save(self, variables: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Applies all steps, last to first."""
        for step in reversed(self.steps):
            variables = step.save(variables)
        return list(variables)

    def shapes(self, variables: Sequence[Shape]) -> list[Shape]:
        """Applies all steps, last to first."""
        for step in reversed(self.steps):
            variables = step.shapes(variables)
        return list(variables)


class Constant(Conversion):
    """A tensor without a variable: loading ignores it, and saving writes a fixed value.

    PyTorch's batch normalization counts its batches in `num_batches_tracked`. Keras does not use
    that count, but transformers reports it as missing if a file lacks it.

    Args:
        value: The value to write, in its own dtype.
    """

    def __init__(self, value: np.ndarray | np.generic) -> None:
        self.value = np.asarray(value)

    def load(self, tensors: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Returns an empty list, since there is no variable."""
        return []

    def save(self, variables: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Returns the fixed value."""
        return [self.value]

    def shapes(self, variables: Sequence[Shape]) -> list[Shape]:
        """Returns the shape of the fixed value."""
        return [self.value.shape]


IDENTITY = Identity()
KERNEL = Kernel()
