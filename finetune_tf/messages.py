"""Messages to the user: printed lines about automatic decisions, and warnings."""

import contextlib
import contextvars
import sys
import unicodedata
import warnings
from collections.abc import Iterator

_quiet = contextvars.ContextVar("finetune_tf_quiet", default=False)
# Packages whose stack frames are skipped to find the user's line for a warning.
_LIBRARIES = {"finetune_tf", "keras", "tensorflow"}


def printable(text: str) -> str:
    r"""Escapes control characters in a text, except line breaks and tabs.

    Names and texts come from data. In a terminal, an escape sequence in them could move the cursor
    or change colors.

    Example:
        >>> from finetune_tf.messages import printable
        >>> print(printable("a \x1b[31mred\x1b[0m word"))
        a \x1b[31mred\x1b[0m word
    """
    if text.isprintable():
        return text
    return "".join(map(_escape, text))


def one_line(text: str) -> str:
    """Escapes control characters in a text, including line breaks and tabs."""
    return "".join(
        character.encode("unicode_escape").decode() if character in "\n\t" else character
        for character in printable(text)
    )


def _escape(character: str) -> str:
    # U+200C and U+200D (zero-width non-joiner and joiner) occur in words and emoji.
    is_harmless = character.isprintable() or character in "\n\t\u200c\u200d"
    # Lone surrogates and bidirectional control characters are not printable, so they are escaped.
    if is_harmless or unicodedata.category(character) == "Zs":
        return character
    return character.encode("unicode_escape", "backslashreplace").decode()


def say(text: str) -> None:
    """Prints a line, unless inside `quiet()`."""
    if not _quiet.get():
        print(printable(text), flush=True)


def warn(text: str) -> None:
    """Issues a warning for the user's line: the first frame outside of the libraries.

    A fixed stack level would not work, because Keras wraps methods in a varying number of frames.
    """
    frame, level = sys._getframe(1), 2
    while frame and frame.f_globals.get("__name__", "").partition(".")[0] in _LIBRARIES:
        frame, level = frame.f_back, level + 1
    warnings.warn(printable(text), stacklevel=level)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppresses printed messages inside the block; warnings and errors are not affected.

    Example:
        >>> with ft.messages.quiet():
        ...     model = ft.load(checkpoint, labels=["bad", "good"])
    """
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)
