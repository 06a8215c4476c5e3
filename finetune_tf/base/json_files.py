"""Reading and writing JSON files: one that cannot be used is an error of the library."""

import json
from pathlib import Path, PureWindowsPath
from typing import Any, NoReturn

from finetune_tf.base.paths import has_file
from finetune_tf.errors import CheckpointError, FinetuneError

_REQUIRED = object()
_NAMES = {dict: "object", list: "list", str: "text", int: "whole number", bool: "true or false"}
_FOUND = {dict: "an object", str: "a text", bool: "true or false", type(None): "null"}


def read_json(path: Path, kind: type = dict, error: type[FinetuneError] = CheckpointError) -> Any:
    """Reads a JSON file and checks the type of its outermost value.

    Args:
        path: The file, in UTF-8.
        kind: The type of its outermost value: dict or list.
        error: The class of the error to raise.

    Raises:
        FinetuneError: An `error`, if the file cannot be read, is no valid JSON, or holds a value
            of another type.
    """
    has_file(path, error)  # opening a pipe would wait for somebody to write
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except OSError as reason:
        raise error(f"{path} cannot be read ({reason.strerror}).") from None
    except RecursionError:
        raise error(f"{path} is not valid JSON: its values are nested too deeply.") from None
    except ValueError as reason:  # of the encoding, of the syntax, or of a number's length
        raise error(f"{path} is not valid JSON: {reason}.") from None
    return checked(content, kind, str(path), error)


def member(
    content: dict,
    key: str,
    kind: type | tuple[type, ...],
    path: Path,
    default: Any = _REQUIRED,
    error: type[FinetuneError] = CheckpointError,
) -> Any:
    """The value of a key in what `read_json` gave, checked for its type.

    Args:
        content: The object.
        key: Its key.
        kind: The type, or types, that the value may have. A bool is no int.
        path: The file, for messages.
        default: The value if the key is missing or null; by default that is an error.
        error: The class of the error to raise.

    Raises:
        FinetuneError: An `error`, if the key is missing or its value has another type.
    """
    value = content.get(key)
    if value is None:
        if default is _REQUIRED:
            raise error(f"{path} has no key {key!r}: get the file again.")
        return default
    return checked(value, kind, f"The key {key!r} of {path}", error)


def file_inside(folder: Path, name: str, source: Path) -> Path:
    """The path of a file or subfolder that a JSON file names, which may not leave a folder.

    A link inside of the folder may lead elsewhere: the snapshots of the Hub's cache are such links.

    Args:
        folder: The folder that the name belongs to.
        name: The name, relative to the folder; empty for the folder itself.
        source: The JSON file, for messages.

    Raises:
        CheckpointError: If the name is an absolute path, or has a part "..".
    """
    parts = PureWindowsPath(name)  # knows "/", "\\" and drives, on every system
    if parts.anchor or parts.drive or ".." in parts.parts or "\0" in name:
        raise CheckpointError(
            f"{source} names the file {name[:200]!r}, which may lie outside of {folder}. Only what "
            "is inside of the folder is read: correct the name, or do not trust this checkpoint."
        )
    return folder / name


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, which is no JSON value")


def checked(
    value: Any, kind: type | tuple[type, ...], name: str, error: type[FinetuneError]
) -> Any:
    """Returns a value that has the right JSON type; raises `error` for any other."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    is_flag = isinstance(value, bool) and bool not in kinds
    if isinstance(value, kinds) and not is_flag:
        return value
    expected = " or ".join(_NAMES.get(each, each.__name__) for each in kinds)
    found = _FOUND.get(type(value), "a list" if isinstance(value, list) else "a number")
    raise error(f"{name} is not a JSON {expected} but {found}: get the file again.")


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file into a folder that somebody else makes whole.

    Args:
        path: The file; its folder is made if it is not there.
        content: What JSON can hold.
    """
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    path.parent.mkdir(exist_ok=True)
    # Half a character (a lone surrogate) is written as JSON's own escape for it.
    path.write_text(text, encoding="utf-8", errors="backslashreplace")
