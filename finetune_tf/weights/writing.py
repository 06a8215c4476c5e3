"""Saving with a weight table: writes variables as the tensors of safetensors files.

Values are converted shard by shard, so that a large model is never copied as a whole.
"""

import errno
import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import keras
import numpy as np

from finetune_tf.base.arguments import shown
from finetune_tf.errors import ArgumentError, CheckpointError, ModelError
from finetune_tf.weights.files import UNTRAINED
from finetune_tf.weights.table import Weight
from finetune_tf.weights.tensors import WRITTEN_FLOATS, is_finite

Replaced = Mapping[str, Callable[[], np.ndarray] | None]


@dataclass(frozen=True)
class TensorToWrite:
    """A tensor to write, whose values are converted when its file is written.

    Attributes:
        shape: Its shape in PyTorch.
        dtype: Its dtype in the file.
        make: Returns the array, contiguous and of this shape and dtype.
        trained: False if its values are random and have not been trained yet.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    make: Callable[[], np.ndarray]
    trained: bool = True

    @property
    def size(self) -> int:
        """Size in the file in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class WeightWriter:
    """Writes the weights of a model with fixed settings.

    Attributes:
        dtype: Dtype of the files: "float32", "float16" or "bfloat16".
        max_shard_size: Maximum size of a file in bytes. A tensor that is larger gets its own file.
        untrained: Paths of untrained variables; their tensors are marked in the metadata.
        replaced: Functions that return the values to write in the place of those of a variable, by
            its path; None for a variable that is not written.

    Raises:
        ArgumentError: If `dtype` is another one.
    """

    dtype: str
    max_shard_size: int
    untrained: Collection[str] = ()
    replaced: Replaced = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.dtype not in WRITTEN_FLOATS:
            raise ArgumentError(
                f"dtype is the dtype of the written weights, one of {', '.join(WRITTEN_FLOATS)}, "
                f"or None for that of the checkpoint's own file; found {shown(self.dtype)}."
            )

    def write(
        self,
        folder: Path,
        variables: Iterable[keras.Variable],
        table: list[Weight],
        in_shards: bool = True,
    ) -> None:
        """Writes model.safetensors, or shards and their index as transformers does.

        Args:
            folder: The folder to write into.
            variables: Variables of the model.
            table: Weight table with a row for each variable.
            in_shards: False to write a single file of any size.

        Raises:
            CheckpointError: If a variable has no row in the table, so that it would be lost.
            ModelError: If a value is too large for the dtype of the file.
            OSError: If a file cannot be written.
        """
        from huggingface_hub import split_state_dict_into_shards_factory

        tensors = tensors_to_write(variables, table, self.dtype, self.untrained, self.replaced)
        split = split_state_dict_into_shards_factory(
            tensors,
            get_storage_size=lambda tensor: tensor.size,
            filename_pattern="model{suffix}.safetensors",
            max_shard_size=self.max_shard_size
            if in_shards
            else sum(tensor.size for tensor in tensors.values()),
        )
        for file, names in split.filename_to_tensors.items():
            _write_file(folder / file, {name: tensors[name] for name in names})
        if split.is_sharded:
            parameters = sum(math.prod(tensor.shape) for tensor in tensors.values())
            index = {
                "metadata": {"total_parameters": parameters, **split.metadata},
                "weight_map": split.tensor_to_filename,
            }
            text = json.dumps(index, indent=2, sort_keys=True) + "\n"
            (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")


def tensors_to_write(
    variables: Iterable[keras.Variable],
    table: list[Weight],
    dtype: str = "float32",
    untrained: Collection[str] = (),
    replaced: Replaced | None = None,
) -> dict[str, TensorToWrite]:
    """Returns the tensors to write, by their PyTorch names.

    No value is read or converted yet; `TensorToWrite.make` does that.

    Args:
        variables: Variables of the model, each with a row in the table.
        table: The weight table, with the tensor names to write.
        dtype: Dtype of the file, one of `WRITTEN_FLOATS`.
        untrained: Paths of untrained variables.
        replaced: As for `WeightWriter`.

    Raises:
        CheckpointError: If a variable has no row in the table, so that it would be lost.
    """
    replaced = replaced or {}
    by_path = {v.path: v for v in variables if replaced.get(v.path, v) is not None}
    untrained = set(untrained)
    rows: dict[str, Weight] = {}
    for row in table:
        for path in row.variables:
            rows.setdefault(path, row)  # the first row of a variable is written
    if unnamed := [path for path in by_path if path not in rows]:
        raise CheckpointError(
            f"The variable {unnamed[0]} has no name in the checkpoint format; it would be "
            "lost. Save the model with model.save('model.keras') instead."
        )
    file_dtype = _numpy_dtype(dtype)
    tensors = {}
    for row in dict.fromkeys(rows[path] for path in by_path):
        row_variables = [by_path[path] for path in row.variables]
        shapes = row.conversion.shapes([tuple(variable.shape) for variable in row_variables])
        trained = untrained.isdisjoint(row.variables)
        for i, (name, shape) in enumerate(zip(row.tensors, shapes, strict=True)):
            make = partial(_convert, row, row_variables, i, file_dtype, replaced)
            tensors[name] = TensorToWrite(shape, file_dtype, make, trained)
    for row in table:
        constants = () if row.variables else row.conversion.save(())
        for name, value in zip(
            row.tensors, constants, strict=False
        ):  # ignored tensors have no value
            tensors[name] = TensorToWrite(value.shape, value.dtype, partial(np.copy, value))
    return tensors


def _numpy_dtype(name: str) -> np.dtype:
    import ml_dtypes  # noqa: F401  (registers bfloat16 in NumPy)

    return np.dtype(name)


def _convert(
    row: Weight, variables: list[keras.Variable], index: int, dtype: np.dtype, replaced: Replaced
) -> np.ndarray:
    """Converts the variables of a row to the values of one of its tensors.

    Raises:
        ModelError: If a value is too large for the dtype of the file.
    """
    values = [
        replaced[v.path]() if v.path in replaced else np.asarray(v, dtype="float32")
        for v in variables
    ]
    tensor = row.conversion.save(values)[index]
    with np.errstate(all="ignore"):
        array = np.asarray(tensor, dtype=dtype, order="C")
    if dtype.itemsize < 4 and not is_finite(array):
        raise ModelError(
            f"Nothing was saved: the tensor {row.tensors[index]} contains values up to "
            f"{np.abs(tensor).max():.3g}, which are too large for the file's dtype {dtype.name}. "
            "Choose another dtype, as in save_pretrained(folder, dtype='float32')."
        )
    return array


def _write_file(path: Path, tensors: dict[str, TensorToWrite]) -> None:
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    # transformers refuses files whose metadata do not name the framework.
    metadata = {"format": "pt"}
    if untrained := [name for name, tensor in tensors.items() if not tensor.trained]:
        metadata[UNTRAINED] = "\n".join(untrained)
    try:
        save_file({name: tensor.make() for name, tensor in tensors.items()}, path, metadata)
    except SafetensorError as error:  # raised for a full disk, among others
        raise OSError(errno.EIO, str(error)) from None
