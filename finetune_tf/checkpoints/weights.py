"""Weight tables: which tensor of a checkpoint is which variable of a model.

A table is a list of `Weight` rows and serves both directions. Its tensor names are those of
the bare PyTorch model; the prefix that task models put before them ("bert.") is taken off on
the way in and put on again on the way out. Where a variable has several rows, its tensor has gone
by several names, or is stored twice because it is tied: the first name is the one that is written.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import keras
import numpy as np

from finetune_tf.checkpoints.tensors import Tensors
from finetune_tf.errors import CheckpointError


@dataclass(frozen=True)
class Weight:
    """One row of a table.

    Attributes:
        tensor: Name in PyTorch.
        variable: Path of the Keras variable, or None for a tensor that is dropped on purpose.
        transposed: Whether the two store the axes in opposite order.
    """

    tensor: str
    variable: str | None
    transposed: bool = False


def linear(module: str, layer: str) -> list[Weight]:
    """Rows of a `torch.nn.Linear` that is a Keras Dense layer here, with or without a bias."""
    return [
        Weight(f"{module}.weight", f"{layer}/kernel", transposed=True),
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


@dataclass(frozen=True)
class LoadReport:
    """What a load did, name by name.

    Attributes:
        filled: Paths of variables that got a tensor.
        new: Paths of variables that no tensor was found for.
        unused: Names of tensors that no variable took.
    """

    filled: tuple[str, ...]
    new: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        """One line for people."""
        parts = [f"{len(self.filled)} of {len(self.filled) + len(self.new)} variables filled"]
        if self.new:
            parts.append(f"new: {', '.join(_modules(self.new, '/'))}")
        if self.unused:
            parts.append(f"unused: {', '.join(_modules(self.unused, '.'))}")
        return "; ".join(parts)


def fill(
    variables: Iterable[keras.Variable], table: list[Weight], tensors: Tensors, prefix: str
) -> LoadReport:
    """Copies tensors into the variables that a table assigns them to.

    Args:
        variables: Of the model.
        table: Rows for (at least) every variable.
        tensors: By name, with or without `prefix`.
        prefix: Of task models, without the dot.

    Returns:
        What was filled, what stays as initialised, and which tensors nobody wanted.

    Raises:
        CheckpointError: If a tensor does not have the shape of its variable.
    """
    tensors = {name.removeprefix(f"{prefix}."): tensor for name, tensor in tensors.items()}
    rows: dict[str, list[Weight]] = {}
    for row in table:
        if row.variable:
            rows.setdefault(row.variable, []).append(row)
    used = {row.tensor for row in table if row.variable is None}
    filled, new = [], []
    for variable in variables:
        named = rows.get(variable.path, [])
        row = next((row for row in named if row.tensor in tensors), None)
        if row is None:
            new.append(variable.path)
            continue
        tensor = tensors[row.tensor]
        shape = tensor.shape[::-1] if row.transposed else tensor.shape
        if tuple(shape) != tuple(variable.shape):
            wanted = tuple(variable.shape)[::-1] if row.transposed else tuple(variable.shape)
            raise CheckpointError(
                f"The tensor {row.tensor} in {tensor.file} has the shape {tensor.shape}, but the "
                f"config asks for {wanted} (variable {variable.path}). config.json and weights "
                "do not belong together, or one of them was edited."
            )
        array = np.asarray(tensor.read(), dtype="float32")
        variable.assign(array.T if row.transposed else array)
        used.update(row.tensor for row in named)
        filled.append(variable.path)
    return LoadReport(tuple(filled), tuple(new), tuple(n for n in tensors if n not in used))


def dump(
    variables: Iterable[keras.Variable], table: list[Weight], prefix: str = ""
) -> dict[str, np.ndarray]:
    """The tensors of a model under their PyTorch names, in float32.

    Args:
        variables: Of the model, each with a row in the table.
        table: The rows that `fill` was given.
        prefix: Put before every name, without the dot; empty for none.

    Raises:
        CheckpointError: If a variable has no row, so that it would be lost.
    """
    rows = {row.variable: row for row in reversed(table) if row.variable}  # the first one wins
    tensors = {}
    for variable in variables:
        if variable.path not in rows:
            raise CheckpointError(
                f"The variable {variable.path} has no name in the checkpoint format; it would be "
                "lost. Save the model with model.save('model.keras') instead."
            )
        row = rows[variable.path]
        array = np.asarray(variable, dtype="float32")
        name = f"{prefix}.{row.tensor}" if prefix else row.tensor
        tensors[name] = np.ascontiguousarray(array.T if row.transposed else array)
    return tensors


def _modules(names: Iterable[str], separator: str) -> list[str]:
    """Names without their last part, each once, long lists shortened."""
    modules = list(dict.fromkeys(name.rpartition(separator)[0] or name for name in names))
    return modules if len(modules) <= 4 else [*modules[:3], f"{len(modules) - 3} more"]
