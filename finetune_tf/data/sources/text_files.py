"""Reads text files, compressed or not, and explains why a file cannot be read."""

import gzip
import zlib
from pathlib import Path
from typing import Any

from finetune_tf.errors import DataError, DataTypeError

# The first bytes of files that are not text, and what to do with such a file.
_OTHER_FORMATS = {
    b"PK\x03\x04": "an Excel sheet or a ZIP archive: read sheets with ft.data.from_excel, and "
    "unpack archives",
    b"\xd0\xcf\x11\xe0": "an old Excel file (.xls): save it as .xlsx for ft.data.from_excel, or as "
    "CSV",
    b"PAR1": "a Parquet file: read it with pandas and pass the frame to ft.data.from_pandas",
    b"ARROW1": "an Arrow file: read it with datasets.load_from_disk for ft.data.from_huggingface",
    b"BZh": "packed with bzip2: unpack it, or pack it with gzip",
    b"\xfd7zXZ": "packed with xz: unpack it, or pack it with gzip",
    b"\x28\xb5\x2f\xfd": "packed with zstd: unpack it, or pack it with gzip",
    b"%PDF": "a PDF file: extract its text first",
}
# Longer byte order marks come first, because that of UTF-32 begins with that of UTF-16.
_MARKS = {
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_ENCODINGS = "for example encoding='cp1252', 'latin-1' or 'utf-16'"


def as_path(path: Any) -> Path:
    """Converts an argument to a path.

    Raises:
        DataTypeError: If it is not a path.
    """
    try:
        return Path(path)
    except TypeError:
        raise DataTypeError(
            f"path= is the path of a file, found a {type(path).__name__}. Rows that are in memory "
            "already become examples with ft.data.from_arrays or from_pandas."
        ) from None


def read_bytes(path: Path) -> bytes:
    """The content of a regular file; a gzip file is unpacked.

    Raises:
        DataError: If there is no such file, or it cannot be read.
    """
    try:
        if path.is_dir():
            raise DataError(f"{path} is a folder. Give the path of one file in it.")
        if path.exists() and not path.is_file():
            raise DataError(f"{path} is a pipe or a device. Write its content to a file first.")
        if not path.is_file():
            raise DataError(
                f"There is no file {_shown(path)}. Check the path and the working directory."
            )
        content = path.read_bytes()
    except DataError:
        raise
    except OSError as error:  # no permission, a name that is too long, a disk that fails
        raise DataError(f"{_shown(path)} cannot be read ({error.strerror}).") from None
    except ValueError as error:  # a NUL character in the name
        raise DataError(f"{_shown(path)} is no path of a file ({error}).") from None
    if not content.startswith(b"\x1f\x8b"):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path.name} is a damaged gzip file ({error}). Get it again.") from None


def read_text(path: Path, encoding: str) -> str:
    """The text of a file, without a byte order mark.

    Raises:
        DataError: If it cannot be read, is empty, not text, or in another encoding.
        DataTypeError: If the encoding is not a text.
    """
    if not isinstance(encoding, str):
        raise DataTypeError(f"encoding= is a name such as 'utf-8', found {encoding!r}.")
    content = read_bytes(path)
    for mark, what in _OTHER_FORMATS.items():
        if content.startswith(mark):
            raise DataError(f"{path.name} is {what}.")
    try:
        decoded = content.decode(encoding)
    except UnicodeDecodeError as error:
        marked = next((_MARKS[mark] for mark in _MARKS if content.startswith(mark)), None)
        advice = (
            f"Its byte order mark says encoding={marked!r}"
            if marked
            else (f"Say which encoding it has, {_ENCODINGS}")
        )
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path.name} is not {encoding}: byte 0x{content[error.start]:02x} at offset "
            f"{error.start:,} (line {line:,}) does not fit. {advice}."
        ) from None
    except (LookupError, ValueError):
        # This includes a UnicodeError without a position and a NUL character in the encoding.
        raise DataError(
            f"Unknown encoding {encoding!r}, or {path.name} is not in it; try 'utf-8' or 'cp1252'."
        ) from None
    if not isinstance(decoded, str):
        raise DataError(f"Unknown encoding {encoding!r} for text; try 'utf-8' or 'cp1252'.")
    decoded = decoded.removeprefix("\ufeff")
    if not decoded.strip():
        raise DataError(f"{path.name} is empty: at least one example is needed.")
    if "\0" in decoded:
        line = decoded.count("\n", 0, decoded.index("\0")) + 1
        raise DataError(
            f"{path.name} has NUL characters, the first one in line {line:,}: it is damaged or in "
            f"another encoding than {encoding!r}. Say which one it has, {_ENCODINGS}."
        )
    return decoded


def suffix_of(path: Path) -> str:
    """The suffix of a file's name in lower case, without ".gz", such as ".tsv"."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [".gz"]:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _shown(path: Path) -> str:
    text = str(path).replace("\0", "\\0")
    return text if len(text) <= 200 else f"{text[:197]}…"
