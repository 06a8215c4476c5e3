"""Temporary files and folders beside a path, and those that killed processes left behind.

A process locks the ones that it uses, and the operating system releases its locks when it ends.
"""

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

UNFINISHED = ".unfinished"  # the suffix of files and folders that are being written


@contextlib.contextmanager
def temporary_sibling(path: Path, is_folder: bool) -> Iterator[Path]:
    """Creates a temporary file or folder beside a path, and removes it unless it was renamed.

    It is locked while this process uses it. The operating system releases the lock when the
    process ends for any reason.
    """
    while True:
        if is_folder:
            temporary = Path(
                tempfile.mkdtemp(UNFINISHED, f".{_truncate_name(path.name)}-", path.parent)
            )
        else:
            temporary = new_name(path)
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        lock = _lock(temporary, waits=True)
        if temporary.exists():  # another process may have removed it as a leftover before the lock
            break
        _unlock(lock)
    try:
        yield temporary
    finally:
        _remove(temporary)
        _unlock(lock)


def remove_all_leftovers(folder: Path) -> None:
    """Removes the temporary files of killed processes in a folder; skips those that are in use."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if name.startswith(".") and name.endswith(UNFINISHED):
                remove_leftovers(folder / name[1 : -len(UNFINISHED) - 9])


def remove_leftovers(path: Path) -> None:
    """Removes temporary files of killed processes beside a path; skips those that are in use."""
    pattern = f".{_truncate_name(path.name)}-", UNFINISHED
    with contextlib.suppress(OSError):
        names = [name for name in os.listdir(path.parent) if name.startswith(pattern[0])]
        for name in names:
            if not name.endswith(pattern[1]) or len(name) != len(new_name(path).name):
                continue
            lock = _lock(path.with_name(name), waits=False)
            if lock is not None:
                _remove(path.with_name(name))
                _unlock(lock)


def new_name(path: Path) -> Path:
    """Returns a path beside `path`, with eight random characters, as in the names of `tempfile`."""
    return path.with_name(f".{_truncate_name(path.name)}-{secrets.token_hex(4)}{UNFINISHED}")


def _truncate_name(name: str) -> str:
    """Truncates a name so that a suffix fits into the 255 bytes that a file name may have."""
    return os.fsencode(name)[:200].decode("utf-8", "ignore")


def _lock(path: Path, waits: bool) -> int | None:
    """Locks a path and returns an open file descriptor; None if it is locked or locks fail."""
    if fcntl is None:
        return None
    handle = None
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
    except OSError:  # locked by another process, removed, or on a file system without locks
        if handle is not None:
            os.close(handle)
        return None
    return handle


def _unlock(handle: int | None) -> None:
    if handle is not None:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
