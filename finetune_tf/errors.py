"""The exceptions of finetune_tf.

Each message states what was expected, what was found and what to do. The classes also derive from
the built-in exception that fits, so `except ValueError` works. The command line prints any of them
as one line.
"""

from collections.abc import Sequence
from typing import Any

from finetune_tf.messages import printable


class FinetuneError(Exception):
    """The base class of all errors that finetune_tf raises deliberately.

    Messages can quote data, so control characters are escaped: a terminal would interpret them.

    Example:
        >>> try:
        ...     ft.load(checkpoint, labels=["only one", "only one"])
        ... except ft.errors.FinetuneError as error:
        ...     print(error)
        Label names must be unique; these occur twice: ['only one'].
    """

    def __str__(self) -> str:
        """Returns the message with control characters escaped."""
        return printable(super().__str__())


class DataError(FinetuneError, ValueError):
    """The data is invalid: a column, a text, a label or a file.

    Attributes:
        rows: The indices of the invalid rows, counted from 0; empty if the error does not concern
            individual rows.
        reason: A short description of what is wrong with these rows.
    """

    rows: Sequence[int] = ()
    reason: str = ""


class MissingRowError(DataError, IndexError):
    """A row index is out of range."""


class DataTypeError(FinetuneError, TypeError):
    """The data has the wrong type, such as a number in place of a text.

    Attributes:
        rows: As in `DataError`.
        reason: As in `DataError`.
    """

    rows: Sequence[int] = ()
    reason: str = ""


class CheckpointError(FinetuneError, ValueError):
    """A checkpoint is missing, damaged or unsupported, or cannot be used as requested."""


class ModelError(FinetuneError, ValueError):
    """A model does not support a request, such as an unknown input, selector or preset."""


class ArgumentError(ModelError):
    """An argument is out of range, such as a batch size of 0 or a negative weight decay."""


class UnknownArgumentError(ArgumentError, TypeError):
    """A call has an unknown argument, or a required argument is missing."""


class ArgumentTypeError(ArgumentError, TypeError):
    """An argument has the wrong type, such as a number in place of a string."""


class UnknownModelError(ModelError, AttributeError):
    """The model has no task and labels, as is the case for a clone of its graph."""


class CacheError(ModelError):
    """Features cannot be cached: nothing is frozen, rows change per epoch, or space is short."""


class MissingExtraError(FinetuneError, ImportError):
    """An optional dependency is not installed; the message names the extra that installs it."""


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C stopped `finetune` after its first step; `result` has the model so far.

    It derives from KeyboardInterrupt and not from `FinetuneError`, so that `except Exception`
    does not catch it.

    Attributes:
        result: A `FinetuneResult` without a report, which can be saved.
        signum: The number of the signal that stopped training.
    """

    def __init__(self, message: str, result: Any, signum: int) -> None:
        super().__init__(message)
        self.result, self.signum = result, signum
