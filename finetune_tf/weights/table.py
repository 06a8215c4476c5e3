"""Weight tables: which tensors of a checkpoint are which variables of a model.

A table is a list of `Weight` rows and serves both directions. Its tensor names are those of
the bare PyTorch model; the prefix that task models put before them ("bert.") is taken off on
the way in and put on again on the way out. Where a variable has several rows, its tensor has gone
by several names, or is stored twice because it is tied: the first row is the one that is written,
and copies that a file holds under the others have to be equal to it.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from finetune_tf.weights.conversions import IDENTITY, KERNEL, Conversion
from finetune_tf.weights.tensors import Tensors


@dataclass(frozen=True)
class Weight:
    """One row of a table: which tensors are which variables, and how they are converted.

    Most rows have one tensor and one variable, given as plain texts. A projection that is fused on
    one side alone has three on the other.

    Attributes:
        tensors: Names in PyTorch.
        variables: Paths of Keras variables, of which a model has all or none; none for a tensor
            that no variable stands for: it is dropped, or written as a `Constant`.
        conversion: How tensors become values of the variables, and back.
        tied_to: Path of a variable that a tensor without one has to be equal to, if there is one.
    """

    tensors: str | tuple[str, ...]
    variables: str | tuple[str, ...] | None
    conversion: Conversion = IDENTITY
    tied_to: str | None = None

    def __post_init__(self) -> None:
        for field in ("tensors", "variables"):
            names = getattr(self, field) or ()
            object.__setattr__(self, field, (names,) if isinstance(names, str) else tuple(names))

    @property
    def meant(self) -> tuple[str, ...]:
        """Paths of the variables whose values the tensors hold."""
        return self.variables or ((self.tied_to,) if self.tied_to else ())

    def belongs_to(self, layers: Collection[str]) -> bool:
        """Whether it has variables of one of these layers."""
        return any(path.partition("/")[0] in layers for path in self.variables)

    def is_in(self, tensors: Tensors) -> bool:
        """Whether a file has all of its tensors."""
        return all(name in tensors for name in self.tensors)


def linear(module: str, layer: str) -> list[Weight]:
    """Rows of a `torch.nn.Linear` that is a Keras Dense layer here, with or without a bias.

    Convolutions of PyTorch and Keras have the same rows.
    """
    return [
        Weight(f"{module}.weight", f"{layer}/kernel", KERNEL),
        Weight(f"{module}.bias", f"{layer}/bias"),
    ]


def norm(module: str, layer: str) -> list[Weight]:
    """Rows of a `torch.nn.LayerNorm`."""
    return [Weight(f"{module}.weight", f"{layer}/gamma"), Weight(f"{module}.bias", f"{layer}/beta")]


def embedding(module: str, layer: str) -> list[Weight]:
    """The row of a `torch.nn.Embedding`."""
    return [Weight(f"{module}.weight", f"{layer}/embeddings")]


def block(module: str, layer: str, parts: Mapping[str, str]) -> list[Weight]:
    """Rows of a block.

    Args:
        module: Of the block in PyTorch.
        layer: Of the block here.
        parts: Layer inside the block to module inside the block. A layer whose name ends in
            "norm" is a LayerNorm, every other one a Linear.
    """
    return [
        row
        for ours, theirs in parts.items()
        for row in (norm if ours.endswith("norm") else linear)(
            f"{module}.{theirs}", f"{layer}/{ours}"
        )
    ]


def without(table: Iterable[Weight], module: str) -> list[Weight]:
    """A table without the rows whose tensors belong to a module of PyTorch's."""
    return [row for row in table if not row.tensors[0].startswith(f"{module}.")]


def prefixed(table: Iterable[Weight], prefix: str) -> list[Weight]:
    """A table with the name of a module before the names of all tensors."""
    return [
        replace(row, tensors=tuple(f"{prefix}.{name}" for name in row.tensors)) for row in table
    ]
