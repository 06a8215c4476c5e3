"""The one voice of the library: short lines that say what it decided for the user."""

import contextlib
import contextvars
import sys
import warnings
from collections.abc import Iterator

_quiet = contextvars.ContextVar("finetune_tf_quiet", default=False)
# Whose frames lie between a user's line and the place that warns about it.
_INSIDE = {"finetune_tf", "keras", "tensorflow"}


def say(text: str) -> None:
    """Prints one line, unless inside `quiet()`."""
    if not _quiet.get():
        print(text, flush=True)


def warn(text: str) -> None:
    """Warns at the user's line: the first one outside of finetune_tf, Keras and TensorFlow.

    A fixed stack level would not do, because Keras wraps methods differently from case to case.
    """
    frame, level = sys._getframe(1), 2
    while frame and frame.f_globals.get("__name__", "").partition(".")[0] in _INSIDE:
        frame, level = frame.f_back, level + 1
    warnings.warn(text, stacklevel=level)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences `say` for the block; warnings and errors still come through."""
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)
