"""Tokenizers and data collators of transformers with `return_tensors="tf"`, which 5 left out."""

import contextlib
import errno
import functools
import os
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from finetune_tf.base.files import unfinished_files
from finetune_tf.base.paths import absolute
from finetune_tf.errors import DataError, FinetuneError, ModelError

# One lock for all tokenizers: copies of a tokenizer can share its Rust object, and a lock inside a
# tokenizer could be neither copied nor pickled. The Rust code uses all cores for one call.
_lock = threading.RLock()


def _renew_lock() -> None:
    """In a forked process: another thread may have held the lock, and is not there any more."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


@contextlib.contextmanager
def without_shared_state(tokenizer: Any) -> Iterator[None]:
    """For one call of a fast tokenizer: no other thread calls one, and no setting outlives it.

    transformers sets truncation and padding on the Rust object before each call. Without the lock,
    a second thread could change them before the first one encodes; without the restoring, the
    length of the last call would be saved with the tokenizer.

    Args:
        tokenizer: A fast tokenizer of transformers.
    """
    backend = getattr(tokenizer, "_tokenizer", None)
    with _lock:
        if backend is None:
            yield
            return
        truncation, padding = backend.truncation, backend.padding
        special = backend.encode_special_tokens
        try:
            yield
        finally:
            if backend.truncation != truncation:
                backend.enable_truncation(**truncation) if truncation else backend.no_truncation()
            if backend.padding != padding:
                backend.enable_padding(**padding) if padding else backend.no_padding()
            backend.encode_special_tokens = special


def is_panic(error: BaseException) -> bool:
    """Whether an error is that of Rust code that gave up; it is no subclass of Exception."""
    return type(error).__name__ == "PanicException"


def _explained(error: BaseException, args: tuple, kwargs: dict) -> FinetuneError | None:
    """An error of the library for one of the Rust tokenizer; None for all others."""
    texts = [*args[:2], kwargs.get("text"), kwargs.get("text_pair")]
    if (broken := next(filter(None, map(_broken_text, texts)), None)) is not None:
        return DataError(
            f"A text is no valid Unicode, so it has no tokens: {broken[:60]!r} contains half of a "
            "character (a lone surrogate). Read the file in its own encoding, or replace such "
            "characters: text.encode('utf-8', 'replace').decode()."
        )
    if is_panic(error) or type(error) is Exception:  # whatever Rust had no other name for
        return ModelError(f"The tokenizer cannot do what was asked of it: {error}.")
    return None


def _broken_text(given: Any) -> str | None:
    """The first text that cannot be written as UTF-8."""
    if isinstance(given, str):
        try:
            given.encode()
        except UnicodeEncodeError:
            return given
    elif isinstance(given, list | tuple):
        return next(filter(None, map(_broken_text, given)), None)
    return None


def to_tensorflow(encoding: Any) -> Any:
    """An encoding whose arrays are TensorFlow tensors, whole numbers as int32.

    Raises:
        DataError: If its rows have different lengths.
    """
    import tensorflow as tf

    for name in list(encoding):
        array = encoding[name] = np.asarray(encoding[name])
        if array.dtype == object:
            raise DataError(
                "The texts have different lengths. Write tokenizer(texts, padding=True, "
                "truncation=True, return_tensors='tf')."
            )
        encoding[name] = tf.constant(array, tf.int32 if array.dtype.kind in "iub" else None)
    return encoding


def _with_tensors(call: Any, *args: Any, **kwargs: Any) -> Any:
    if kwargs.get("return_tensors") != "tf":
        return call(*args, **kwargs)
    return to_tensorflow(call(*args, **{**kwargs, "return_tensors": "np"}))


def _listed(ids: Any) -> Any:
    return np.asarray(ids).tolist() if hasattr(ids, "shape") else ids


class Tokenizing:
    """For a tokenizer: gives tensors, and decodes them."""

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As there: transformers reads files in another way for classes that it does not know."""
        tokenizer = cls.__bases__[-1].from_pretrained(*args, **kwargs)
        tokenizer.__class__ = cls
        return tokenizer

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Texts to ids."""
        return _with_tensors(super().__call__, *args, **kwargs)

    def _encode_plus(self, *args: Any, **kwargs: Any) -> Any:
        """What every call of a fast tokenizer comes to."""
        with without_shared_state(self):
            try:
                return super()._encode_plus(*args, **kwargs)
            except BaseException as error:
                explained = _explained(error, args, kwargs)
                if explained is None:
                    raise
                raise explained from None

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> Any:
        """Writes the tokenizer's files, all of them or none.

        Raises:
            CheckpointError: If they cannot be written.
        """
        if kwargs.get("push_to_hub"):  # the folder's name is that of the repository
            return super().save_pretrained(save_directory, *args, **kwargs)
        folder = absolute(save_directory)
        with _lock, unfinished_files(folder) as beside:
            try:
                written = super().save_pretrained(beside, *args, **kwargs)
            except Exception as error:
                if type(error) is not Exception:
                    raise
                raise OSError(errno.EIO, str(error)) from None  # how Rust names a full disk
        return tuple(path.replace(str(beside), str(folder)) for path in written or ())

    def pad(self, *args: Any, **kwargs: Any) -> Any:
        """Rows of ids to one length."""
        return _with_tensors(super().pad, *args, **kwargs)

    def decode(self, token_ids: Any, *args: Any, **kwargs: Any) -> Any:
        """Ids to text."""
        return super().decode(_listed(token_ids), *args, **kwargs)

    def batch_decode(self, sequences: Any, *args: Any, **kwargs: Any) -> Any:
        """Several rows of ids to texts."""
        return super().batch_decode([_listed(row) for row in sequences], *args, **kwargs)


class Collating:
    """For a data collator: makes arrays, then tensors."""

    def __call__(self, features: Any, return_tensors: str | None = None) -> Any:
        """Rows to a batch."""
        if (return_tensors or self.return_tensors) != "tf":
            return super().__call__(features, return_tensors)
        with _lock:  # the collator's own setting is changed for the call
            wanted, self.return_tensors = self.return_tensors, "np"
            try:
                return to_tensorflow(super().__call__(features))
            finally:
                self.return_tensors = wanted


@functools.cache
def with_tensorflow(cls: type, *mixins: type, module: str = __name__) -> type:
    """A tokenizer or collator class of transformers that knows `return_tensors="tf"`.

    Args:
        cls: The class of transformers.
        *mixins: What it is to know besides.
        module: Where pickle finds the class by its name.
    """
    ours = Tokenizing if hasattr(cls, "from_pretrained") else Collating
    return type(cls.__name__, (*mixins, ours, cls), {"__module__": module})


def own(tokenizer: Any) -> Any:
    """Gives a fast tokenizer of transformers, and no other, the class that `Tokenizing` makes.

    So its calls know `return_tensors="tf"` and do not meet in several threads.
    """
    cls = type(tokenizer)
    is_theirs = cls.__module__.partition(".")[0] == "transformers"
    if is_theirs and getattr(tokenizer, "is_fast", False):
        tokenizer.__class__ = with_tensorflow(cls)
    return tokenizer


def __getattr__(name: str) -> Any:
    """A class by its name, for pickle."""
    if name.startswith("_"):
        raise AttributeError(name)
    import transformers

    return with_tensorflow(getattr(transformers, name))
