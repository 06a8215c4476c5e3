"""Errors a user can act on: each says what was expected, what was found and what to do.

They derive from the built-in error a Python user would expect as well, so that
`except ValueError` keeps working; the command line turns any of them into one line.
"""

from collections.abc import Sequence
from typing import Any

from finetune_tf.messages import printable


class FinetuneError(Exception):
    """Base of all errors that finetune_tf raises on purpose.

    What a message quotes can come from data, so it is written without control characters, which a
    terminal would obey.
    """

    def __str__(self) -> str:
        """The message."""
        return printable(super().__str__())


class DataError(FinetuneError, ValueError):
    """The data cannot be used as it is: a column, a text, a label or a file is wrong.

    Attributes:
        rows: Numbers of the rows at fault, counted from 0; empty where it is not single rows.
        reason: What is wrong with these rows, in few words.
    """

    rows: Sequence[int] = ()
    reason: str = ""


class MissingRowError(DataError, IndexError):
    """There is no row of that number."""


class DataTypeError(FinetuneError, TypeError):
    """A value of another type was meant, such as text where a number was given.

    Attributes:
        rows: As for `DataError`.
        reason: As for `DataError`.
    """

    rows: Sequence[int] = ()
    reason: str = ""


class CheckpointError(FinetuneError, ValueError):
    """A checkpoint is missing, damaged, unsupported, or does not fit what was asked of it."""


class ModelError(FinetuneError, ValueError):
    """A model was asked for something it cannot do: an unknown input, selector or preset."""


class ArgumentError(ModelError):
    """An argument is outside of its range: a batch size of 0, a negative weight decay."""


class UnknownArgumentError(ArgumentError, TypeError):
    """A function has no argument of that name, or lacks one that it needs."""


class ArgumentTypeError(ArgumentError, TypeError):
    """An argument is of another type than it has to be: a number where a text is meant."""


class UnknownModelError(ModelError, AttributeError):
    """A model that does not know its task and labels, such as a clone of its graph, was asked."""


class CacheError(ModelError):
    """Features cannot be stored: nothing is frozen, rows change each epoch, or room is short."""


class MissingExtraError(FinetuneError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C ended `finetune` after its first step; what was learnt so far is in `result`.

    It is no `FinetuneError`, so that nothing which handles errors swallows it.

    Attributes:
        result: A `FinetuneResult` without a report, which can be saved.
        signum: The signal that asked for the end.
    """

    def __init__(self, message: str, result: Any, signum: int) -> None:
        super().__init__(message)
        self.result, self.signum = result, signum
