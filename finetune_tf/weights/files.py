"""The files that weights lie in: safetensors, HDF5 and PyTorch's pickles, whole or in shards.

Tensors have their PyTorch names, whatever file they lie in. No values are read before they are
needed; no pickle is opened without PyTorch's `weights_only`.
"""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from finetune_tf.base.arguments import shown
from finetune_tf.base.json_files import checked, file_inside, member, read_json
from finetune_tf.base.paths import has_file
from finetune_tf.errors import CheckpointError
from finetune_tf.weights.conversions import IDENTITY, KERNEL, Conversion
from finetune_tf.weights.tensors import LazyTensor, Tensors, by_name

WEIGHT_FILES = ("model.safetensors", "tf_model.h5", "pytorch_model.bin")
#: The key of a safetensors file's metadata for names of tensors that nobody has trained, in lines.
UNTRAINED = "finetune_tf.untrained"

_SAFETENSORS_TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


def read_tensors(folder: Path) -> Tensors:
    """Opens the weights of a checkpoint folder.

    Looks for safetensors first, then the `tf_model.h5` of transformers 4, then a
    `pytorch_model.bin`; each single or in shards with an index.

    Args:
        folder: A Hugging Face checkpoint folder.

    Returns:
        Tensors by PyTorch name, with `gamma`/`beta` spelled `weight`/`bias`.

    Raises:
        CheckpointError: If there are no weights, if the file is damaged or has two different
            tensors of one name, or if a `.bin` file is met without PyTorch.
    """
    for name in WEIGHT_FILES:
        if has_file(folder / name):
            return read_file(folder / name)
        index = folder / f"{name}.index.json"
        if has_file(index):
            return _read_shards(folder, index)
    found = sorted(path.name for path in folder.iterdir())
    raise CheckpointError(
        f"There are no weights in {folder}: expected one of {', '.join(WEIGHT_FILES)} "
        f"(or their shards), found {found}."
    )


def read_file(path: Path) -> Tensors:
    """Opens one file with weights, whatever it is called; its ending says of which kind it is.

    Raises:
        CheckpointError: If it is damaged, has no tensor or two different ones of one name, or if
            a `.bin` file is met without PyTorch.
    """
    tensors = by_name(_read(path))
    if not tensors:
        raise CheckpointError(
            f"{path} has no tensors, so a model would keep its random weights: get the file again."
        )
    return tensors


def _read(path: Path) -> Iterator[tuple[str, LazyTensor]]:
    for name, tensor in READERS[path.suffix](path):
        yield _modern(name), tensor


def _read_shards(folder: Path, index: Path) -> Tensors:
    """The tensors of all shards, after a comparison with the index that lists them."""
    suffix = Path(index.name.removesuffix(".index.json")).suffix
    weight_map = member(read_json(index), "weight_map", dict, index)
    paths = {}
    for name, shard in weight_map.items():
        checked(shard, str, f"The shard of {name!r} in {index}", CheckpointError)
        paths[shard] = file_inside(folder, shard, index)
    missing = [s for s in paths if not (os.path.isfile(paths[s]) and s.endswith(suffix))]
    if missing or not paths:
        raise CheckpointError(
            f"{index} names shards that are not there: {shown(missing, 300)}. Download the "
            "checkpoint again."
        )
    found = {shard: list(_read(paths[shard])) for shard in sorted(paths)}
    held = {shard: {name for name, _ in named} for shard, named in found.items()}
    meant = {name: _meant(name, suffix) for name in weight_map}
    listed = set().union(*meant.values())
    faults = {
        "names tensors that their shards lack": [
            name for name, shard in weight_map.items() if not meant[name] & held[shard]
        ],
        "does not name tensors that its shards hold": [
            name for names in held.values() for name in names if name not in listed
        ],
    }
    for fault, names in faults.items():
        if names:
            raise CheckpointError(
                f"{index} {fault}: {shown(sorted(names)[:3], 300)} ({len(names)} in all). Index "
                "and shards do not belong together: download the checkpoint again."
            )
    return by_name(pair for named in found.values() for pair in named)


def _meant(name: str, suffix: str) -> set[str]:
    """The PyTorch names that an entry of an index can mean."""
    if suffix != ".h5":
        return {_modern(name)}
    # transformers 4 put the name of the model first, which the shards leave out.
    parts = name.split("/")
    return {_modern(_pytorch_name(rest)) for rest in (parts, parts[1:] or parts)}


def _safetensors(path: Path) -> Iterator[tuple[str, LazyTensor]]:
    import ml_dtypes  # noqa: F401  (teaches NumPy bfloat16, which safetensors asks it for)
    from safetensors import safe_open

    try:
        file = safe_open(path, framework="numpy")
        untrained = (file.metadata() or {}).get(UNTRAINED, "").splitlines()
        for name in file.keys():  # noqa: SIM118  (the handle is no dict)
            header = file.get_slice(name)
            dtype = _SAFETENSORS_TYPES.get(header.get_dtype(), header.get_dtype())
            load = partial(file.get_tensor, name)
            shape, trained = tuple(header.get_shape()), name not in untrained
            yield name, LazyTensor(name, shape, dtype, path, load, trained)
    except Exception as error:  # of the format, of the file system, of an unknown type of numbers
        raise CheckpointError(
            f"{path} is not a whole safetensors file ({error}). It may have been cut off while "
            "downloading or copying: get it again."
        ) from None


