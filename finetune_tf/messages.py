"""The one voice of the library: short lines that say what it decided for the user."""

import contextlib
import contextvars
import sys
import unicodedata
import warnings
from collections.abc import Iterator

_quiet = contextvars.ContextVar("finetune_tf_quiet", default=False)
# Whose frames lie between a user's line and the place that warns about it.
_INSIDE = {"finetune_tf", "keras", "tensorflow"}


def printable(text: str) -> str:
    """A text that does nothing to a terminal: control characters are written as escapes.

    Names and texts come from data; one with an escape sequence could move the cursor or recolour
    the lines after it. Line ends and tabs stay.
    """
    if text.isprintable():
        return text
    return "".join(map(_shown, text))


def one_line(text: str) -> str:
    """A printable text in one line: line ends and tabs are written as escapes, too."""
    return "".join(
        character.encode("unicode_escape").decode() if character in "\n\t" else character
        for character in printable(text)
    )


def _shown(character: str) -> str:
    # The two joiners are parts of words and of emoji.
    harmless = character.isprintable() or character in "\n\t\u200c\u200d"
    # Lone surrogates and marks that turn the direction of writing are not printable either.
    if harmless or unicodedata.category(character) == "Zs":
        return character
    return character.encode("unicode_escape", "backslashreplace").decode()


def say(text: str) -> None:
    """Prints one line, unless inside `quiet()`."""
    if not _quiet.get():
        print(printable(text), flush=True)


def warn(text: str) -> None:
    """Warns at the user's line: the first one outside of finetune_tf, Keras and TensorFlow.

    A fixed stack level would not do, because Keras wraps methods differently from case to case.
    """
    frame, level = sys._getframe(1), 2
    while frame and frame.f_globals.get("__name__", "").partition(".")[0] in _INSIDE:
        frame, level = frame.f_back, level + 1
    warnings.warn(printable(text), stacklevel=level)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences `say` for the block; warnings and errors still come through."""
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)
