"""Files and folders that are whole or not there."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from finetune_tf.errors import CheckpointError


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 file with one rename, so that a reader never finds half of it."""
    with unfinished(path) as beside:
        beside.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to, moved there with one rename if all goes well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


@contextlib.contextmanager
def unfinished_folder(folder: Path, stale: tuple[str, ...]) -> Iterator[Path]:
    """A folder beside `folder` to write to, put in its place with one rename if all goes well.

    Args:
        folder: Absolute; made or replaced as a whole. Other files that stand in it are kept.
        stale: How names begin that are not kept, because what is written takes their place.

    Raises:
        CheckpointError: If the folder cannot be written, is a file, or is the current one.
    """
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder} is a file; a folder is to be written.")
    if Path.cwd().is_relative_to(folder):
        raise CheckpointError(
            f"{folder} is the current folder or above it, so it cannot be replaced. Choose a "
            "folder of its own for the model."
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
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
    except OSError as error:
        raise CheckpointError(
            f"{folder} cannot be written ({error.strerror}); what was there is unchanged."
        ) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _keep_other_files(folder: Path, beside: Path, stale: tuple[str, ...]) -> None:
    """Copies what stands in the old folder and was not written anew."""
    if not folder.is_dir():
        return
    for item in folder.iterdir():
        written = beside / item.name
        if written.exists() or item.name.startswith(stale):
            continue
        if item.is_dir():
            shutil.copytree(item, written)
        else:
            shutil.copy2(item, written)
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
    old = beside.with_name(f"{beside.name}-old")
    folder.rename(old)
    beside.rename(folder)
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
