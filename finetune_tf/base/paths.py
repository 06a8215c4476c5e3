"""Checks of paths before files are read or written."""

import contextlib
import os
import random
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from finetune_tf.errors import CheckpointError, FinetuneError

T = TypeVar("T")

_MAX_READS = 50  # attempts to read a folder that another process keeps replacing
_SPECIAL_FILES = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device"}


def absolute(path: str | os.PathLike, error: type[FinetuneError] = CheckpointError) -> Path:
    """Returns the absolute path, with "~" expanded and symbolic links resolved.

    Args:
        path: A path as the user wrote it.
        error: The class of the error to raise.

    Raises:
        FinetuneError: An `error`, if `path` is not a valid path.

    Example:
        >>> from finetune_tf.base.paths import absolute
        >>> absolute("runs/../models").name
        'models'
    """
    if not isinstance(path, str | os.PathLike):
        raise error(f"A path must be a string or a Path, found {path!r}.")
    try:
        return Path(path).expanduser().resolve()
    except (OSError, ValueError, RuntimeError) as reason:
        raise error(f"{os.fspath(path)!r} is not a valid path: {reason}.") from None


def special_kind(path: Path) -> str | None:
    """Names the kind of a special file, such as a pipe, which could block a reader forever.

    Returns:
        A description such as "a pipe"; None for a regular file, a folder, a link or a path that
        does not exist.
    """
    try:
        mode = os.lstat(path).st_mode
    except (OSError, ValueError):
        return None
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode):
        return None
    return _SPECIAL_FILES.get(stat.S_IFMT(mode), "a special file")


def has_file(path: Path, error: type[FinetuneError] = CheckpointError) -> bool:
    """Whether a file exists.

    A path that exists but cannot be read is an error and does not count as missing. Otherwise the
    settings in it would silently be replaced by defaults.

    Args:
        path: The path of the file.
        error: The class of the error to raise.

    Raises:
        FinetuneError: An `error`, if the path is a folder, a pipe or a broken link.
    """
    if os.path.isfile(path):
        return True
    if not os.path.lexists(path):
        return False
    if not os.path.exists(path):
        what = "a broken link"
    else:
        what = "a folder" if os.path.isdir(path) else special_kind(Path(os.path.realpath(path)))
    raise error(f"{path} is {what}, not a file, and cannot be read. Get the file again.")


def read_whole(folder: Path, read: Callable[[], T]) -> T:
    """Reads several files of a folder consistently: all of them from the same save.

    A save replaces the whole folder. If that happens while `read` runs, the result could combine
    the config of one save with the weights of another one, so `read` is called again.

    Args:
        folder: The folder.
        read: The function that reads the files. Files that are read lazily must be open when it
            returns.

    Raises:
        CheckpointError: If the folder is replaced during each of many attempts.
    """
    for _ in range(_MAX_READS):
        with _open_folder(folder):  # keeps its inode number from being reused meanwhile
            before = version_of(folder)
            try:
                result = read()
            except (FinetuneError, OSError):
                if version_of(folder) == before:
                    raise
            else:
                if version_of(folder) == before:
                    return result
        time.sleep(random.uniform(0.001, 0.02))
    raise CheckpointError(
        f"{folder} was replaced {_MAX_READS} times while it was read. Load from a folder to which "
        "no other process is writing."
    )


def version_of(folder: Path) -> tuple[int, ...] | None:
    """Identifies the state of a folder: device, inode and modification time.

    Returns:
        A tuple that changes when the folder or a file in it is replaced; None if the folder does
        not exist.
    """
    try:
        found = os.stat(folder)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns


@contextlib.contextmanager
def _open_folder(folder: Path) -> Iterator[None]:
    try:
        handle = os.open(folder, os.O_RDONLY)
    except (OSError, ValueError):  # the folder is missing, or the system cannot open folders
        yield
        return
    try:
        yield
    finally:
        os.close(handle)
