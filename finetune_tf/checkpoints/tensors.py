"""The tensors of a checkpoint folder, by their PyTorch names, whatever file they lie in.

Nothing is read before it is needed; no pickle is opened without PyTorch's `weights_only`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from finetune_tf.errors import CheckpointError
from finetune_tf.json_files import read_json


@dataclass(frozen=True)
class LazyTensor:
    """A tensor that knows its shape and is read when called.

    Attributes:
        shape: As PyTorch stores it: Linear weights are (out, in).
        read: Gives the array.
        file: Where it lies, for messages.
    """

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]
    file: Path


Tensors = dict[str, LazyTensor]

WEIGHT_FILES = ("model.safetensors", "tf_model.h5", "pytorch_model.bin")


def read_tensors(folder: Path) -> Tensors:
    """Opens the weights of a checkpoint folder.

    Looks for safetensors first, then the `tf_model.h5` of transformers 4, then a
    `pytorch_model.bin`; each single or in shards with an index.

    Args:
        folder: A Hugging Face checkpoint folder.

    Returns:
        Tensors by PyTorch name, with `gamma`/`beta` spelled `weight`/`bias`.

    Raises:
        CheckpointError: If there are no weights, or the file is damaged, or a `.bin` file is
            met without PyTorch.
    """
    for name in WEIGHT_FILES:
        if paths := _shards(folder, name):
            return {name: tensor for path in paths for name, tensor in read_file(path).items()}
    found = sorted(path.name for path in folder.iterdir())
    raise CheckpointError(
        f"There are no weights in {folder}: expected one of {', '.join(WEIGHT_FILES)} "
        f"(or their shards), found {found}."
    )


def read_file(path: Path) -> Tensors:
    """Opens one file with weights, whatever it is called; its ending says of which kind it is.

    Raises:
        CheckpointError: If it is damaged, or a `.bin` file is met without PyTorch.
    """
    return {_modern(name): tensor for name, tensor in READERS[path.suffix](path)}


def _shards(folder: Path, name: str) -> list[Path]:
    if (folder / name).is_file():
        return [folder / name]
    index = folder / f"{name}.index.json"
    if not index.is_file():
        return []
    names = sorted(set(read_json(index)["weight_map"].values()))
    missing = [shard for shard in names if not (folder / shard).is_file()]
    if missing:
        raise CheckpointError(
            f"{index} names shards that are not there: {missing}. Download the checkpoint again."
        )
    return [folder / shard for shard in names]


def _safetensors(path: Path) -> Iterator[tuple[str, LazyTensor]]:
    import ml_dtypes  # noqa: F401  (teaches NumPy bfloat16, which safetensors asks it for)
    from safetensors import SafetensorError, safe_open

    try:
        file = safe_open(path, framework="numpy")
        for name in file.keys():  # noqa: SIM118  (the handle is no dict)
            shape = tuple(file.get_slice(name).get_shape())
            yield name, LazyTensor(shape, lambda name=name: file.get_tensor(name), path)
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is not a whole safetensors file ({error}). It may have been cut off while "
            "downloading or copying: get it again."
        ) from None


def _keras_h5(path: Path) -> Iterator[tuple[str, LazyTensor]]:
    """What transformers 4 wrote from its TensorFlow classes."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            # A whole file nests every weight in its layer and its model; a shard does not.
            nesting = 2 if any("weight_names" in group.attrs for group in file.values()) else 0
            found: dict[str, tuple[int, ...]] = {}
            file.visititems(
                lambda name, item: (
                    found.update({name: item.shape}) if isinstance(item, h5py.Dataset) else None
                )
            )
    except OSError as error:
        raise CheckpointError(f"{path} is not a whole HDF5 file ({error}): get it again.") from None

    def read(name: str, transposed: bool) -> np.ndarray:
        with h5py.File(path, "r") as file:
            array = file[name][()]
        return array.T if transposed else array

    for name, shape in found.items():
        parts = name.split("/")[nesting:]
        variable = parts[-1].split(":")[0]
        # TensorFlow stores Dense kernels (in, out); "layer_._0" stands for "layer.0",
        # "mlm___cls" for "cls".
        transposed = variable == "kernel"
        scopes = [part.split("___")[-1] for part in parts[:-1]]
        module = ".".join(scopes).replace("_._", ".")
        leaf = {"kernel": "weight", "embeddings": "weight"}.get(variable, variable)
        yield (
            f"{module}.{leaf}",
            LazyTensor(
                shape[::-1] if transposed else shape,
                lambda name=name, transposed=transposed: read(name, transposed),
                path,
            ),
        )


def _torch_bin(path: Path) -> Iterator[tuple[str, LazyTensor]]:
    try:
        import torch
    except ImportError:
        raise CheckpointError(
            f"{path} is a pickle, which only PyTorch can open safely, and PyTorch is not "
            "installed. Use a revision of the checkpoint with model.safetensors (most have one), "
            "or install PyTorch with `pip install finetune-tf[parity]`."
        ) from None

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(f"{path} cannot be opened by PyTorch: {error}") from None
    for name, tensor in state.items():
        yield (
            name,
            LazyTensor(tuple(tensor.shape), lambda tensor=tensor: tensor.float().numpy(), path),
        )


def _modern(name: str) -> str:
    """Old names of LayerNorm parameters, as TensorFlow checkpoints were converted with."""
    for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


READERS = {".safetensors": _safetensors, ".h5": _keras_h5, ".bin": _torch_bin}
