"""Readers of weight files: safetensors, HDF5 and PyTorch's pickles, in one file or in shards.

All readers return lazy tensors by their PyTorch names: of safetensors and HDF5 files, only headers
are read at first. Pickles are opened only with PyTorch's `weights_only=True`.
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
#: Key in the metadata of a safetensors file: the names of untrained tensors, one per line.
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

    Looks for safetensors first, then for the `tf_model.h5` of transformers 4, then for a
    `pytorch_model.bin`; each as a single file, or as shards with an index.

    Args:
        folder: A Hugging Face checkpoint folder.

    Returns:
        Tensors by PyTorch name, with `gamma`/`beta` renamed to `weight`/`bias`.

    Raises:
        CheckpointError: If there are no weights, if the file is damaged or has two different
            tensors of one name, or if it is a `.bin` file and PyTorch is not installed.
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
    """Opens one weight file of any name; its suffix determines the format.

    Raises:
        CheckpointError: If the file is damaged, contains no tensor or two different ones of one
            name, or if it is a `.bin` file and PyTorch is not installed.
    """
    tensors = by_name(_read(path))
    if not tensors:
        raise CheckpointError(
            f"{path} contains no tensors, so the model would keep random weights. Download the "
            "file again."
        )
    return tensors


def _read(path: Path) -> Iterator[tuple[str, LazyTensor]]:
    for name, tensor in READERS[path.suffix](path):
        yield _rename_layer_norm(name), tensor


def _read_shards(folder: Path, index: Path) -> Tensors:
    """Opens all shards, and checks that they contain the tensors that the index lists."""
    suffix = Path(index.name.removesuffix(".index.json")).suffix
    weight_map = member(read_json(index), "weight_map", dict, index)
    paths = {}
    for name, shard in weight_map.items():
        checked(shard, str, f"The shard of {name!r} in {index}", CheckpointError)
        paths[shard] = file_inside(folder, shard, index)
    missing = [s for s in paths if not (os.path.isfile(paths[s]) and s.endswith(suffix))]
    if missing or not paths:
        raise CheckpointError(
            f"{index} lists shards that do not exist: {shown(missing, 300)}. Download the "
            "checkpoint again."
        )
    found = {shard: list(_read(paths[shard])) for shard in sorted(paths)}
    stored = {shard: {name for name, _ in named} for shard, named in found.items()}
    candidates = {name: _possible_names(name, suffix) for name in weight_map}
    listed = set().union(*candidates.values())
    faults = {
        "lists tensors that their shards lack": [
            name for name, shard in weight_map.items() if not candidates[name] & stored[shard]
        ],
        "does not list tensors that its shards contain": [
            name for names in stored.values() for name in names if name not in listed
        ],
    }
    for fault, names in faults.items():
        if names:
            raise CheckpointError(
                f"{index} {fault}: {shown(sorted(names)[:3], 300)} ({len(names)} in all). The "
                "index and the shards do not belong together: download the checkpoint again."
            )
    return by_name(pair for named in found.values() for pair in named)


def _possible_names(name: str, suffix: str) -> set[str]:
    """Returns the PyTorch names that an entry of an index may refer to."""
    if suffix != ".h5":
        return {_rename_layer_norm(name)}
    # transformers 4 put the name of the model first in the index, but not in the shards.
    parts = name.split("/")
    return {_rename_layer_norm(_pytorch_name(rest)) for rest in (parts, parts[1:] or parts)}


def _read_safetensors(path: Path) -> Iterator[tuple[str, LazyTensor]]:
    import ml_dtypes  # noqa: F401  (registers bfloat16 in NumPy, which safetensors needs)
    from safetensors import safe_open

    try:
        file = safe_open(path, framework="numpy")
        untrained = (file.metadata() or {}).get(UNTRAINED, "").splitlines()
        for name in file.keys():  # noqa: SIM118  (the handle is not a dict)
            header = file.get_slice(name)
            dtype = _SAFETENSORS_TYPES.get(header.get_dtype(), header.get_dtype())
            load = partial(file.get_tensor, name)
            shape, trained = tuple(header.get_shape()), name not in untrained
            yield name, LazyTensor(name, shape, dtype, path, load, trained)
    except Exception as error:  # a bad format, the file system, an unknown dtype
        raise CheckpointError(
            f"{path} is not a complete safetensors file ({error}). It may have been truncated "
            "during a download or copy: download it again."
        ) from None


def _read_keras_h5(path: Path) -> Iterator[tuple[str, LazyTensor]]:
    """Reads the HDF5 files that the TensorFlow classes of transformers 4 wrote."""
    import h5py

    found: dict[str, tuple[tuple[int, ...], str]] = {}

    def add(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            if item.external or item.is_virtual:
                raise CheckpointError(
                    f"The tensor {name} of {path} is stored in another file. For security, only "
                    "tensors inside the checkpoint's own file are read: do not trust this "
                    "checkpoint."
                )
            found[name] = (tuple(item.shape or ()), item.dtype.name)

    try:
        # The file stays open while its tensors may be read, because its path may be replaced.
        file = h5py.File(path, "r")
        # A single file nests every weight in its layer and its model; a shard does not.
        inside = [k for k in file if isinstance(file.get(k, getlink=True), h5py.HardLink)]
        nesting = 2 if any("weight_names" in file[name].attrs for name in inside) else 0
        file.visititems(add)  # visititems does not follow links to other files
    except CheckpointError:
        raise
    except Exception as error:  # h5py raises OSError, KeyError, RuntimeError and others
        raise CheckpointError(
            f"{path} is not a complete HDF5 file ({error}): download it again."
        ) from None

    def load(name: str, conversion: Conversion, shape: tuple[int, ...]) -> np.ndarray:
        return conversion.save([file[name][()]])[0].reshape(shape)

    for name, (shape, dtype) in found.items():
        parts = name.split("/")
        parts = parts[nesting:] or parts[-1:]  # BART's final_logits_bias is in one group alone
        # TensorFlow stores kernels in the layout of Keras.
        is_kernel = _variable_name(parts) == "kernel" and len(shape) > 1
        conversion = KERNEL if is_kernel else IDENTITY
        (shape,) = conversion.shapes([shape])
        if _variable_name(parts) == "bias" and len(shape) == 2:
            shape = shape[1:]  # GPT-2's biases have the shape (1, outputs) there
        yield (
            _pytorch_name(parts),
            LazyTensor(name, shape, dtype, path, partial(load, name, conversion, shape)),
        )


def _variable_name(parts: list[str]) -> str:
    """Returns "kernel" for the path "encoder/layer_._0/output/kernel:0", split at "/"."""
    return parts[-1].split(":")[0]


def _pytorch_name(parts: list[str]) -> str:
    """Returns the PyTorch name of a variable of transformers 4's TensorFlow classes.

    Example:
        >>> _pytorch_name(["bert", "encoder", "layer_._0", "output", "kernel:0"])
        'bert.encoder.layer.0.output.weight'
        >>> _pytorch_name(["final_logits_bias:0"])
        'final_logits_bias'
    """
    # "layer_._0" is "layer.0" in PyTorch, and "mlm___cls" is "cls".
    scopes = [part.split("___")[-1] for part in parts[:-1]]
    module = ".".join(scopes).replace("_._", ".")
    variable = _variable_name(parts)
    leaf = {"kernel": "weight", "embeddings": "weight"}.get(variable, variable)
    return f"{module}.{leaf}" if module else leaf


def _read_torch_bin(path: Path) -> Iterator[tuple[str, LazyTensor]]:
    try:
        import torch
    except ImportError:
        raise CheckpointError(
            f"{path} is a pickle, which only PyTorch can open safely, and PyTorch is not "
            "installed. Use a revision of the checkpoint with model.safetensors (most have one), "
            "or install PyTorch with `pip install finetune-tf[parity]`."
        ) from None

    def is_state_dict(content: Any) -> bool:
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
        # Keep only the first sentence: PyTorch then explains how to open pickles unsafely.
        reason = (str(error).splitlines() or [type(error).__name__])[0].split(". ")[0][:100]
        raise CheckpointError(
            f"{path} cannot be opened by PyTorch: {reason}. It is damaged, or contains other "
            "objects than tensors. Download it again, or use a revision of the checkpoint with "
            "model.safetensors."
        ) from None
    if not is_state_dict(state):
        # Training scripts may wrap the state dict, as in {"state_dict": …, "epoch": 3}.
        values = list(state.values()) if isinstance(state, dict) else []
        inner = [value for value in values if is_state_dict(value) and value]
        if len(inner) != 1 or any(isinstance(value, torch.Tensor) for value in values):
            raise CheckpointError(
                f"{path} contains a {type(state).__name__} that is not a state dict, which maps "
                "names to tensors. Save the model with torch.save(model.state_dict(), path)."
            )
        state = inner[0]
    for name, tensor in state.items():
        dtype = str(tensor.dtype).removeprefix("torch.")
        yield name, LazyTensor(name, tuple(tensor.shape), dtype, path, partial(load, tensor))


def _rename_layer_norm(name: str) -> str:
    """Replaces the names gamma and beta that checkpoints converted from TensorFlow may have."""
    for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


READERS = {".safetensors": _read_safetensors, ".h5": _read_keras_h5, ".bin": _read_torch_bin}
