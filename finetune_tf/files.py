"""Files that are whole or not there."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


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
