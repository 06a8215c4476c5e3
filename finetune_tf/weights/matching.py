"""Loading by a weight table: tensors are compared with variables, then read into them."""

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


@dataclass(frozen=True, eq=False)
class Source:
    """A row of a table whose tensors a file has.

    Attributes:
        row: The row.
        tensors: Its tensors, in order.
    """

    row: Weight
    tensors: tuple[LazyTensor, ...]

    def __str__(self) -> str:
        """The tensors in messages."""
        return f"{', '.join(tensor.name for tensor in self.tensors)} in {self.tensors[0].file}"

    def values(self) -> dict[str, np.ndarray]:
        """Reads the values of the variables that the tensors stand for, by path, in float32."""
        with np.errstate(all="ignore"):  # what is out of range becomes infinite, and is refused
            arrays = [np.asarray(tensor.read(), dtype="float32") for tensor in self.tensors]
        return dict(zip(self.row.meant, self.row.conversion.load(arrays), strict=True))

    def misshapen(self, variables: Mapping[str, keras.Variable]) -> tuple | None:
        """The first tensor of another shape than its variables ask for, and that shape."""
        shapes = [tuple(variables[path].shape) for path in self.row.meant]
        wanted = zip(self.tensors, self.row.conversion.shapes(shapes), strict=True)
        return next((pair for pair in wanted if pair[0].shape != pair[1]), None)


@dataclass(frozen=True)
class Match:
    """Which tensors each variable gets; nothing but headers has been read so far.

    Attributes:
        report: Name by name.
        sources: Path of a filled variable to where its value comes from. Variables of one row
            have the same source.
    """

    report: LoadReport
    sources: Mapping[str, Source]

    @property
    def dtype(self) -> str:
        """The type of numbers of the file, in which the model is saved again."""
        return common_dtype(t for source in self.sources.values() for t in source.tensors)


def match(variables: Iterable[keras.Variable], table: list[Weight], tensors: Tensors) -> Match:
    """Compares names, types and shapes of tensors with the variables that a table gives them to.

    Args:
        variables: Of the model; they need no values yet.
        table: Rows for (at least) every variable.
        tensors: By name, without the prefix of task models.

    Returns:
        What will be filled, what stays as initialised, and which tensors nobody wants.

    Raises:
        CheckpointError: If a tensor does not have the shape of its variable or holds no floats, if
            only some of the tensors are there that make a variable, or if tensors of different
            values mean one variable.
    """
    by_path = {variable.path: variable for variable in variables}
    present: dict[str, list[Source]] = {}
    incomplete: dict[str, Weight] = {}
    for row in table:
        if row.is_in(tensors):
            source = Source(row, tuple(tensors[name] for name in row.tensors))
            for path in row.meant:
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
        _check(source, by_path)
        for other in found:
            if other is not source and not _agree(source, other, path, by_path):
                refuse_contradiction(source, other, f"the variable {path}")
            used.update(other.row.tensors)
        sources[path] = source
    new = tuple(path for path in by_path if path not in sources)
    unused = tuple(name for name in tensors if name not in used)
    saved_untrained = (
        path
        for path, source in sources.items()
        if not all(tensor.trained for tensor in source.tensors)
    )
    return Match(LoadReport(tuple(sources), new, unused, (*new, *saved_untrained)), sources)


def _check(source: Source, variables: Mapping[str, keras.Variable]) -> None:
    """Refuses tensors of other numbers than floats, or of another shape than is asked for."""
    for tensor in source.tensors:
        tensor.require_floats()
    if misshapen := source.misshapen(variables):
        tensor, wanted = misshapen
        raise CheckpointError(
            f"The tensor {tensor.name} in {tensor.file} has the shape {tensor.shape}, but the "
            f"config asks for {wanted} (variable {', '.join(source.row.variables)}). config.json "
            "and weights do not belong together, or one of them was edited."
        )


def _refuse_incomplete(path: str, row: Weight, tensors: Tensors) -> None:
    missing = [name for name in row.tensors if name not in tensors]
    file = next(tensors[name].file for name in row.tensors if name in tensors)
    raise CheckpointError(
        f"The variable {path} is made of the tensors {', '.join(row.tensors)}, but {file} lacks "
        f"{', '.join(missing)}. Get the whole checkpoint."
    )


def _agree(
    first: Source, second: Source, path: str, variables: Mapping[str, keras.Variable]
) -> bool:
    """Whether two sources give a variable the same value; reads both."""
    if second.misshapen(variables):
        return False
    return np.array_equal(first.values()[path], second.values()[path])


def fill(variables: Iterable[keras.Variable], match: Match) -> None:
    """Initialises variables of `deferred.shapes_only`: with their tensors, or at random if new.

    Args:
        variables: Without values.
        match: Where the value of each one comes from.

    Raises:
        CheckpointError: If a tensor holds NaN or infinity, or numbers beyond its variable's dtype.
    """
    waiting = {variable.path: variable for variable in variables}
    damaged: list[Source] = []
    for source in dict.fromkeys(match.sources.values()):
        for path, values in source.values().items():
            if match.sources.get(path) is not source:
                continue
            variable = waiting.pop(path)
            with np.errstate(all="ignore"):
                array = values.astype(variable.dtype, copy=False)
            if not is_finite(array) and source not in damaged:
                damaged.append(source)
            initialize(variable, array)
    for variable in waiting.values():
        initialize(variable)
    if damaged:
        names = ", ".join(map(str, damaged[:5]))
        more = f" and {len(damaged) - 5} more" if len(damaged) > 5 else ""
        raise CheckpointError(
            "These tensors hold NaN, infinity, or numbers that are too large for the model's "
            f"dtype: {names}{more}. They are damaged, or come from a training that diverged: get "
            "another copy or an earlier step of the checkpoint."
        )


def _modules(names: Iterable[str], separator: str) -> list[str]:
    """Names without their last part, each once, long lists shortened."""
    modules = list(dict.fromkeys(name.rpartition(separator)[0] or name for name in names))
    return modules if len(modules) <= 4 else [*modules[:3], f"{len(modules) - 3} more"]
