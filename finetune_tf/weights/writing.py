"""Saving by a weight table: variables become the tensors of safetensors files.

Values are converted shard by shard, so that no second copy of a large model is made.
"""

import errno
import json
import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import keras
import numpy as np

from finetune_tf.base.arguments import shown
from finetune_tf.errors import ArgumentError, CheckpointError, ModelError
from finetune_tf.weights.files import UNTRAINED
from finetune_tf.weights.table import Weight
from finetune_tf.weights.tensors import WRITTEN_FLOATS, is_finite


@dataclass(frozen=True)
class TensorToWrite:
    """A tensor of a file that is to be written; its values are made when its turn comes.

    Attributes:
        shape: As PyTorch stores it.
        dtype: Its type of numbers.
        make: Gives the array, contiguous and of this shape and type.
        trained: False if it holds the random values of a load.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    make: Callable[[], np.ndarray]
    trained: bool = True

    @property
    def size(self) -> int:
        """Bytes that it takes in the file."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class WeightWriter:
    """How the weights of a model are written.

    Attributes:
        dtype: Type of numbers of the files: "float32", "float16" or "bfloat16".
        max_shard_size: Bytes of tensors above which a second file is begun. A tensor that is larger
            has a file of its own.
        untrained: Paths of variables that nobody has trained; the files note their tensors.
    """

    dtype: str
    max_shard_size: int
    untrained: Collection[str] = ()

    def __post_init__(self) -> None:
        if self.dtype not in WRITTEN_FLOATS:
            raise ArgumentError(
                f"dtype is the type of numbers of the file, one of {', '.join(WRITTEN_FLOATS)}, or "
                f"None for that of the checkpoint's own file; found {shown(self.dtype)}."
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
            folder: To write into.
            variables: Of the model.
            table: With a row for each of them.
            in_shards: False for one file, whatever its size.

        Raises:
            CheckpointError: If a variable has no row, so that it would be lost.
            ModelError: If a number is too large for the type of numbers of the file.
            OSError: If a file cannot be written.
        """
        from huggingface_hub import split_state_dict_into_shards_factory

        tensors = dump(variables, table, self.dtype, self.untrained)
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


def dump(
    variables: Iterable[keras.Variable],
    table: list[Weight],
    dtype: str = "float32",
    untrained: Collection[str] = (),
) -> dict[str, TensorToWrite]:
    """The tensors of a model by their PyTorch names, as they are to be written.

    No value is read or converted here; each tensor does that when it is written.

    Args:
        variables: Of the model, each with a row in the table.
        table: The rows that `match` was given, with the names that are to be written.
        dtype: Type of numbers of the file, one of `WRITTEN_FLOATS`.
        untrained: Paths of variables that nobody has trained.

    Raises:
        CheckpointError: If a variable has no row, so that it would be lost.
    """
    by_path = {variable.path: variable for variable in variables}
    untrained = set(untrained)
    rows: dict[str, Weight] = {}
    for row in table:
        for path in row.variables:
            rows.setdefault(path, row)  # the first one is written
    if unnamed := [path for path in by_path if path not in rows]:
        raise CheckpointError(
            f"The variable {unnamed[0]} has no name in the checkpoint format; it would be "
            "lost. Save the model with model.save('model.keras') instead."
        )
    number_type = _number_type(dtype)
    tensors = {}
    for row in dict.fromkeys(rows[path] for path in by_path):
        converted = [by_path[path] for path in row.variables]
        shapes = row.conversion.shapes([tuple(variable.shape) for variable in converted])
        trained = untrained.isdisjoint(row.variables)
        for i, (name, shape) in enumerate(zip(row.tensors, shapes, strict=True)):
            make = partial(_converted, row, converted, i, number_type)
            tensors[name] = TensorToWrite(shape, number_type, make, trained)
    for row in table:
        constants = () if row.variables else row.conversion.save(())
        for name, value in zip(row.tensors, constants, strict=False):  # dropped ones have none
            tensors[name] = TensorToWrite(value.shape, value.dtype, partial(np.copy, value))
    return tensors


def _number_type(name: str) -> np.dtype:
    import ml_dtypes  # noqa: F401  (teaches NumPy bfloat16)

    return np.dtype(name)


def _converted(
    row: Weight, variables: list[keras.Variable], number: int, dtype: np.dtype
) -> np.ndarray:
    """The values of one tensor of a row, made of its variables.

    Raises:
        ModelError: If they are too large for the type of numbers of the file.
    """
    values = [np.asarray(variable, dtype="float32") for variable in variables]
    tensor = row.conversion.save(values)[number]
    with np.errstate(all="ignore"):
        array = np.asarray(tensor, dtype=dtype, order="C")
    if dtype.itemsize < 4 and not is_finite(array):
        raise ModelError(
            f"Saving wrote nothing: the tensor {row.tensors[number]} holds numbers up to "
            f"{np.abs(tensor).max():.3g}, which are too large for the file's type {dtype.name}. "
            "Choose another one, as in save_pretrained(folder, dtype='float32')."
        )
    return array


def _write_file(path: Path, tensors: dict[str, TensorToWrite]) -> None:
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    # transformers refuses files that do not say which framework's layout they have.
    metadata = {"format": "pt"}
    if untrained := [name for name, tensor in tensors.items() if not tensor.trained]:
        metadata[UNTRAINED] = "\n".join(untrained)
    try:
        save_file({name: tensor.make() for name, tensor in tensors.items()}, path, metadata)
    except SafetensorError as error:  # its name for a full disk, among others
        raise OSError(errno.EIO, str(error)) from None
