"""Silences TensorFlow's log output on the command line.

TensorFlow logs messages about CPU instructions and missing GPUs as soon as it is imported, and this
package imports it, except on JAX. This module is therefore imported first. It acts only if the
process was started as `finetune-tf` or `python -m finetune_tf`, because a library must not change
the logging of the programs that use it. A TF_CPP_MIN_LOG_LEVEL in the environment takes precedence.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

_LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"


def is_command_line() -> bool:
    """Whether this process was started as the command line of finetune_tf."""
    name = Path(sys.argv[0]).stem if sys.argv else ""  # without the .exe of Windows
    started = sys.orig_argv[1:]
    by_module = any(
        flag == "-m" and module.partition(".")[0] == "finetune_tf"
        for flag, module in zip(started, started[1:], strict=False)
    )
    # While Python imports the package for -m, sys.argv[0] is "-m".
    return name in ("finetune-tf", "finetune-tf-script") or (name == "-m" and by_module)


@contextlib.contextmanager
def no_standard_error() -> Iterator[None]:
    """Discards what the process writes to standard error, unless the block raises an exception.

    TensorFlow's C++ code writes its first lines before it reads the log level, so the file
    descriptor itself is redirected.
    """
    with tempfile.TemporaryFile() as captured:
        sys.stderr.flush()
        real = os.dup(2)
        os.dup2(captured.fileno(), 2)
        try:
            yield
        except BaseException:
            captured.seek(0)
            os.write(real, captured.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(real, 2)
            os.close(real)


def _is_needed() -> bool:
    return os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow"


if is_command_line() and _LOG_LEVEL not in os.environ and _is_needed():
    # 3 hides everything. Even TensorFlow's error lines are mostly notes about factories that were
    # registered twice; real errors are raised as exceptions.
    os.environ[_LOG_LEVEL] = "3"
    with no_standard_error():
        import tensorflow  # noqa: F401
