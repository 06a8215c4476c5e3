"""What XLA compiles, kept on disk.

Each length of batch costs half a second of compiling, and what comes out is the same the next time
a script runs. TensorFlow can keep it in a folder, of which it asks once, before the first operation
of a process.
"""

import hashlib
import os
import shutil
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

_TESTED = ("2.19.", "2.20.", "2.21.")  # TensorFlow dies of a flag that it does not know
_FOLDER = "finetune_tf/compiled"
_MOST = 200_000_000  # bytes of a folder
_NEEDED = 1_000_000_000  # bytes that must be free, since TensorFlow fails on a full disk


def keep_compiled() -> Path | None:
    """Has TensorFlow keep what it compiles for CPUs; returns the folder, or None if it does not.

    Only on Linux, before TensorFlow's first operation, and unless TF_XLA_FLAGS is set.
    FINETUNE_TF_KEEP_COMPILED=0 leaves things as they are. The folder is
    `~/.cache/finetune_tf/compiled/…` (under XDG_CACHE_HOME if that is set), one for each processor
    and version of TensorFlow, since code for one processor can crash on another.
    """
    if _FOLDER in os.environ.get("TF_XLA_FLAGS", ""):
        del os.environ["TF_XLA_FLAGS"]  # of the process that started this one
    if os.environ.get("FINETUNE_TF_KEEP_COMPILED") == "0" or "TF_XLA_FLAGS" in os.environ:
        return None
    tensorflow = version("tensorflow")
    if not sys.platform.startswith("linux") or not tensorflow.startswith(_TESTED):
        return None
    try:
        folder = _caches() / _FOLDER / _machine(tensorflow)
        folder.mkdir(parents=True, exist_ok=True)
        usable = os.access(folder, os.W_OK) and len(str(folder).split()) == 1
        if not usable or shutil.disk_usage(folder).free < _NEEDED:
            return None
        _make_room(folder)
    except (OSError, RuntimeError):  # no home, or none that may be written
        return None
    os.environ["TF_XLA_FLAGS"] = (
        f"--tf_xla_persistent_cache_directory={folder} --tf_xla_persistent_cache_device_types=CPU"
    )
    return folder


def _caches() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _machine(tensorflow: str) -> str:
    """The version and a hash of what the processor can do."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = ("flags", "Features", "model name", "CPU part")
    known = sorted({line for line in lines if line.startswith(names)})
    return f"{tensorflow}-{hashlib.sha256(''.join(known).encode()).hexdigest()[:16]}"


def _make_room(folder: Path) -> None:
    """Deletes what was compiled longest ago where there is too much."""
    room = _MOST
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.stat().st_mtime, reverse=True):
        room -= entry.stat().st_size
        if room < 0:
            with suppress(FileNotFoundError):
                os.unlink(entry)
