"""Reads the data of the command line: files by their suffix, data sets by their name."""

import inspect
import os
import sys
from pathlib import Path
from typing import Any

import finetune_tf as ft
from finetune_tf.data.sources import video_folder
from finetune_tf.data.sources.image_folder import ENDINGS, files_below, folders_of_splits
from finetune_tf.data.sources.text_files import read_text, suffix_of
from finetune_tf.errors import ArgumentError, DataError

# Names of functions in finetune_tf.data.
_READERS = {
    **dict.fromkeys((".csv", ".tsv", ".tab", ".txt"), "from_csv"),
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "from_jsonl"),
    **dict.fromkeys((".xlsx", ".xlsm"), "from_excel"),
}
_ONLY_VIDEOS = tuple(ending for ending in video_folder.ENDINGS if ending not in ENDINGS)
# Options that only some sources accept.
_SPECIAL = ("encoding", "delimiter", "quotechar", "on_invalid")


def splits(data: str, columns: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Returns the training data, and the validation and test data that come with a source.

    Args:
        data: The source as written on the command line. A folder of images may have one folder for
            each split.
        columns: As for `examples`.
    """
    names = ("train", "validation", "test")
    if data == "reviews":
        return tuple(examples(data, split, columns) for split in names)
    if os.path.isdir(data) and (folders := folders_of_splits(Path(data))):
        found = {name: examples(data, name, columns) for name in names if name in folders}
        return examples(data, "train", columns), found.get("validation"), found.get("test")
    return examples(data, "train", columns), None, None


def examples(source: str, split: str, columns: dict[str, Any]) -> Any:
    """Reads examples from a file, a folder of images, the included reviews, or TFDS.

    Args:
        source: The source as written on the command line; of TFDS "name" or "name:split".
        split: The split to read if `source` does not name one.
        columns: Arguments of the source, from the options of the command.

    Raises:
        DataError: If they cannot be read, or the source does not accept an option.
    """
    if os.path.isdir(source) and source != "reviews":
        return _images(Path(source), split, columns)
    suffix = suffix_of(Path(source))
    if suffix in _READERS:
        reader = getattr(ft.data, _READERS[suffix], None)
        if reader is None:
            raise DataError(f"{suffix} files cannot be read by this version: save it as .csv.")
        return reader(source, **_fitting(columns, reader, source))
    if os.path.isfile(source):
        raise DataError(
            f"{source} has an ending that says nothing about its format; known are "
            f"{', '.join(_READERS)}."
        )
    name, _, asked = source.partition(":")
    if name == "reviews":
        _check_no_options(columns, "reviews, whose columns are text and label", ("text", "label"))
        return ft.data.reviews(asked or split)
    given = _fitting(columns, ft.data.from_tfds, source)
    return ft.data.from_tfds(name, split=asked or split, **given)


def _images(folder: Path, split: str, columns: dict[str, Any]) -> Any:
    """Reads a folder with a folder of images for each class, or with such folders for splits.

    A folder with files that can only be videos is one of videos.
    """
    # The classes are the names of the folders, in the order of the model's labels.
    given = {name: columns[name] for name in ("on_invalid",) if name in columns}
    source = f"{folder}, a folder of images whose labels are the names of its folders"
    others = {name: value for name, value in columns.items() if name not in given}
    _check_no_options(others, source, ("label",), ", or list the images in a .csv file")
    if folders := folders_of_splits(folder):
        if split not in folders:
            raise DataError(
                f"{folder} has no folder for {split} data, only "
                f"{', '.join(sorted(path.name for path in folders.values()))}. Name the folder "
                "with the folders of classes."
            )
        folder = folders[split]
    has_videos = files_below(folder, _ONLY_VIDEOS)
    read = ft.data.from_video_folder if has_videos else ft.data.from_image_folder
    return read(folder, **given)


def files_of(given: list[str], column: str = "image") -> list[str]:
    """Returns the paths of images or videos, with each folder replaced by those in it.

    Args:
        given: Paths of files and folders.
        column: "image" or "video".

    Raises:
        DataError: If a folder has none.
    """
    endings = ENDINGS if column == "image" else video_folder.ENDINGS
    found: list[str] = []
    for path in given:
        if not os.path.isdir(path or "no folder"):
            found.append(path)
            continue
        files = files_below(Path(path), endings)
        if not files:
            raise DataError(f"{path} has no {column}s: files that end in {', '.join(endings)}.")
        found += map(str, files)
    return found


def check_encoding(encoding: str | None, reads: str) -> None:
    """Checks that no encoding was given where texts are arguments of the command.

    Args:
        encoding: The option.
        reads: What has an encoding, for the message.

    Raises:
        ArgumentError: If there is one.
    """
    if encoding is not None:
        raise ArgumentError(
            f"--encoding is for {reads}, but the inputs are arguments of the command: leave it out."
        )


def lines(encoding: str | None = None) -> list[str]:
    """The lines of standard input, stripped of white space; empty lines are included.

    Raises:
        DataError: If the input is not text in that encoding.
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
    return _stripped_lines(content)


def lines_of_file(path: Path, encoding: str | None = None) -> list[str]:
    """The lines of a text file, as `lines` returns those of standard input.

    Raises:
        DataError: If the file cannot be read, or is not text in that encoding.
    """
    return _stripped_lines(read_text(path, encoding or "utf-8"))


def _stripped_lines(content: str) -> list[str]:
    listed = content.removeprefix("\ufeff").split("\n")
    if not listed[-1]:
        listed.pop()  # the empty text after the last line end
    return [line.strip() for line in listed]


def _check_no_options(
    columns: dict[str, Any], source: str, names: tuple[str, ...], advice: str = ""
) -> None:
    """Checks that no option was given to a source that has columns of its own.

    Args:
        columns: As for `examples`.
        source: What the source is, for the message.
        names: Its columns, which options may name.
        advice: What to do, besides leaving the option out.

    Raises:
        DataError: If an option says something else.
    """
    for name, value in columns.items():
        # The labels are those of a model or of other data.
        if name != "labels" and (name not in names or value != name):
            option = name.replace("_", "-")
            raise DataError(f"--{option} has no meaning for {source}: leave it out{advice}.")


def _fitting(columns: dict[str, Any], reader: Any, source: str) -> dict[str, Any]:
    """Returns the columns.

    Raises:
        DataError: If the reader does not accept one of the options.
    """
    known = inspect.signature(reader).parameters
    for name in _SPECIAL:
        if name in columns and name not in known:
            option = name.replace("_", "-")
            raise DataError(f"--{option} has no meaning for {source}: leave it out.")
    return columns
