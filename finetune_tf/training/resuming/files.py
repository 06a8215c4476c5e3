"""The files of saves, verified by a checksum when they are read.

A save is such a file, or a folder with one that Orbax has written; see `orbax_folders`.
"""

import json
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finetune_tf.errors import CheckpointError

_STATE = "state.safetensors"  # in the folder of a save through Orbax; it is written last
_CHECKSUM = "00000000"  # stands in the header while its checksum is computed
_FORMAT = "finetune_tf.resume/1"
#: The dtypes of arrays in a save, with their names in safetensors files.
DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64",
    "int32": "I32", "int16": "I16", "int8": "I8", "uint64": "U64", "uint32": "U32",
    "uint16": "U16", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Stored:
    """An array to be written, whose values are read when they are needed.

    Attributes:
        shape: Its shape.
        dtype: The name of its dtype.
        read: Returns the array.
        must_be_finite: Whether NaN or infinity in it makes a save worthless.
        tensor: The tensor that has the values, for a variable on JAX; otherwise None.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]
    must_be_finite: bool = False
    tensor: Any = None

    @property
    def size(self) -> int:
        """The number of bytes."""
        return int(np.prod(self.shape, dtype="int64")) * _numpy_dtype(self.dtype).itemsize


class NotFiniteError(Exception):
    """A weight to be saved is NaN or infinite."""


def is_complete(path: Path) -> bool:
    """Whether a save is complete.

    Args:
        path: Its path.
    """
    return path.is_file() or (path / _STATE).exists()


def remove(path: Path) -> None:
    """Removes a save, if there is one. A folder is incomplete from the beginning on.

    Args:
        path: Its path.
    """
    if path.is_dir():
        (path / _STATE).unlink(missing_ok=True)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def state_file(path: Path) -> Path:
    """Returns the file of a save through Orbax that has all but the arrays of devices.

    Args:
        path: The folder of the save.
    """
    return path / _STATE


def write_file(path: Path, state: Any, arrays: dict[str, Stored]) -> None:
    """Writes a safetensors file; no array but the one being written is copied.

    Args:
        path: The file.
        state: As for `Saves.write`.
        arrays: As for `Saves.write`.

    Raises:
        NotFiniteError: As for `Saves.write`.
    """
    metadata = {"format": _FORMAT, "checksum": _CHECKSUM, "state": json.dumps(state)}
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, array in arrays.items():
        offsets = [end, end + array.size]
        end += array.size
        entry = {"dtype": DTYPES[array.dtype], "shape": array.shape, "data_offsets": offsets}
        header[name] = entry
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        checksum = zlib.crc32(text)
        for array in arrays.values():
            values = np.ascontiguousarray(array.read())
            if array.must_be_finite and not _is_finite(values):
                raise NotFiniteError
            data = values.reshape(-1).view("uint8").data
            checksum = zlib.crc32(data, checksum)
            file.write(data)
        place = text.index(_CHECKSUM.encode())
        file.seek(8 + place)
        file.write(f"{checksum:08x}".encode())


def read_file(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Reads a safetensors file and compares its checksum.

    Args:
        path: The file.

    Returns:
        The state and the arrays of the save.

    Raises:
        CheckpointError: If the file is damaged or cannot be read.
    """
    try:
        content = path.read_bytes()
        (size,) = struct.unpack_from("<Q", content)
        header = json.loads(content[8 : 8 + size])
        metadata = header.pop("__metadata__")
        state = json.loads(metadata["state"])
        # The header with zeros in the place of the checksum, as when it was computed.
        text = content[8 : 8 + size].replace(metadata["checksum"].encode(), _CHECKSUM.encode(), 1)
        data = memoryview(content)[8 + size :]
        is_whole = zlib.crc32(data, zlib.crc32(text)) == int(metadata["checksum"], 16)
        arrays = dict(_arrays(header, data)) if is_whole else {}
        is_known = metadata["format"] == _FORMAT
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        reason = getattr(error, "strerror", None) or "it is not a complete save"
        raise CheckpointError(f"{path} cannot be read: {reason}.") from None
    if not is_whole:
        raise CheckpointError(f"{path} is damaged: its checksum is not that of its content.")
    if not is_known:
        raise CheckpointError(f"{path} has the format {metadata['format']}, not {_FORMAT}.")
    return state, arrays


def _arrays(header: dict[str, Any], data: memoryview) -> Iterator[tuple[str, np.ndarray]]:
    dtypes = {code: name for name, code in DTYPES.items()}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        flat = np.frombuffer(data[begin:end], _numpy_dtype(dtypes[entry["dtype"]]))
        yield name, flat.reshape(entry["shape"])


def _numpy_dtype(name: str) -> np.dtype:
    import ml_dtypes  # noqa: F401  (registers bfloat16 in NumPy)

    return np.dtype(name)


def _is_finite(array: np.ndarray) -> bool:
    if array.dtype.kind in "iub":
        return True
    with np.errstate(all="ignore"):
        # A finite sum, which needs no copy, proves that all values are finite.
        return bool(np.isfinite(array.sum(dtype="float32")) or np.isfinite(array).all())
