"""Prepared images as rows of a data set: decoded once, in several threads, and stored."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from finetune_tf.errors import DataError
from finetune_tf.images.processor import ImageProcessor

_WORKERS = 4  # Pillow and files release Python's lock
_IN_MEMORY = 256 << 20  # bytes up to which images are stored in memory and not in a file
_KEPT = 2  # processors whose prepared images are kept, as two models are compared at most


class CheckedImages(list):
    """A column of images that were checked, with the prepared images that models made of them.

    A model prepares the images of one data set once, however many batches are made. The prepared
    images are freed together with the column.

    Example:
        >>> from finetune_tf.images import CheckedImages, ImageProcessor
        >>> column = CheckedImages([np.zeros((4, 4), "uint8")])
        >>> processor = ImageProcessor.from_config({"size": 8}, "ViTImageProcessor")
        >>> prepared = column.prepared(processor, "row {}".format)
        >>> prepared is column.prepared(processor, "row {}".format), prepared.shape
        (True, (1, 8, 8, 3))
    """

    @property
    def prepared_class(self) -> "type[PreparedImages]":
        """The class of the prepared rows."""
        return PreparedImages

    def __init__(self, images: Iterable[Any] = ()) -> None:
        super().__init__(images)
        self._prepared: dict[str, PreparedImages] = {}

    def prepared(
        self, processor: ImageProcessor, title: Callable[[int], str], **options: Any
    ) -> "PreparedImages":
        """Returns the prepared images for a processor; the same object for equal processors.

        Args:
            processor: The processor of a model.
            title: As for `PreparedImages`. It must not refer to the examples of this column, which
                would otherwise be freed late.
            **options: Further arguments of the class of the rows.
        """
        key = json.dumps([processor.to_config(), options], sort_keys=True)
        found = self._prepared.pop(key, None)
        if found is None:
            found = self.prepared_class(list(self), processor, title, **options)
        self._prepared[key] = found  # the last one that was used
        while len(self._prepared) > _KEPT:
            del self._prepared[next(iter(self._prepared))]
        return found


class PreparedImages(Sequence):
    """The rows (H, W, 3) uint8 that a processor makes of images.

    Each image is decoded and prepared when it is first read, and stored: in memory if all of them
    are small, otherwise in a temporary file, which is deleted with the process and whose pages the
    operating system keeps in memory as long as there is room. Without room on the disk, images are
    decoded each time. Rows with the same path or object share one prepared image.

    Args:
        images: What `decode` accepts, one for each row.
        processor: The processor of the model.
        title: Returns the description of a row for messages, such as "line 3 of train.csv".
        in_memory: Bytes up to which the prepared images are stored in memory.

    Attributes:
        shape: (rows, H, W, 3).
        is_stored: Whether images are decoded only once.
        noun: What a row is, for messages.
    """

    noun = "image"

    def __init__(
        self,
        images: Sequence[Any],
        processor: ImageProcessor,
        title: Callable[[int], str],
        in_memory: int = _IN_MEMORY,
    ) -> None:
        self._images, self._processor, self._title = images, processor, title
        self.shape = (len(images), *self._shape_of_row(), 3)
        places: dict[Hashable, int] = {}
        # The place of each row in the store.
        self._places = np.array([places.setdefault(identity(i), len(places)) for i in images], int)
        self._is_done = np.zeros(len(places), bool)
        self._store = make_store((len(places), *self.shape[1:]), in_memory)
        self.is_stored = self._store is not None

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, row: int) -> np.ndarray:
        row = range(len(self))[row]
        place = self._places[row]
        if self._is_done[place]:
            return np.asarray(self._store[place])
        try:
            levels = self._prepare(self._images[row])
        except DataError as error:
            raise self._named(row, error) from None
        if self.is_stored:
            self._store[place] = levels
            self._is_done[place] = True
        return levels

    def _shape_of_row(self) -> tuple[int, ...]:
        return self._processor.output_size

    def _prepare(self, image: Any) -> np.ndarray:
        return self._processor(image)

    def _named(self, row: int, error: DataError) -> DataError:
        image = self._images[row]
        has_no_name = isinstance(image, bytes | bytearray | np.ndarray | list | tuple)
        which = "" if has_no_name else f" {str(image)!r}"
        return DataError(
            f"The {self.noun}{which} of {self._title(row)} cannot be used: {error}. Replace or "
            "remove it."
        )

    def batch(self, rows: np.ndarray, dtype: str = "uint8") -> np.ndarray:
        """Returns rows (B,) as an array (B, H, W, 3), or (B, T, H, W, 3) for clips."""
        places = self._places[rows]
        if self._is_done[places].all():
            return np.asarray(self._store[places])
        with ThreadPoolExecutor(_WORKERS) as pool:
            return np.stack(list(pool.map(self.__getitem__, rows.tolist())))

    def prepare_all(self) -> None:
        """Prepares all images, so that an image that cannot be used is found before training.

        Raises:
            DataError: If an image cannot be used.
        """
        with ThreadPoolExecutor(_WORKERS) as pool:
            firsts = np.unique(self._places, return_index=True)[1]
            for _ in pool.map(self.__getitem__, firsts.tolist()):
                pass  # the iterator raises the errors; a list would hold all images


def identity(value: Any) -> Hashable:
    """Returns what is equal for the same path, text, content of a file or object.

    Args:
        value: A value of a column, which keeps objects alive, so that their ids stay theirs.

    Example:
        >>> from pathlib import Path
        >>> from finetune_tf.images.prepared import identity
        >>> identity("1.jpg") == identity(Path("1.jpg"))
        True
    """
    if isinstance(value, str | os.PathLike):
        return os.fspath(value)
    return value if isinstance(value, bytes) else id(value)


def make_store(shape: tuple[int, ...], in_memory: int = _IN_MEMORY) -> np.ndarray | None:
    """Returns an array for prepared images, in memory or in a temporary file.

    Args:
        shape: (rows, H, W, 3).
        in_memory: Bytes up to which the array is in memory.

    Returns:
        The array in uint8; None if there is no room for it on the disk.
    """
    size = int(np.prod(shape, dtype="int64"))
    if size <= in_memory:
        return np.empty(shape, "uint8")
    if shutil.disk_usage(tempfile.gettempdir()).free < 2 * size:
        return None
    # The file has no name, so nothing is left of it, even if the process is killed.
    with tempfile.TemporaryFile() as file:
        try:
            # A disk that fills up later would end the process.
            getattr(os, "posix_fallocate", _lengthen)(file.fileno(), 0, size)
        except OSError:
            return None
        return np.memmap(file, "uint8", "r+", shape=shape)


def _lengthen(file: int, start: int, size: int) -> None:
    os.truncate(file, start + size)
