"""The files of a resumable fit: one for each save, verified by a checksum when it is read."""

import json
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finetune_tf.base.files import unfinished
from finetune_tf.base.temporary import remove_all_leftovers
from finetune_tf.errors import CheckpointError
from finetune_tf.messages import say

_NAME = re.compile(r"epoch-(\d{4,})-step-(\d{6,})\.safetensors", re.ASCII)
_DAMAGED = ".damaged"  # the suffix of a file whose checksum is wrong
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
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]
    must_be_finite: bool = False

    @property
    def size(self) -> int:
        """The number of bytes."""
        return int(np.prod(self.shape, dtype="int64")) * _numpy_dtype(self.dtype).itemsize


class NotFiniteError(Exception):
    """A weight to be saved is NaN or infinite."""


class Saves:
    """The saves of one fit in a folder, each a safetensors file named after epoch and step.

    Args:
        folder: The folder, which the first save creates.
        keep: The number of newest saves to keep.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self._keep = folder, keep

    def paths(self) -> list[Path]:
        """Returns the paths of the saves, the newest first."""
        found = list(self.folder.iterdir()) if self.folder.is_dir() else []
        places = {path: match for path in found if (match := _NAME.fullmatch(path.name))}
        order = sorted(places, key=lambda path: tuple(map(int, places[path].groups())))
        return order[::-1]

    def newest(self) -> tuple[Path, dict[str, Any], dict[str, np.ndarray]] | None:
        """Reads the newest save; one that is damaged is put aside, with a message.

        Returns:
            Its path, its state and its arrays; None without a save.
        """
        remove_all_leftovers(self.folder)
        for path in self.paths():
            try:
                return path, *read(path)
            except CheckpointError as error:
                aside = path.with_name(path.name + _DAMAGED)
                os.replace(path, aside)
                say(f"{error} It is now called {aside.name}, and the save before it is used.")
        return None

    def write(self, place: tuple[int, int], state: Any, arrays: dict[str, Stored]) -> Path:
        """Writes a save and removes those that are too many.

        Args:
            place: The number of finished epochs, and of finished steps of the next one.
            state: What JSON can hold. `state["best"]` names a save that is kept, or is None.
            arrays: The arrays by name.

        Returns:
            The path of the save.

        Raises:
            CheckpointError: If it cannot be written, for example on a full disk. Then the former
                saves remain.
            NotFiniteError: If weights are NaN or infinite. Then nothing is written.
        """
        path = self.folder / "epoch-{:04}-step-{:06}.safetensors".format(*place)
        with unfinished(path, sync=True) as temporary:
            _write(temporary, state, arrays)
        best = (state.get("best") or {}).get("file")
        for old in self.paths()[self._keep :]:
            if old.name != best:
                old.unlink(missing_ok=True)
        return path


def _write(path: Path, state: Any, arrays: dict[str, Stored]) -> None:
    """Writes a safetensors file; no array but the one being written is copied."""
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


def read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Reads a save and compares its checksum.

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
