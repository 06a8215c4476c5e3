"""Errors a user can act on: each says what was expected, what was found and what to do.

They derive from the built-in error a Python user would expect as well, so that
`except ValueError` keeps working; the command line turns any of them into one line.
"""


class FinetuneError(Exception):
    """Base of all errors that finetune_tf raises on purpose."""


class DataError(FinetuneError, ValueError):
    """The data cannot be used as it is: a column, a text, a label or a file is wrong."""


class DataTypeError(FinetuneError, TypeError):
    """A value of another type was meant, such as text where a number was given."""


class CheckpointError(FinetuneError, ValueError):
    """A checkpoint is missing, damaged, unsupported, or does not fit what was asked of it."""


class ModelError(FinetuneError, ValueError):
    """A model was asked for something it cannot do: an unknown input, selector or preset."""


class ArgumentError(ModelError):
    """An argument is outside of its range: a batch size of 0, a negative weight decay."""


class UnknownModelError(ModelError, AttributeError):
    """A model that does not know its task and labels, such as a clone of its graph, was asked."""


class CacheError(ModelError):
    """Features cannot be stored: nothing is frozen, rows change each epoch, or room is short."""


class MissingExtraError(FinetuneError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""
