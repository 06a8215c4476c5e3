"""Atomic writes: a file or folder is either complete or not there."""

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from finetune_tf.base.paths import absolute, special_kind
from finetune_tf.errors import CheckpointError, FinetuneError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_UNFINISHED = ".unfinished"  # the suffix of files and folders that are being written


def write_text(path: Path, text: str, error: type[FinetuneError] = CheckpointError) -> None:
    """Writes a UTF-8 file atomically, so that a reader never sees a part of it.

    Args:
        path: The file to write.
        text: Its content.
        error: The class of the error to raise.

    Raises:
        FinetuneError: An `error`, if the file cannot be written.
    """
    with unfinished(path, error) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


@contextlib.contextmanager
def unfinished(
    path: Path, error: type[FinetuneError] = CheckpointError, sync: bool = False
) -> Iterator[Path]:
    """Creates a temporary file beside `path`, and renames it to `path` if the block succeeds.

    Yields the path of the temporary file, which is empty.

    Args:
        path: The path of the finished file.
        error: The class of the error to raise.
        sync: Whether the file is on the disk afterwards, so that it survives a power failure.

    Raises:
        FinetuneError: An `error`, if the file cannot be written, for example on a full disk.
    """
    absolute(path.parent, error)  # raises an error if the path is invalid
    is_new = not os.path.exists(path.parent)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        with _temporary_sibling(path, is_folder=False) as temporary:
            yield temporary
            if sync:
                _sync_to_disk(temporary)
            os.replace(temporary, path)
        if sync:
            _sync_to_disk(path.parent)
    except BaseException as reason:
        if is_new:
            with contextlib.suppress(OSError):
                path.parent.rmdir()  # fails if the folder is not empty, which keeps it
        if not isinstance(reason, OSError):
            raise
        raise error(_write_error_message(path, reason)) from None


@contextlib.contextmanager
def unfinished_files(folder: Path) -> Iterator[Path]:
    """Creates a temporary folder, and moves its files into `folder` if the block succeeds.

    Args:
        folder: An absolute path; created if it does not exist. Its other files are kept.

    Raises:
        CheckpointError: If the files cannot be written.
    """
    if folder.name.endswith(_UNFINISHED):  # it is temporary itself, so write to it directly
        yield folder
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder)
        with _temporary_sibling(folder, is_folder=True) as temporary:
            yield temporary
            folder.mkdir(exist_ok=True)
            for path in temporary.iterdir():
                os.replace(path, folder / path.name)
    except OSError as reason:
        raise CheckpointError(_write_error_message(folder, reason)) from None


@contextlib.contextmanager
def unfinished_folder(folder: Path, stale: tuple[str, ...]) -> Iterator[Path]:
    """Creates a temporary folder beside `folder`, which replaces `folder` if the block succeeds.

    Args:
        folder: An absolute path; created, or replaced atomically. Files in it that are not written
            again are copied, and symbolic links stay links.
        stale: Prefixes of names that are not copied, because they belong to the replaced content.

    Raises:
        CheckpointError: If the folder cannot be written, is a file or the current working
            directory, or contains something that cannot be copied.
    """
    if os.path.exists(folder) and not folder.is_dir():
        raise CheckpointError(f"{folder} is a file, but must be a folder. Choose another path.")
    if _contains_current_folder(folder):
        raise CheckpointError(
            f"{folder} is the current working directory or a parent of it, so it cannot be "
            "replaced. Choose a separate folder for the model."
        )
    with contextlib.ExitStack() as stack:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            _refuse_special_files(folder, stale)
            if folder.is_dir():  # otherwise a leftover may be the only complete copy
                _remove_leftovers(folder)
            temporary = stack.enter_context(_temporary_sibling(folder, is_folder=True))
        except OSError as error:
            raise CheckpointError(
                f"{folder} cannot be written ({error.strerror}). Choose a writable folder."
            ) from None
        try:
            yield temporary
            for path in (temporary, *temporary.rglob("*")):
                path.chmod(0o755 if path.is_dir() else 0o644)
                _sync_to_disk(path)
            _copy_other_files(folder, temporary, stale)
            _replace_folder(folder, temporary)
            _remove_leftovers(folder)
        except OSError as error:
            raise CheckpointError(_write_error_message(folder, error)) from None