def _keras_h5(path: Path) -> Iterator[tuple[str, LazyTensor]]:
    """What transformers 4 wrote from its TensorFlow classes."""
    import h5py

    found: dict[str, tuple[tuple[int, ...], str]] = {}

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            if item.external or item.is_virtual:
                raise CheckpointError(
                    f"The tensor {name} of {path} lies in another file. Only what is inside of a "
                    "checkpoint's own file is read: do not trust this checkpoint."
                )
            found[name] = (tuple(item.shape or ()), item.dtype.name)

    try:
        # It stays open for as long as a tensor is to be read from it: somebody may replace it.
        file = h5py.File(path, "r")
        # A whole file nests every weight in its layer and its model; a shard does not.
        inside = [k for k in file if isinstance(file.get(k, getlink=True), h5py.HardLink)]
        nesting = 2 if any("weight_names" in file[name].attrs for name in inside) else 0
        file.visititems(note)  # which follows no link to another file
    except CheckpointError:
        raise
    except Exception as error:  # HDF5 tells damage in OSError, KeyError, RuntimeError and others
        raise CheckpointError(f"{path} is not a whole HDF5 file ({error}): get it again.") from None

    def load(name: str, conversion: Conversion) -> np.ndarray:
        return conversion.save([file[name][()]])[0]

    for name, (shape, dtype) in found.items():
        parts = name.split("/")
        parts = parts[nesting:] or parts
        # TensorFlow stores kernels as Keras does.
        is_kernel = _variable(parts) == "kernel" and len(shape) > 1
        conversion = KERNEL if is_kernel else IDENTITY
        (shape,) = conversion.shapes([shape])
        yield (
            _pytorch_name(parts),
            LazyTensor(name, shape, dtype, path, partial(load, name, conversion)),
        )


def _variable(parts: list[str]) -> str:
    """The variable's own name in a path such as "encoder/layer_._0/output/kernel:0"."""
    return parts[-1].split(":")[0]


def _pytorch_name(parts: list[str]) -> str:
    """The name that a variable of transformers 4's TensorFlow classes has in PyTorch."""
    # "layer_._0" stands for "layer.0", "mlm___cls" for "cls".
    scopes = [part.split("___")[-1] for part in parts[:-1]]
    module = ".".join(scopes).replace("_._", ".")
    variable = _variable(parts)
    leaf = {"kernel": "weight", "embeddings": "weight"}.get(variable, variable)
    return f"{module}.{leaf}"


def _torch_bin(path: Path) -> Iterator[tuple[str, LazyTensor]]:
    try:
        import torch
    except ImportError:
        raise CheckpointError(
            f"{path} is a pickle, which only PyTorch can open safely, and PyTorch is not "
            "installed. Use a revision of the checkpoint with model.safetensors (most have one), "
            "or install PyTorch with `pip install finetune-tf[parity]`."
        ) from None

    def tensors_of(content: Any) -> bool:
        return isinstance(content, dict) and all(
            isinstance(name, str) and isinstance(value, torch.Tensor)
            for name, value in content.items()
        )

    def load(tensor: Any) -> np.ndarray:
        tensor = tensor.detach().to_dense() if tensor.is_sparse else tensor.detach()
        return (tensor.float() if tensor.is_floating_point() else tensor).numpy()

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # Only the first sentence: PyTorch goes on with how to open a pickle that may run code.
        reason = (str(error).splitlines() or [type(error).__name__])[0].split(". ")[0][:100]
        raise CheckpointError(
            f"{path} cannot be opened by PyTorch: {reason}. It is damaged, or holds more than "
            "tensors. Get it again, or a revision of the checkpoint with model.safetensors."
        ) from None
    if not tensors_of(state):
        # Training scripts wrap the tensors, as in {"state_dict": …, "epoch": 3}.
        values = list(state.values()) if isinstance(state, dict) else []
        inner = [value for value in values if tensors_of(value) and value]
        if len(inner) != 1 or any(isinstance(value, torch.Tensor) for value in values):
            raise CheckpointError(
                f"{path} holds a {type(state).__name__} that is no table of tensors by name, as "
                "torch.save(model.state_dict(), path) writes it: save the model that way."
            )
        state = inner[0]
    for name, tensor in state.items():
        dtype = str(tensor.dtype).removeprefix("torch.")
        yield name, LazyTensor(name, tuple(tensor.shape), dtype, path, partial(load, tensor))


def _modern(name: str) -> str:
    """Old names of LayerNorm parameters, as TensorFlow checkpoints were converted with."""
    for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


READERS = {".safetensors": _safetensors, ".h5": _keras_h5, ".bin": _torch_bin}
