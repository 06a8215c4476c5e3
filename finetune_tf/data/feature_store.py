"""The store of cached features: arrays in memory or in files, by a hash of what they depend on."""

import math
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil

from finetune_tf.base.files import unfinished
from finetune_tf.errors import CacheError, FinetuneError
from finetune_tf.messages import say

Precision = Literal["float32", "bfloat16"]
Arrays = dict[str, np.ndarray]  # by the name of the model input that each is for


class FeatureStore:
    """Arrays by a key that is a hash of all that they depend on, so they are never out of date.

    Args:
        folder: The folder of the files; None for memory.
        precision: The dtype in which values are stored. bfloat16 takes half the space.
    """

    def __init__(self, folder: Path | None, precision: Precision = "float32") -> None:
        self.folder = folder
        self.precision = precision
        self._arrays: dict[str, Arrays] = {}

    def get(
        self,
        key: str,
        shapes: Mapping[str, tuple[int, ...]],
        title: str,
        compute: Callable[[Arrays], None],
    ) -> Arrays:
        """Returns arrays that belong together, and computes them if they are not stored.

        Args:
            key: A hash of all that the values depend on.
            shapes: The shapes of the arrays by name, such as (tokens of all rows, features) or
                (rows, features).
            title: What is stored, for messages: "Features of train.csv".
            compute: Fills arrays of these shapes; what it assigns is cast to their precision.

        Raises:
            CacheError: If there is too little space.
        """
        if key not in self._arrays:
            # NumPy files have no bfloat16, so they hold its bits.
            dtype = np.uint16 if self.precision == "bfloat16" else np.float32
            size = sum(map(math.prod, shapes.values())) * np.dtype(dtype).itemsize
            if self.folder is None:
                _refuse_too_large(size, psutil.virtual_memory().available, "memory", title)
                say(f"{title}: computed once, {_readable(size)} in memory.")
                arrays = {name: np.empty(shape, dtype) for name, shape in shapes.items()}
                compute(self._as_floats(arrays))
            else:
                arrays = self._files(self.folder, key, shapes, dtype, size, title, compute)
            self._arrays[key] = self._as_floats(arrays)
        return self._arrays[key]

    def _files(
        self,
        folder: Path,
        key: str,
        shapes: Mapping[str, tuple[int, ...]],
        dtype: Any,
        size: int,
        title: str,
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
                say(f"{title}: read from {where}.")
                return arrays
            except CacheError as error:
                say(f"{title}: computed again, because {error}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(folder).free
        except OSError as error:
            raise CacheError(
                f"{folder} cannot be written ({error.strerror}). Store features in another "
                "folder, or in memory."
            ) from None
        _refuse_too_large(size, free, str(folder), title)
        say(f"{title}: computed once, {_readable(size)} in {where}.")
        with ExitStack() as files:
            arrays = {}
            for name, path in paths.items():
                beside = files.enter_context(unfinished(path, CacheError))
                arrays[name] = np.lib.format.open_memmap(beside, "w+", dtype, shapes[name])
                allocate(beside)
            compute(self._as_floats(arrays))
            for array in arrays.values():
                array.flush()
        return mapped()

    def _as_floats(self, arrays: Arrays) -> Arrays:
        """Views of the arrays in the precision of the store."""
        return {name: array.view(self.precision) for name, array in arrays.items()}


def allocate(path: Path) -> None:
    """Allocates the disk space of a sparse file.

    Without this, a disk that fills up while a mapped file is written ends the process with SIGBUS.

    Raises:
        OSError: If the disk has too little space.
    """
    size = path.stat().st_size
    with open(path, "r+b") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
            return
        zeros = bytes(1 << 20)
        header = file.read(min(size, 4096))  # of a NumPy file
        for start in range(0, size, len(zeros)):
            file.seek(start)
            file.write(zeros[: size - start])
        file.seek(0)
        file.write(header)


def map_array(
    path: Path, shape: tuple[int | None, ...], dtype: Any, error: type[FinetuneError]
) -> np.ndarray:
    """Maps a NumPy file that the library wrote, without reading it.

    Args:
        path: The file.
        shape: The expected shape; None for an axis of any size.
        dtype: The expected dtype; an abstract one such as `np.integer` allows all of its kind.
        error: The class of the error to raise.

    Raises:
        FinetuneError: An `error`, if the file is damaged or has another shape or dtype.
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


def _refuse_too_large(size: int, free: int, where: str, title: str) -> None:
    if size > 0.8 * free:
        raise CacheError(
            f"{title} take {_readable(size)}, but {where} has {_readable(free)} free. Store them "
            'elsewhere (folder="…"), in half the room (precision="bfloat16"), or train without.'
        )


def _readable(size: float) -> str:
    for unit in ("bytes", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
