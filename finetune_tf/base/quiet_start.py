"""Silence of TensorFlow where this process is the command line.

TensorFlow writes about its instructions and missing GPUs as soon as it is imported, which importing
this package does. So it is silenced before everything else, and only if the process was started as
`finetune-tf` or `python -m finetune_tf`: a library must not change what its user's programs log.
Whoever sets TF_CPP_MIN_LOG_LEVEL gets what that asks for.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

_LEVEL = "TF_CPP_MIN_LOG_LEVEL"


def is_command_line() -> bool:
    """Whether this process was started as the command line of this package."""
    name = Path(sys.argv[0]).stem if sys.argv else ""  # without the .exe of Windows
    started = sys.orig_argv[1:]
    by_module = any(
        flag == "-m" and module.partition(".")[0] == "finetune_tf"
        for flag, module in zip(started, started[1:], strict=False)
    )
    # While a package is imported for -m, Python has put "-m" in the place of the program's name.
    return name in ("finetune-tf", "finetune-tf-script") or (name == "-m" and by_module)


@contextlib.contextmanager
def no_standard_error() -> Iterator[None]:
    """Keeps what the process writes to standard error; lets it through if there is an exception.

    The first lines of TensorFlow come before it reads its log level, and from C++, so nothing less
    than the file descriptor will do.
    """
    with tempfile.TemporaryFile() as kept:
        sys.stderr.flush()
        real = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            kept.seek(0)
            os.write(real, kept.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(real, 2)
            os.close(real)


if is_command_line() and _LEVEL not in os.environ:
    # 3 leaves nothing: even errors are mostly notes about factories that were registered twice,
    # and what matters comes as an exception.
    os.environ[_LEVEL] = "3"
    with no_standard_error():
        import tensorflow  # noqa: F401
