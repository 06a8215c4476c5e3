"""The check of a column of images, and what makes two images the same."""

import functools
import hashlib
import os
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finetune_tf.data.checks import CheckedRows, invalid_rows, is_missing, offenders
from finetune_tf.data.places import shortened
from finetune_tf.errors import DataError, DataTypeError
from finetune_tf.images import CheckedImages
from finetune_tf.images.decoding import check_file, decode

_NAMED = 10  # missing files that a message names
_HASHES = 1 << 18  # files whose hashes are kept


@dataclass(frozen=True)
class Medium:
    """What the values of a column of images, or of videos, are.

    Attributes:
        noun: What a value is, with its article: "an image".
        expected: What the column must hold, for messages.
        may_be: Whether a value is of a type that is accepted.
        check: Raises a `DataError` if a value, of such a type, cannot be opened or is incomplete.
        file: What a file has to be, for messages.
    """

    noun: str
    expected: str
    may_be: Callable[[Any], bool]
    check: Callable[[Any], None]
    file: str

    @property
    def name(self) -> str:
        """The noun without its article."""
        return self.noun.partition(" ")[2]


def check_images(values: list, column: str, rows: CheckedRows) -> list:
    """Checks that each value of a column is an image: a path, bytes, an array, or one of Pillow.

    Files are opened, and it is checked that they are complete. Those of the usual formats are not
    decoded for that.

    Args:
        values: One value for each row.
        column: Name of the column.
        rows: The examples.

    Returns:
        The same values, which are not checked again. Dicts with "bytes" or "path", as `datasets`
        has them, become those, and tensors become arrays.

    Raises:
        DataError: If a value or a file is missing, or a file is not an image.
        DataTypeError: If a value is something else.
    """
    if type(values) is CheckedImages:
        return values
    return CheckedImages(checked_media([unwrapped(v) for v in values], column, rows, _IMAGE))


def checked_media(values: list, column: str, rows: CheckedRows, medium: Medium) -> list:
    """Returns the values of a column of images or videos, after they were checked.

    Args:
        values: One value for each row.
        column: Name of the column.
        rows: The examples.
        medium: What the values are.

    Raises:
        DataError: As for `check_images`.
        DataTypeError: As for `check_images`.
    """
    name, places = rows.name, rows.places
    empty = offenders(values, is_missing)
    if empty:
        raise invalid_rows(
            f"The column {column!r} of {name} has rows without {medium.noun}: "
            f"{places.listed(empty)}. Remove these rows or fill them in.",
            empty,
            f"without {medium.noun}",
        )
    wrong = offenders(values, lambda value: not medium.may_be(value))
    if wrong:
        kind = type(wrong[0][1]).__name__
        raise invalid_rows(
            f"The column {column!r} of {name} must hold {medium.expected}; found {kind}: "
            f"{places.listed(wrong)}.",
            wrong,
            f"with something else than {medium.noun}",
            DataTypeError,
        )
    missing = offenders(values, lambda v: isinstance(v, str | Path) and not os.path.isfile(v))
    if missing:
        named = ", ".join(f"{str(path)!r} ({places.name(row)})" for row, path in missing[:_NAMED])
        more = ", …" if len(missing) > _NAMED else ""
        is_relative = not all(os.path.isabs(path) for _, path in missing)
        advice = f" Relative paths begin at the current folder, {os.getcwd()}."
        raise invalid_rows(
            f"The column {column!r} of {name} names files that do not exist: {named}{more}; "
            f"{len(missing):,} of {len(values):,} rows.{advice if is_relative else ''}",
            missing,
            "with a missing file",
        )
    _check_files(values, rows, medium)
    return values


def image_in_folder(value: Any, folder: Path) -> Any:
    """Returns the value of a column of images with a relative path joined to a folder.

    Args:
        value: What a row of a file has for its image; anything but a path stays as it is.
        folder: The folder of that file.

    Example:
        >>> from pathlib import Path
        >>> from finetune_tf.data.image_columns import image_in_folder
        >>> image_in_folder("photos/1.jpg", Path("/data"))
        '/data/photos/1.jpg'
    """
    value = unwrapped(value)
    if not isinstance(value, str | Path) or is_missing(value):
        return value
    return os.path.join(folder, value)


def image_key(image: Any) -> Hashable:
    """Returns what is equal for equal images: a hash of the file, or of the levels and their shape.

    Args:
        image: As for `images.decode`.
    """
    if isinstance(image, str | Path):
        status = os.stat(image)
        return _file_key(os.path.abspath(image), status.st_size, status.st_mtime_ns)
    if isinstance(image, bytes | bytearray):
        return (None, _hash(image))
    array = image if isinstance(image, np.ndarray) else decode(image)
    return (array.shape, _hash(array.tobytes()))


def shown_image(image: Any) -> str:
    """Returns an image as messages show it: the complete path, or the kind of another value.

    Args:
        image: As for `images.decode`.
    """
    if isinstance(image, np.ndarray):
        return f"of the shape {image.shape}"
    return repr(str(image)) if isinstance(image, str | Path) else shortened(image)


@functools.lru_cache(maxsize=_HASHES)
def _file_key(path: str, size: int, changed: int) -> Hashable:
    """The key of a file, which is read again only if its size or its time has changed."""
    return (None, _hash(Path(path).read_bytes()))


def _hash(content: bytes | bytearray) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def _check_files(values: list, rows: CheckedRows, medium: Medium) -> None:
    name, places = rows.name, rows.places
    broken, reasons = [], {}
    for row, value in enumerate(values):
        try:
            medium.check(value)
        except DataError as error:
            broken.append((row, value))
            reasons[row] = str(error)
    if broken:
        row, value = broken[0]
        others = f"; {len(broken):,} of {len(values):,} rows" if len(broken) > 1 else ""
        raise invalid_rows(
            f"The {medium.name} {shown_image(value)} in {places.name(row)} of {name} cannot be "
            f"used: {reasons[row]}{others}. Replace or remove it.",
            broken,
            f"with a file that is not {medium.file}",
        )


def unwrapped(value: Any) -> Any:
    """Returns the path or the bytes in a dict as `datasets` has them, and arrays of tensors.

    Args:
        value: A value of a column of images or videos.
    """
    if isinstance(value, dict) and set(value) <= {"bytes", "path"}:
        return value.get("path") if value.get("bytes") is None else value["bytes"]
    if hasattr(value, "__array__") and not hasattr(value, "convert"):
        return np.asarray(value)
    return value


def may_be_image(value: Any) -> bool:
    """Whether a value is of a type that images can have.

    Args:
        value: After `unwrapped`.
    """
    if isinstance(value, str | Path | bytes | bytearray):
        return True
    if isinstance(value, np.ndarray):
        return value.ndim in (2, 3)
    return hasattr(value, "convert") and hasattr(value, "size")  # an image of Pillow


_IMAGE = Medium(
    noun="an image",
    expected=(
        "images: paths, the bytes of files, arrays (height, width, 3) uint8, or images of Pillow"
    ),
    may_be=may_be_image,
    check=check_file,
    file="a complete image",
)
