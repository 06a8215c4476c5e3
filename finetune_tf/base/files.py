"""Files and folders that are whole or not there."""

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

_UNFINISHED = ".unfinished"  # ends the name of what is being written


def write_text(path: Path, text: str, error: type[FinetuneError] = CheckpointError) -> None:
    """Writes a UTF-8 file with one rename, so that a reader never finds half of it.

    Raises:
        FinetuneError: An `error`, if it cannot be written.
    """
    with unfinished(path, error) as beside:
        beside.write_text(text, encoding="utf-8", errors="backslashreplace")


@contextlib.contextmanager
def unfinished(path: Path, error: type[FinetuneError] = CheckpointError) -> Iterator[Path]:
    """A new empty file beside `path` to write to, moved there with one rename if all goes well.

    Args:
        path: Where the file is wanted.
        error: The class of the error to raise.

    Raises:
        FinetuneError: An `error`, if it cannot be written, such as on a full disk.
    """
    absolute(path.parent, error)  # refuses what can be no path
    is_new = not os.path.exists(path.parent)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_leftovers(path)
        with _beside(path, is_folder=False) as beside:
            yield beside
            os.replace(beside, path)
    except BaseException as reason:
        if is_new:
            with contextlib.suppress(OSError):
                path.parent.rmdir()  # unless something stands in it
        if not isinstance(reason, OSError):
            raise
        raise error(_unwritten(path, reason)) from None


@contextlib.contextmanager
def unfinished_files(folder: Path) -> Iterator[Path]:
    """A folder to write several files to, which are moved into `folder` if all goes well.

    Args:
        folder: Absolute; made if it is not there. What else stands in it stays.

    Raises:
        CheckpointError: If the files cannot be written.
    """
    if folder.name.endswith(_UNFINISHED):  # nobody sees it before it is moved itself
        yield folder
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _clear_leftovers(folder)
        with _beside(folder, is_folder=True) as beside:
            yield beside
            folder.mkdir(exist_ok=True)
            for path in beside.iterdir():
                os.replace(path, folder / path.name)
    except OSError as reason:
        raise CheckpointError(_unwritten(folder, reason)) from None


@contextlib.contextmanager
def unfinished_folder(folder: Path, stale: tuple[str, ...]) -> Iterator[Path]:
    """A folder beside `folder` to write to, put in its place with one rename if all goes well.

    Args:
        folder: Absolute; made or replaced as a whole. Other files that stand in it are kept; links
            stay links.
        stale: How names begin that are not kept, because what is written takes their place.

    Raises:
        CheckpointError: If the folder cannot be written, is a file or the current one, or has
            something in it that cannot be kept.
    """
    if os.path.exists(folder) and not folder.is_dir():
        raise CheckpointError(f"{folder} is a file; a folder is to be written.")
    if _is_current(folder):
        raise CheckpointError(
            f"{folder} is the current folder or above it, so it cannot be replaced. Choose a "
            "folder of its own for the model."
        )
    with contextlib.ExitStack() as stack:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            _refuse_special_files(folder, stale)
            if folder.is_dir():  # else what a killed save left may be the only whole copy
                _clear_leftovers(folder)
            beside = stack.enter_context(_beside(folder, is_folder=True))
        except OSError as error:
            raise CheckpointError(
                f"{folder} cannot be written ({error.strerror}). Choose a folder you may write to."
            ) from None
        try:
            yield beside
            for path in (beside, *beside.rglob("*")):
                path.chmod(0o755 if path.is_dir() else 0o644)
                _flush(path)
            _keep_other_files(folder, beside, stale)
            _replace(folder, beside)
            _clear_leftovers(folder)
        except OSError as error:
            raise CheckpointError(_unwritten(folder, error)) from None


def _unwritten(path: Path, reason: Exception) -> str:
    why = getattr(reason, "strerror", None) or reason
    return f"{path} cannot be written ({why}); what was there is unchanged."


