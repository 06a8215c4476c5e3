"""Where the command line's data come from: files by their ending, data sets by their name."""

import inspect
import sys
from pathlib import Path
from typing import Any

import finetune_tf as ft
from finetune_tf.data.sources.text_files import suffix_of
from finetune_tf.errors import DataError

# Names of functions in finetune_tf.data.
_READERS = {
    **dict.fromkeys((".csv", ".tsv", ".tab", ".txt"), "from_csv"),
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "from_jsonl"),
    **dict.fromkeys((".xlsx", ".xlsm"), "from_excel"),
}
# Options that only some kinds of data have a meaning for.
_SPECIAL = ("encoding", "delimiter", "quotechar", "on_invalid")


def splits(data: str, columns: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Training data, and the validation and test data that a source brings along by itself."""
    if data == "reviews":
        return tuple(examples(data, split, columns) for split in ("train", "validation", "test"))
    return examples(data, "train", columns), None, None


def examples(source: str, split: str, columns: dict[str, Any]) -> Any:
    """Examples of a file, of the included reviews, or of TFDS ("name" or "name:split").

    Args:
        source: As written on the command line.
        split: The one that is wanted if `source` does not name one.
        columns: From `options.columns`.

    Raises:
        DataError: If they cannot be read, or an option has no meaning for them.
    """
    suffix = suffix_of(Path(source))
    if suffix in _READERS:
        reader = getattr(ft.data, _READERS[suffix], None)
        if reader is None:
            raise DataError(f"{suffix} files cannot be read by this version: save it as .csv.")
        return reader(source, **_fitting(columns, reader, source))
    if Path(source).is_file():
        raise DataError(
            f"{source} has an ending that says nothing about its format; known are "
            f"{', '.join(_READERS)}."
        )
    name, _, asked = source.partition(":")
    if name == "reviews":
        _fitting(columns, ft.data.reviews, source)
        return ft.data.reviews(asked or split)
    given = _fitting(columns, ft.data.from_tfds, source)
    return ft.data.from_tfds(name, split=asked or split, **given)


def lines(encoding: str | None = None) -> list[str]:
    """The lines of standard input without blanks at their ends; empty ones are kept.

    Raises:
        DataError: If it is no text in that encoding.
    """
    if encoding is not None:
        try:
            sys.stdin.reconfigure(encoding=encoding)
        except LookupError:
            raise DataError(f"Unknown encoding {encoding!r}; try utf-8 or cp1252.") from None
    try:
        content = sys.stdin.read()
    except UnicodeDecodeError as error:
        raise DataError(
            f"Standard input is not {error.encoding}: byte 0x{error.object[error.start]:02x} does "
            "not fit. Say which encoding it has, for example --encoding cp1252."
        ) from None
    listed = content.removeprefix("\ufeff").split("\n")
    if not listed[-1]:
        listed.pop()  # what stands behind the last line's end
    return [line.strip() for line in listed]


def _fitting(columns: dict[str, Any], reader: Any, source: str) -> dict[str, Any]:
    """The columns, if the reader has all options among them."""
    known = inspect.signature(reader).parameters
    for name in _SPECIAL:
        if name in columns and name not in known:
            option = name.replace("_", "-")
            raise DataError(f"--{option} has no meaning for {source}: leave it out.")
    return columns
