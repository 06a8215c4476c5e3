"""Atomic writes: a file or folder is either complete or not there."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from finetune_tf.base.paths import absolute, special_kind
from finetune_tf.base.temporary import UNFINISHED, new_name, remove_leftovers, temporary_sibling
from finetune_tf.errors import CheckpointError, FinetuneError


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
        remove_leftovers(path)
        with temporary_sibling(path, is_folder=False) as temporary:
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
    if folder.name.endswith(UNFINISHED):  # it is temporary itself, so write to it directly
        yield folder
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        with temporary_sibling(folder, is_folder=True) as temporary:
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
        stale: Names that are not copied, because they belong to the replaced content; with "*" for
            any characters.

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
                remove_leftovers(folder)
            temporary = stack.enter_context(temporary_sibling(folder, is_folder=True))
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
            remove_leftovers(folder)
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


def _refuse_special_files(folder: Path, stale: tuple[str, ...]) -> None:
    """Raises an error for pipes and sockets: they cannot be copied, and opening a pipe blocks."""
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            is_copied = Path(parent) != folder or not has_name_of(name, stale)
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
        if os.path.lexists(written) or has_name_of(item.name, stale):
            continue
        if item.is_dir() and not item.is_symlink():
            shutil.copytree(item, written, symlinks=True)
        else:
            shutil.copy2(item, written, follow_symlinks=False)
    shutil.copymode(folder, temporary)


def has_name_of(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a name is one of several, in which "*" stands for any characters.

    Example:
        >>> from finetune_tf.base.files import has_name_of
        >>> has_name_of("model-00001-of-00002.safetensors", ("model-*.safetensors",))
        True
        >>> has_name_of("model-notes.txt", ("model-*.safetensors",))
        False
    """
    return any(fnmatchcase(name, pattern) for pattern in patterns)


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
    old = new_name(folder)
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
