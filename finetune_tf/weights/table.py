"""Weight tables: mappings between the tensors of a checkpoint and the variables of a model.

A table is a list of `Weight` rows and is used for loading and for saving. Its tensor names are
those of the bare PyTorch model; the prefix of task models ("bert.") is removed when loading and
added again when saving. A variable may have several rows: its tensor had several names over the
years, or is stored twice because it is tied. The first row is the one that is written; copies that
a file contains under the other names have to be equal to it.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from finetune_tf.weights.conversions import IDENTITY, KERNEL, Conversion
from finetune_tf.weights.tensors import Tensors


@dataclass(frozen=True)
class Weight:
    """One row of a weight table: tensors, the variables that they fill, and the conversion.

    Most rows map one tensor to one variable, each given as a string. A projection that is fused on
    one side only is one tensor and three variables, or three tensors and one variable.

    Attributes:
        tensors: Names of the tensors in PyTorch.
        variables: Paths of Keras variables, of which a model has all or none. None for a tensor
            without a variable: it is ignored when loading; saving omits it, or writes a `Constant`.
        conversion: Converts tensors to values of the variables, and back.
        tied_to: For a tensor without a variable: path of the variable that it must be equal to.
        optional: Whether a file may lack the tensors because the variable starts with the right
            values, as a table of sinusoidal positions does.

    Example:
        >>> from finetune_tf.weights.table import Weight
        >>> Weight("pooler.dense.bias", "pooler/dense/bias").tensors
        ('pooler.dense.bias',)
    """

    tensors: str | tuple[str, ...]
    variables: str | tuple[str, ...] | None
    conversion: Conversion = IDENTITY
    tied_to: str | None = None
    optional: bool = False

    def __post_init__(self) -> None:
        for field in ("tensors", "variables"):
            names = getattr(self, field) or ()
            object.__setattr__(self, field, (names,) if isinstance(names, str) else tuple(names))

    @property
    def stored_variables(self) -> tuple[str, ...]:
        """Paths of the variables whose values the tensors contain, tied ones included."""
        return self.variables or ((self.tied_to,) if self.tied_to else ())

    def belongs_to(self, layers: Collection[str]) -> bool:
        """Returns whether the row has variables of one of these layers."""
        return any(path.partition("/")[0] in layers for path in self.variables)

    def is_in(self, tensors: Tensors) -> bool:
        """Returns whether all tensors of the row are present."""
        return all(name in tensors for name in self.tensors)


def linear(module: str, layer: str) -> list[Weight]:
    """Returns the rows that map a `torch.nn.Linear` to a Keras Dense layer.

    A layer without a bias simply does not use the second row. Convolutions have the same rows.
    """
    return [
        Weight(f"{module}.weight", f"{layer}/kernel", KERNEL),
        Weight(f"{module}.bias", f"{layer}/bias"),
    ]


def norm(module: str, layer: str) -> list[Weight]:
    """Returns the rows of a `torch.nn.LayerNorm`."""
    return [Weight(f"{module}.weight", f"{layer}/gamma"), Weight(f"{module}.bias", f"{layer}/beta")]


def embedding(module: str, layer: str) -> list[Weight]:
    """Returns the row of a `torch.nn.Embedding`."""
    return [Weight(f"{module}.weight", f"{layer}/embeddings")]


def block(module: str, layer: str, parts: Mapping[str, str]) -> list[Weight]:
    """Returns the rows of a transformer block.

    Args:
        module: Name of the block in PyTorch.
        layer: Name of the block in Keras.
        parts: Maps layers inside the Keras block to modules inside the PyTorch block. A layer whose
            name ends in "norm" is a LayerNorm, every other one a Linear.
    """
    return [
        row
        for ours, theirs in parts.items()
        for row in (norm if ours.endswith("norm") else linear)(
            f"{module}.{theirs}", f"{layer}/{ours}"
        )
    ]


def without(table: Iterable[Weight], module: str) -> list[Weight]:
    """Returns a table without the rows of one PyTorch module."""
    return [row for row in table if not row.tensors[0].startswith(f"{module}.")]


def prefixed(table: Iterable[Weight], prefix: str) -> list[Weight]:
    """Returns a table whose tensor names have a prefix: "dense.bias" becomes "bert.dense.bias".

    With the empty prefix, the names remain the same.
    """
    if not prefix:
        return list(table)
    return [
        replace(row, tensors=tuple(f"{prefix}.{name}" for name in row.tensors)) for row in table
    ]
