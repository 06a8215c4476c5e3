"""The check of a column of images, and what makes two images the same."""

import functools
import hashlib
import os
from collections.abc import Hashable
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
    if isinstance(values, CheckedImages):
        return values
    name, places = rows.name, rows.places
    values = [_unwrapped(value) for value in values]
    empty = offenders(values, is_missing)
    if empty:
        raise invalid_rows(
            f"The column {column!r} of {name} has rows without an image: {places.listed(empty)}. "
            "Remove these rows or fill them in.",
            empty,
            "without an image",
        )
    wrong = offenders(values, lambda value: not _may_be_image(value))
    if wrong:
        kind = type(wrong[0][1]).__name__
        raise invalid_rows(
            f"The column {column!r} of {name} must hold images: paths, the bytes of files, arrays "
            f"(height, width, 3) uint8, or images of Pillow; found {kind}: {places.listed(wrong)}.",
            wrong,
            "with something else than an image",
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
    _check_files(values, rows)
    return CheckedImages(values)


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
    value = _unwrapped(value)
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


def _check_files(values: list, rows: CheckedRows) -> None:
    name, places = rows.name, rows.places
    broken, reasons = [], {}
    for row, value in enumerate(values):
        try:
            check_file(value)
        except DataError as error:
            broken.append((row, value))
            reasons[row] = str(error)
    if broken:
        row, value = broken[0]
        others = f"; {len(broken):,} of {len(values):,} rows" if len(broken) > 1 else ""
        raise invalid_rows(
            f"The image {shown_image(value)} in {places.name(row)} of {name} cannot be used: "
            f"{reasons[row]}{others}. Replace or remove it.",
            broken,
            "with a file that is not a complete image",
        )


def _unwrapped(value: Any) -> Any:
    if isinstance(value, dict) and set(value) <= {"bytes", "path"}:
        return value.get("path") if value.get("bytes") is None else value["bytes"]
    if hasattr(value, "__array__") and not hasattr(value, "convert"):
        return np.asarray(value)
    return value


def _may_be_image(value: Any) -> bool:
    if isinstance(value, str | Path | bytes | bytearray):
        return True
    if isinstance(value, np.ndarray):
        return value.ndim in (2, 3)
    return hasattr(value, "convert") and hasattr(value, "size")  # an image of Pillow
