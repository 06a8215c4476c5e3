"""What is asked of paths before something is read or written there."""

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

_MOST_READS = 50  # of a folder that is replaced each time
_KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device"}


def absolute(path: str | os.PathLike, error: type[FinetuneError] = CheckpointError) -> Path:
    """An absolute path, of what a link points to and not of the link.

    Args:
        path: As a user gave it; "~" stands for the home folder.
        error: The class of the error to raise.

    Raises:
        FinetuneError: An `error`, if it cannot be a path at all.
    """
    if not isinstance(path, str | os.PathLike):
        raise error(f"A path is a text or a Path, found {path!r}.")
    try:
        return Path(path).expanduser().resolve()
    except (OSError, ValueError, RuntimeError) as reason:
        raise error(f"{os.fspath(path)!r} cannot be a path: {reason}.") from None


def special_kind(path: Path) -> str | None:
    """What a path is if it is neither a file, a folder nor a link: reading it could wait for ever.

    Returns:
        Such as "a pipe"; None for what can be read or is not there.
    """
    try:
        mode = os.lstat(path).st_mode
    except (OSError, ValueError):
        return None
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode):
        return None
    return _KINDS.get(stat.S_IFMT(mode), "a special file")


def has_file(path: Path, error: type[FinetuneError] = CheckpointError) -> bool:
    """Whether there is a file to read.

    What stands there and cannot be read must not count as missing: its settings would be left to
    defaults without a word.

    Args:
        path: Where the file would be.
        error: The class of the error to raise.

    Raises:
        FinetuneError: An `error`, if a folder, a pipe or a link to nothing stands there.
    """
    if os.path.isfile(path):
        return True
    if not os.path.lexists(path):
        return False
    if not os.path.exists(path):
        what = "a link to nothing"
    else:
        what = "a folder" if os.path.isdir(path) else special_kind(Path(os.path.realpath(path)))
    raise error(f"{path} is {what}, not a file: it cannot be read. Get the file again.")


def read_whole(folder: Path, read: Callable[[], T]) -> T:
    """Reads several files of a folder so that all are of one version of it.

    A save exchanges a whole folder for a new one. If that happens while `read` is at work, the
    result could be one save's config with another one's weights, so `read` is called again.

    Args:
        folder: The folder.
        read: Reads it; what is read later has to be open by its end.

    Raises:
        CheckpointError: If the folder is replaced again and again.
    """
    for _ in range(_MOST_READS):
        with _held(folder):  # no new folder gets the number of this one meanwhile
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
        f"{folder} was replaced {_MOST_READS} times while it was read. Load from a folder that is "
        "not written to at the same time."
    )


def version_of(folder: Path) -> tuple[int, ...] | None:
    """Numbers that change when a folder is replaced, or a file in it; None if it is not there."""
    try:
        found = os.stat(folder)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    try:
        handle = os.open(folder, os.O_RDONLY)
    except (OSError, ValueError):  # not there, or a system that opens no folders
        yield
        return
    try:
        yield
    finally:
        os.close(handle)