def _write_error_message(path: Path, reason: Exception) -> str:
    why = getattr(reason, "strerror", None) or reason
    return f"{path} cannot be written ({why}). Existing files are unchanged."


def _contains_current_folder(folder: Path) -> bool:
    try:
        return Path.cwd().is_relative_to(folder)
    except OSError:  # the current working directory has been removed
        return False


@contextlib.contextmanager
def _temporary_sibling(path: Path, is_folder: bool) -> Iterator[Path]:
    """Creates a temporary file or folder beside a path, and removes it unless it was renamed.

    It is locked while this process uses it. The operating system releases the lock when the
    process ends for any reason.
    """
    while True:
        if is_folder:
            temporary = Path(
                tempfile.mkdtemp(_UNFINISHED, f".{_truncate_name(path.name)}-", path.parent)
            )
        else:
            temporary = _new_name(path)
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
            if name.startswith(".") and name.endswith(_UNFINISHED):
                _remove_leftovers(folder / name[1 : -len(_UNFINISHED) - 9])


def _remove_leftovers(path: Path) -> None:
    """Removes temporary files of killed processes beside a path; skips those that are in use."""
    pattern = f".{_truncate_name(path.name)}-", _UNFINISHED
    with contextlib.suppress(OSError):
        names = [name for name in os.listdir(path.parent) if name.startswith(pattern[0])]
        for name in names:
            if not name.endswith(pattern[1]) or len(name) != len(_new_name(path).name):
                continue
            lock = _lock(path.with_name(name), waits=False)
            if lock is not None:
                _remove(path.with_name(name))
                _unlock(lock)


def _new_name(path: Path) -> Path:
    """Returns a path beside `path`, with eight random characters, as in the names of `tempfile`."""
    return path.with_name(f".{_truncate_name(path.name)}-{secrets.token_hex(4)}{_UNFINISHED}")


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


def _refuse_special_files(folder: Path, stale: tuple[str, ...]) -> None:
    """Raises an error for pipes and sockets: they cannot be copied, and opening a pipe blocks."""
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            is_copied = Path(parent) != folder or not name.startswith(stale)
            if is_copied and (kind := special_kind(Path(parent) / name)):
                raise CheckpointError(
                    f"{Path(parent) / name} is {kind}, which cannot be copied when the folder is "
                    "replaced. Move it elsewhere, or save to another folder."
                )


def _copy_other_files(folder: Path, temporary: Path, stale: tuple[str, ...]) -> None:
    """Copies files of the old folder that were not written again; symbolic links stay links."""
    if not folder.is_dir():
        return
    for item in folder.iterdir():
        written = temporary / item.name
        if os.path.lexists(written) or item.name.startswith(stale):
            continue
        if item.is_dir() and not item.is_symlink():
            shutil.copytree(item, written, symlinks=True)
        else:
            shutil.copy2(item, written, follow_symlinks=False)
    shutil.copymode(folder, temporary)


def _replace_folder(folder: Path, temporary: Path) -> None:
    """Replaces the old folder, if there is one, by the new folder."""
    if not folder.exists():
        temporary.rename(folder)
    else:
        _swap_folders(folder, temporary)
    _sync_to_disk(folder.parent)


def _swap_folders(folder: Path, temporary: Path) -> None:
    """Swaps two folders; afterwards `temporary` is the old one.

    On Linux this is atomic. On other systems there is a moment between two renames in which only
    the temporary `.NAME-…` folders exist, both complete.
    """
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True) if os.name == "posix" else None
    if hasattr(libc, "renameat2"):
        at_cwd, exchange = -100, 2
        names = (os.fsencode(temporary.absolute()), os.fsencode(folder.absolute()))
        if libc.renameat2(at_cwd, names[0], at_cwd, names[1], exchange) == 0:
            return
    old = _new_name(folder)
    folder.rename(old)
    try:
        temporary.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    old.rename(temporary)


def _sync_to_disk(path: Path) -> None:
    """Waits until a file or folder is on the disk (fsync)."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
