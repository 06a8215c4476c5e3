"""Reading and writing JSON files, with errors that name the file."""

import json
from pathlib import Path, PureWindowsPath
from typing import Any, NoReturn

from finetune_tf.base.paths import has_file
from finetune_tf.errors import CheckpointError, FinetuneError

_REQUIRED = object()
_TYPE_NAMES = {dict: "object", list: "array", str: "string", int: "integer", bool: "boolean"}
_FOUND_NAMES = {dict: "an object", str: "a string", bool: "a boolean", type(None): "null"}


def read_json(path: Path, kind: type = dict, error: type[FinetuneError] = CheckpointError) -> Any:
    """Reads a JSON file and checks the type of its outermost value.

    Args:
        path: The file, in UTF-8.
        kind: The type of its outermost value: dict or list.
        error: The class of the error to raise.

    Returns:
        The content as Python objects.

    Raises:
        FinetuneError: An `error`, if the file cannot be read, is not valid JSON, or contains a
            value of another type.
    """
    has_file(path, error)  # opening a pipe would block
    try:
        content = parsed(path.read_bytes())
    except OSError as reason:
        raise error(f"{path} cannot be read ({reason.strerror}).") from None
    except RecursionError:
        raise error(f"{path} is not valid JSON: its values are nested too deeply.") from None
    except ValueError as reason:  # invalid encoding or syntax, or a number with too many digits
        raise error(f"{path} is not valid JSON: {reason}.") from None
    return checked(content, kind, str(path), error)


def parsed(content: bytes) -> Any:
    """Returns the Python objects of a JSON text in UTF-8.

    Args:
        content: The content of a file.

    Raises:
        ValueError: If it is not valid JSON, which has no NaN and no infinity.
        RecursionError: If its values are nested too deeply.
    """
    return json.loads(content.decode("utf-8"), parse_constant=_refuse_constant)


def member(
    content: dict,
    key: str,
    kind: type | tuple[type, ...],
    path: Path,
    default: Any = _REQUIRED,
    error: type[FinetuneError] = CheckpointError,
) -> Any:
    """Returns the value of a key of a JSON object after a type check.

    Args:
        content: The object, as `read_json` returns it.
        key: The key.
        kind: The valid type or types of the value. A bool does not count as an int.
        path: The file, for messages.
        default: The value to return if the key is missing or null; by default that is an error.
        error: The class of the error to raise.

    Raises:
        FinetuneError: An `error`, if the key is missing or its value has another type.

    Example:
        >>> from pathlib import Path
        >>> from finetune_tf.base.json_files import member
        >>> member({"hidden_size": 24}, "hidden_size", int, Path("config.json"))
        24
    """
    value = content.get(key)
    if value is None:
        if default is _REQUIRED:
            raise error(f"{path} has no key {key!r}. Get the file again.")
        return default
    return checked(value, kind, f"The key {key!r} of {path}", error)


def file_inside(folder: Path, name: str, source: Path) -> Path:
    """Returns the path of a file that a JSON file refers to, which must be inside of a folder.

    Symbolic links in the folder may point outside of it, as they do in the Hub's cache.

    Args:
        folder: The folder.
        name: The path relative to the folder; empty for the folder itself.
        source: The JSON file, for messages.

    Raises:
        CheckpointError: If the name is an absolute path or contains "..".
    """
    parts = PureWindowsPath(name)  # parses "/", "\\" and drive letters on every system
    if parts.anchor or parts.drive or ".." in parts.parts or "\0" in name:
        raise CheckpointError(
            f"{source} refers to the file {name[:200]!r}, which may be outside of {folder}. Only "
            "files inside of the folder are read: correct the name, or do not trust this "
            "checkpoint."
        )
    return folder / name


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it contains {name}, which is not a JSON value")


def checked(
    value: Any, kind: type | tuple[type, ...], name: str, error: type[FinetuneError]
) -> Any:
    """Returns a value if it has the expected JSON type, and raises `error` otherwise."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    is_flag = isinstance(value, bool) and bool not in kinds
    if isinstance(value, kinds) and not is_flag:
        return value
    expected = " or ".join(_TYPE_NAMES.get(each, each.__name__) for each in kinds)
    found = _FOUND_NAMES.get(type(value), "an array" if isinstance(value, list) else "a number")
    raise error(f"{name} must be a JSON {expected}, found {found}. Get the file again.")


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file to a temporary folder, which the caller renames when it is complete.

    Args:
        path: The file; its folder is created if it does not exist.
        content: A value that JSON can represent.
    """
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    path.parent.mkdir(exist_ok=True)
    # A lone surrogate, which UTF-8 cannot encode, is written as a JSON escape.
    path.write_text(text, encoding="utf-8", errors="backslashreplace")
