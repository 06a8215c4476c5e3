"""Loading with a weight table: matches tensors with variables, then assigns their values."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import keras
import numpy as np

from finetune_tf.errors import CheckpointError
from finetune_tf.weights.deferred import initialize
from finetune_tf.weights.table import Weight
from finetune_tf.weights.tensors import (
    LazyTensor,
    Tensors,
    common_dtype,
    is_finite,
    refuse_contradiction,
)


@dataclass(frozen=True)
class LoadReport:
    """Which variables were loaded, and which tensors were not used.

    Attributes:
        filled: Paths of variables whose tensor was found.
        new: Paths of variables without a tensor, which are initialized at random.
        unused: Names of tensors that belong to no variable.
        untrained: Paths of all of `new`, and of those of `filled` whose tensors were saved before
            they had been trained.
    """

    filled: tuple[str, ...]
    new: tuple[str, ...]
    unused: tuple[str, ...]
    untrained: tuple[str, ...]

    @property
    def trained(self) -> tuple[str, ...]:
        """Paths of variables with trained values."""
        untrained = set(self.untrained)
        return tuple(path for path in self.filled if path not in untrained)

    def __str__(self) -> str:
        """Formats the report as one line."""
        parts = [f"{len(self.filled)} of {len(self.filled) + len(self.new)} variables filled"]
        if self.new:
            parts.append(f"new: {', '.join(_module_names(self.new, '/'))}")
        if saved := [path for path in self.untrained if path not in self.new]:
            parts.append(f"saved untrained: {', '.join(_module_names(saved, '/'))}")
        if self.unused:
            parts.append(f"unused: {', '.join(_module_names(self.unused, '.'))}")
        return "; ".join(parts)


@dataclass(frozen=True, eq=False)
class Source:
    """A row of a weight table, with the tensors of a file that belong to it.

    Attributes:
        row: The row of the table.
        tensors: The tensors of the row, in the order of `row.tensors`.
    """

    row: Weight
    tensors: tuple[LazyTensor, ...]

    def __str__(self) -> str:
        """Formats the tensors for messages."""
        return f"{', '.join(tensor.name for tensor in self.tensors)} in {self.tensors[0].file}"

    def values(self) -> dict[str, np.ndarray]:
        """Reads the tensors and converts them to values in float32, by variable path."""
        with np.errstate(all="ignore"):  # out of range becomes infinite, which `fill` refuses
            arrays = [np.asarray(tensor.read(), dtype="float32") for tensor in self.tensors]
        return dict(zip(self.row.stored_variables, self.row.conversion.load(arrays), strict=True))

    def shape_mismatch(self, variables: Mapping[str, keras.Variable]) -> tuple | None:
        """Returns the first tensor of a wrong shape and the expected shape; None if all fit."""
        shapes = [tuple(variables[path].shape) for path in self.row.stored_variables]
        expected = zip(self.tensors, self.row.conversion.shapes(shapes), strict=True)
        return next((pair for pair in expected if pair[0].shape != pair[1]), None)


@dataclass(frozen=True)
class Match:
    """The tensors for each variable, found from the headers of the files alone.

    Attributes:
        report: Which variables are filled and which tensors are used.
        sources: Maps paths of filled variables to the source of their values. Variables of one row
            share their source.
    """

    report: LoadReport
    sources: Mapping[str, Source]

    @property
    def dtype(self) -> str:
        """The dtype of the file, which is the default for saving the model again."""
        return common_dtype(t for source in self.sources.values() for t in source.tensors)


def match(variables: Iterable[keras.Variable], table: list[Weight], tensors: Tensors) -> Match:
    """Finds the tensors for each variable, and checks their names, dtypes and shapes.

    Args:
        variables: Variables of the model; they need no values yet.
        table: Weight table with at least one row for every variable.
        tensors: Tensors by name, without the prefix of task models.

    Returns:
        The sources of all variables, and a report of new variables and unused tensors.

    Raises:
        CheckpointError: If a tensor has another shape than its variable or does not contain floats,
            if only some of the tensors of a variable exist, or if several tensors for one variable
            have different values.
    """
    by_path = {variable.path: variable for variable in variables}
    present: dict[str, list[Source]] = {}
    incomplete: dict[str, Weight] = {}
    for row in table:
        if row.is_in(tensors):
            source = Source(row, tuple(tensors[name] for name in row.tensors))
            for path in row.stored_variables:
                present.setdefault(path, []).append(source)
        elif any(name in tensors for name in row.tensors):
            incomplete.update(dict.fromkeys(row.variables, row))
    used = {name for row in table if not row.variables for name in row.tensors}
    sources: dict[str, Source] = {}
    for path in by_path:
        found = present.get(path, [])
        source = next((source for source in found if source.row.variables), None)
        if source is None:
            if path in incomplete:
                _refuse_incomplete(path, incomplete[path], tensors)
            continue
        _check_dtypes_and_shapes(source, by_path)
        for other in found:
            if other is not source and not _are_equal(source, other, path, by_path):
                refuse_contradiction(source, other, f"the variable {path}")
            used.update(other.row.tensors)
        sources[path] = source
    known = {path for row in table if row.optional for path in row.variables}
    new = tuple(path for path in by_path if path not in sources and path not in known)
    unused = tuple(name for name in tensors if name not in used)
    saved_untrained = (
        path
        for path, source in sources.items()
        if not all(tensor.trained for tensor in source.tensors)
    )
    return Match(LoadReport(tuple(sources), new, unused, (*new, *saved_untrained)), sources)


def _check_dtypes_and_shapes(source: Source, variables: Mapping[str, keras.Variable]) -> None:
    for tensor in source.tensors:
        tensor.require_floats()
    if mismatch := source.shape_mismatch(variables):
        tensor, expected = mismatch
        raise CheckpointError(
            f"The tensor {tensor.name} in {tensor.file} has the shape {tensor.shape}, but the "
            f"config requires {expected} (variable {', '.join(source.row.variables)}). config.json "
            "and the weights do not belong together, or one of them was edited."
        )


def _refuse_incomplete(path: str, row: Weight, tensors: Tensors) -> None:
    missing = [name for name in row.tensors if name not in tensors]
    file = next(tensors[name].file for name in row.tensors if name in tensors)
    raise CheckpointError(
        f"The variable {path} is made of the tensors {', '.join(row.tensors)}, but {file} lacks "
        f"{', '.join(missing)}. Download the complete checkpoint."
    )


def _are_equal(
    first: Source, second: Source, path: str, variables: Mapping[str, keras.Variable]
) -> bool:
    """Returns whether two sources contain the same value of a variable; reads both."""
    if second.shape_mismatch(variables):
        return False
    return np.array_equal(first.values()[path], second.values()[path])


def fill(variables: Iterable[keras.Variable], match: Match) -> None:
    """Initializes variables of `deferred.shapes_only`: from their tensors, or at random if new.

    Args:
        variables: Variables without values.
        match: The sources of their values.

    Raises:
        CheckpointError: If a tensor contains NaN, infinity, or values that overflow the dtype of
            its variable.
    """
    pending = {variable.path: variable for variable in variables}
    damaged: list[Source] = []
    for source in dict.fromkeys(match.sources.values()):
        for path, values in source.values().items():
            if match.sources.get(path) is not source:
                continue
            variable = pending.pop(path)
            with np.errstate(all="ignore"):
                array = values.astype(variable.dtype, copy=False)
            if not is_finite(array) and source not in damaged:
                damaged.append(source)
            initialize(variable, array)
    for variable in pending.values():
        initialize(variable)
    if damaged:
        names = ", ".join(map(str, damaged[:5]))
        more = f" and {len(damaged) - 5} more" if len(damaged) > 5 else ""
        raise CheckpointError(
            "These tensors contain NaN, infinity, or values that are too large for the model's "
            f"dtype: {names}{more}. They are damaged, or come from a training run that diverged: "
            "use another copy or an earlier step of the checkpoint."
        )


def _module_names(names: Iterable[str], separator: str) -> list[str]:
    """Returns the distinct names without their last part; shortens long lists."""
    modules = list(dict.fromkeys(name.rpartition(separator)[0] or name for name in names))
    return modules if len(modules) <= 4 else [*modules[:3], f"{len(modules) - 3} more"]
