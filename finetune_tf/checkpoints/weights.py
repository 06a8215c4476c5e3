"""Weight tables: which tensor of a checkpoint is which variable of a model.

A table is a list of `Weight` rows and serves both directions. Its tensor names are those of
the bare PyTorch model; the prefix that task models put before them ("bert.") is taken off on
the way in and put on again on the way out. Where a variable has several rows, its tensor has gone
by several names, or is stored twice because it is tied: the first name is the one that is written,
and copies that a file holds under the others have to be equal to it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import keras
import numpy as np

from finetune_tf.checkpoints.deferred import initialize
from finetune_tf.checkpoints.tensors import (
    LazyTensor,
    Tensors,
    is_finite,
    require_equal,
)
from finetune_tf.errors import CheckpointError


@dataclass(frozen=True)
class Weight:
    """One row of a table.

    Attributes:
        tensor: Name in PyTorch.
        variable: Path of the Keras variable, or None for a tensor that is dropped on purpose.
        transposed: Whether the two store the axes in opposite order.
        tied_to: Path of a variable that a dropped tensor has to be equal to, if there is one.
    """

    tensor: str
    variable: str | None
    transposed: bool = False
    tied_to: str | None = None


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
        untrained: Those of `new`, and of `filled` whose tensors were saved before anybody had
            trained them.
    """

    filled: tuple[str, ...]
    new: tuple[str, ...]
    unused: tuple[str, ...]
    untrained: tuple[str, ...]

    @property
    def trained(self) -> tuple[str, ...]:
        """Paths of variables whose values somebody has trained."""
        untrained = set(self.untrained)
        return tuple(path for path in self.filled if path not in untrained)

    def __str__(self) -> str:
        """One line for people."""
        parts = [f"{len(self.filled)} of {len(self.filled) + len(self.new)} variables filled"]
        if self.new:
            parts.append(f"new: {', '.join(_modules(self.new, '/'))}")
        if saved := [path for path in self.untrained if path not in self.new]:
            parts.append(f"saved untrained: {', '.join(_modules(saved, '/'))}")
        if self.unused:
            parts.append(f"unused: {', '.join(_modules(self.unused, '.'))}")
        return "; ".join(parts)


@dataclass(frozen=True)
class Match:
    """Which tensor each variable gets; nothing but headers has been read so far.

    Attributes:
        report: Name by name.
        sources: Path of a filled variable to its tensor, and whether that is transposed.
    """

    report: LoadReport
    sources: Mapping[str, tuple[LazyTensor, bool]]


def match(variables: Iterable[keras.Variable], table: list[Weight], tensors: Tensors) -> Match:
    """Compares names, types and shapes of tensors with the variables that a table gives them to.

    Args:
        variables: Of the model; they need no values yet.
        table: Rows for (at least) every variable.
        tensors: By name, without the prefix of task models.

    Returns:
        What will be filled, what stays as initialised, and which tensors nobody wants.

    Raises:
        CheckpointError: If a tensor does not have the shape of its variable or holds no floats, or
            if two tensors of different values mean one variable.
    """
    rows: dict[str, list[Weight]] = {}
    for row in table:
        if (meant := row.variable or row.tied_to) and row.tensor in tensors:
            rows.setdefault(meant, []).append(row)
    used = {row.tensor for row in table if row.variable is None}
    sources, new = {}, []
    for variable in variables:
        path = variable.path
        present = rows.get(path, [])
        row = next((row for row in present if row.variable), None)
        if row is None:
            new.append(path)
            continue
        tensor = tensors[row.tensor]
        tensor.require_floats()
        _require_shape(tensor, row, tuple(variable.shape))
        for other in present:
            require_equal(tensor, tensors[other.tensor], f"the variable {path}")
            used.add(other.tensor)
        sources[path] = (tensor, row.transposed)
    unused = tuple(name for name in tensors if name not in used)
    untrained = (*new, *(path for path, (tensor, _) in sources.items() if not tensor.trained))
    return Match(LoadReport(tuple(sources), tuple(new), unused, untrained), sources)


def _require_shape(tensor: LazyTensor, row: Weight, shape: tuple[int, ...]) -> None:
    wanted = shape[::-1] if row.transposed else shape
    if tensor.shape != wanted:
        raise CheckpointError(
            f"The tensor {row.tensor} in {tensor.file} has the shape {tensor.shape}, but the "
            f"config asks for {wanted} (variable {row.variable}). config.json and weights "
            "do not belong together, or one of them was edited."
        )


def fill(variables: Iterable[keras.Variable], match: Match) -> None:
    """Initialises variables of `deferred.shapes_only`: with their tensors, or at random if new.

    Args:
        variables: Without values.
        match: Which tensor each one gets.

    Raises:
        CheckpointError: If a tensor holds NaN or infinity, or numbers beyond its variable's dtype.
    """
    damaged = []
    for variable in variables:
        if variable.path not in match.sources:
            initialize(variable)
            continue
        tensor, transposed = match.sources[variable.path]
        with np.errstate(all="ignore"):  # what is out of range becomes infinite, and is refused
            array = np.asarray(tensor.read(), dtype="float32").astype(variable.dtype, copy=False)
        if not is_finite(array):
            damaged.append(tensor)
        initialize(variable, array.T if transposed else array)
    if damaged:
        names = ", ".join(map(str, damaged[:5]))
        more = f" and {len(damaged) - 5} more" if len(damaged) > 5 else ""
        raise CheckpointError(
            "These tensors hold NaN, infinity, or numbers that are too large for the model's "
            f"dtype: {names}{more}. They are damaged, or come from a training that diverged: get "
            "another copy or an earlier step of the checkpoint."
        )


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