def _is_current(folder: Path) -> bool:
    try:
        return Path.cwd().is_relative_to(folder)
    except OSError:  # the current folder has been removed
        return False


@contextlib.contextmanager
def _beside(path: Path, is_folder: bool) -> Iterator[Path]:
    """A new file or folder beside a path; removed at the end unless it has been moved.

    It is locked while this process works on it. The lock ends with the process, however that ends.
    """
    while True:
        if is_folder:
            beside = Path(tempfile.mkdtemp(_UNFINISHED, f".{_short(path.name)}-", path.parent))
        else:
            beside = _new_name(path)
            os.close(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        lock = _locked(beside, waits=True)
        if beside.exists():  # nobody has taken it for a leftover before it was locked
            break
        _unlock(lock)
    try:
        yield beside
    finally:
        _remove(beside)
        _unlock(lock)


def _clear_leftovers(path: Path) -> None:
    """Removes what killed processes left beside a path, and nothing that is being written."""
    pattern = f".{_short(path.name)}-", _UNFINISHED
    with contextlib.suppress(OSError):
        names = [name for name in os.listdir(path.parent) if name.startswith(pattern[0])]
        for name in names:
            if not name.endswith(pattern[1]) or len(name) != len(_new_name(path).name):
                continue
            lock = _locked(path.with_name(name), waits=False)
            if lock is not None:
                _remove(path.with_name(name))
                _unlock(lock)


def _new_name(path: Path) -> Path:
    """A name beside a path, with the eight characters that `tempfile` puts into names, too."""
    return path.with_name(f".{_short(path.name)}-{secrets.token_hex(4)}{_UNFINISHED}")


def _short(name: str) -> str:
    """A name that leaves room for more in the 255 bytes that a file's name may have."""
    return os.fsencode(name)[:200].decode("utf-8", "ignore")


def _locked(path: Path, waits: bool) -> int | None:
    """An open handle that locks a path; None if another process has it, or nothing can be known."""
    if fcntl is None:
        return None
    handle = None
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
    except OSError:  # held, gone, or a file system without locks
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
    """Pipes and sockets cannot be copied; opening a pipe would wait for somebody to write."""
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            is_kept = Path(parent) != folder or not name.startswith(stale)
            if is_kept and (kind := special_kind(Path(parent) / name)):
                raise CheckpointError(
                    f"{Path(parent) / name} is {kind}, which cannot be kept when the folder is "
                    "replaced. Move it elsewhere, or save into another folder."
                )


def _keep_other_files(folder: Path, beside: Path, stale: tuple[str, ...]) -> None:
    """Copies what stands in the old folder and was not written anew; links stay links."""
    if not folder.is_dir():
        return
    for item in folder.iterdir():
        written = beside / item.name
        if os.path.lexists(written) or item.name.startswith(stale):
            continue
        if item.is_dir() and not item.is_symlink():
            shutil.copytree(item, written, symlinks=True)
        else:
            shutil.copy2(item, written, follow_symlinks=False)
    shutil.copymode(folder, beside)


def _replace(folder: Path, beside: Path) -> None:
    """Puts the new folder in the place of the old one."""
    if not folder.exists():
        beside.rename(folder)
    else:
        _exchange(folder, beside)
    _flush(folder.parent)


def _exchange(folder: Path, beside: Path) -> None:
    """Swaps two folders; `beside` holds the old one afterwards.

    Linux swaps them in one step. Elsewhere a moment remains between two renames in which only
    the neighbour `.NAME-…` folders exist, each whole.
    """
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True) if os.name == "posix" else None
    if hasattr(libc, "renameat2"):
        at_cwd, exchange = -100, 2
        names = (os.fsencode(beside.absolute()), os.fsencode(folder.absolute()))
        if libc.renameat2(at_cwd, names[0], at_cwd, names[1], exchange) == 0:
            return
    old = _new_name(folder)
    folder.rename(old)
    try:
        beside.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    old.rename(beside)


def _flush(path: Path) -> None:
    """Makes sure that the disk has it before anything depends on it."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
