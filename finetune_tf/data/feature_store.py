"""Arrays of one piece per row, kept in memory or in a file, and batches of them.

Shape legend: R rows, T tokens of all rows, B batch, L length, D features.
"""

import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil

from finetune_tf.base.files import unfinished
from finetune_tf.errors import CacheError, FinetuneError
from finetune_tf.messages import say

Precision = Literal["float32", "bfloat16"]
Arrays = dict[str, np.ndarray]  # by the name of the input that each is for


@dataclass(frozen=True)
class StoredRows:
    """What was computed for each row, without padding.

    Attributes:
        array: (T, D) with the tokens of all rows on end, or (R, …) with one vector (or another
            array that is as large for every row) a row.
        ends: (R,), where each row ends in `array`; None without tokens.
        dtype: Of batches.
        axis: Name of the feature of encoded rows whose tokens the array has vectors for.
    """

    array: np.ndarray
    ends: np.ndarray | None
    dtype: str
    axis: str = "input_ids"

    @property
    def has_tokens(self) -> bool:
        """Whether a row has one vector a token."""
        return self.ends is not None

    def batch(self, rows: np.ndarray, length: int | None = None) -> np.ndarray:
        """Rows (B,) as an array (B, L, D) padded with zeros, or (B, …) without tokens.

        Args:
            rows: Their numbers.
            length: L; by default that of the longest of these rows.
        """
        if self.ends is None:
            return self._widened(self.array[rows])
        starts = np.where(rows > 0, self.ends[rows - 1], 0)
        if length is None:
            length = int((self.ends[rows] - starts).max())
        out = np.zeros((len(rows), length, self.array.shape[1]), self.dtype)
        for i, (start, end) in enumerate(zip(starts, self.ends[rows], strict=True)):
            out[i, : end - start] = self._widened(self.array[start:end])
        return out

    def _widened(self, values: np.ndarray) -> np.ndarray:
        if values.dtype == np.uint16:
            values = values.view("bfloat16")
        return values.astype(self.dtype, copy=False)


class RowStore:
    """Arrays by a key that says all that they depend on: such an array is never out of date.

    Args:
        folder: Where files go; None for memory.
        precision: Of what is kept. bfloat16 takes half the room.
    """

    def __init__(self, folder: Path | None, precision: Precision = "float32") -> None:
        self.folder = folder
        self.precision = precision
        self._kept: dict[str, Arrays] = {}

    def get(
        self,
        key: str,
        shapes: Mapping[str, tuple[int, ...]],
        what: str,
        compute: Callable[[Arrays], None],
    ) -> Arrays:
        """Arrays that belong together, computed if they are not there.

        Args:
            key: A hash of all that the values depend on.
            shapes: Of the arrays by name, such as (T, D) or (R, D).
            what: Of what these are the features, for messages.
            compute: Fills arrays of these shapes; `narrow` what goes in.

        Raises:
            CacheError: If there is too little room.
        """
        if key in self._kept:
            return self._kept[key]
        dtype = np.uint16 if self.precision == "bfloat16" else np.float32
        size = sum(map(math.prod, shapes.values())) * np.dtype(dtype).itemsize
        if self.folder is None:
            _refuse_too_large(size, psutil.virtual_memory().available, "memory", what)
            say(f"{what}: computed once, {_readable(size)} in memory.")
            arrays = {name: np.empty(shape, dtype) for name, shape in shapes.items()}
            compute(arrays)
        else:
            arrays = self._files(self.folder, key, shapes, dtype, size, what, compute)
        self._kept[key] = arrays
        return arrays

    def _files(
        self,
        folder: Path,
        key: str,
        shapes: Mapping[str, tuple[int, ...]],
        dtype: Any,
        size: int,
        what: str,
        compute: Callable[[Arrays], None],
    ) -> Arrays:
        paths = {
            name: folder / (f"{key}_{i}.npy" if i else f"{key}.npy")
            for i, name in enumerate(shapes)
        }
        where = folder if len(paths) > 1 else next(iter(paths.values()))

        def mapped() -> Arrays:
            return {n: map_array(p, shapes[n], dtype, CacheError) for n, p in paths.items()}

        if all(path.is_file() for path in paths.values()):
            try:
                arrays = mapped()
                say(f"{what}: read from {where}.")
                return arrays
            except CacheError as error:
                say(f"{what}: computed again, because {error}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(folder).free
        except OSError as error:
            raise CacheError(
                f"{folder} cannot be written ({error.strerror}). Store features in another "
                "folder, or in memory."
            ) from None
        _refuse_too_large(size, free, str(folder), what)
        say(f"{what}: computed once, {_readable(size)} in {where}.")
        with ExitStack() as files:
            arrays = {}
            for name, path in paths.items():
                beside = files.enter_context(unfinished(path, CacheError))
                arrays[name] = np.lib.format.open_memmap(beside, "w+", dtype, shapes[name])
                allocate(beside)
            compute(arrays)
            for array in arrays.values():
                array.flush()
        return mapped()

    def narrow(self, values: np.ndarray) -> np.ndarray:
        """Values in the precision and the type that arrays are kept in."""
        if self.precision == "bfloat16":
            return values.astype("bfloat16").view(np.uint16)
        return values.astype(np.float32, copy=False)


def allocate(path: Path) -> None:
    """Gives a file with holes all its room on the disk.

    Without this, a disk that fills while a mapped file is written ends the process with SIGBUS.

    Raises:
        OSError: If the disk has too little room.
    """
    size = path.stat().st_size
    with open(path, "r+b") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
            return
        piece = bytes(1 << 20)
        kept = file.read(min(size, 4096))  # the header of a NumPy file
        for start in range(0, size, len(piece)):
            file.seek(start)
            file.write(piece[: size - start])
        file.seek(0)
        file.write(kept)


def map_array(
    path: Path, shape: tuple[int | None, ...], dtype: Any, error: type[FinetuneError]
) -> np.ndarray:
    """A NumPy file that one of the library's own caches wrote, mapped and not read.

    Args:
        path: The file.
        shape: It has to have; None for any number.
        dtype: It has to have; an abstract one such as `np.integer` stands for all its kinds.
        error: The class of the error to raise.

    Raises:
        FinetuneError: An `error`, if it is damaged or has another shape or type.
    """
    try:
        array = np.lib.format.open_memmap(path, mode="r")  # never opens a pickle
    except (OSError, ValueError, EOFError, TypeError, OverflowError, MemoryError) as reason:
        raise error(f"{path} is damaged ({reason}).") from None
    fits = len(array.shape) == len(shape) and all(
        wanted in (None, found) for wanted, found in zip(shape, array.shape, strict=True)
    )
    if not fits or not np.issubdtype(array.dtype, dtype):
        raise error(
            f"{path} is damaged: it holds {array.dtype} {array.shape}, expected "
            f"{np.dtype(dtype).name if isinstance(dtype, str) else dtype.__name__} {shape}."
        )
    return array


def ends_of(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Where each row ends when all stand on end: (R,)."""
    return np.cumsum([len(row) for row in rows])


def _refuse_too_large(size: int, free: int, where: str, what: str) -> None:
    if size > 0.8 * free:
        raise CacheError(
            f"{what} take {_readable(size)}, but {where} has {_readable(free)} free. Store them "
            'elsewhere (folder="…"), in half the room (precision="bfloat16"), or train without.'
        )


def _readable(size: float) -> str:
    for unit in ("bytes", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
