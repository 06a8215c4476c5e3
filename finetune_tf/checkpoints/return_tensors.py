"""Tokenizers and collators with `return_tensors="tf"`, which transformers 5 no longer supports."""

import contextlib
import errno
import functools
import os
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from finetune_tf.base.extras import require_tensorflow
from finetune_tf.base.files import unfinished_files
from finetune_tf.base.paths import absolute
from finetune_tf.errors import DataError, FinetuneError, ModelError

# All tokenizers share one lock: copies of a tokenizer may share its Rust object, and a lock inside
# a tokenizer could be neither copied nor pickled. This costs little, since the Rust code uses all
# cores for a single call.
_lock = threading.RLock()

# Attributes of a tokenizer that transformers saves only if the tokenizer was made with them.
_SETTINGS = ("padding_side", "truncation_side", "model_input_names", "clean_up_tokenization_spaces")


def _renew_lock() -> None:
    """Replaces the lock after a fork, because the thread that held it does not exist there."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


@contextlib.contextmanager
def without_shared_state(tokenizer: Any) -> Iterator[None]:
    """Locks all tokenizers during one call, and restores the tokenizer's settings afterwards.

    transformers sets truncation and padding on the Rust object before each call. Without the lock,
    another thread could change them before the first one encodes. Without restoring them, the
    maximum length of the last call would be saved with the tokenizer.

    Args:
        tokenizer: A fast tokenizer of transformers.
    """
    backend = getattr(tokenizer, "_tokenizer", None)
    with _lock:
        if backend is None:
            yield
            return
        truncation, padding = backend.truncation, backend.padding
        encode_special_tokens = backend.encode_special_tokens
        try:
            yield
        finally:
            if backend.truncation != truncation:
                backend.enable_truncation(**truncation) if truncation else backend.no_truncation()
            if backend.padding != padding:
                backend.enable_padding(**padding) if padding else backend.no_padding()
            backend.encode_special_tokens = encode_special_tokens


def is_panic(error: BaseException) -> bool:
    """Returns whether an error is a panic of Rust code, which is no subclass of Exception."""
    return type(error).__name__ == "PanicException"


def explained_failure(error: BaseException, args: tuple, kwargs: dict) -> FinetuneError | None:
    """Returns an error of this library for an error of the Rust tokenizer; None for others."""
    texts = [*args[:2], kwargs.get("text"), kwargs.get("text_pair")]
    if (invalid := next(filter(None, map(_find_invalid_text, texts)), None)) is not None:
        return DataError(
            f"A text is not valid Unicode and cannot be tokenized: {invalid[:60]!r} contains a "
            "lone surrogate, half of a character. Read the file in its own encoding, or replace "
            "such characters: text.encode('utf-8', 'replace').decode()."
        )
    if is_panic(error) or type(error) is Exception:  # the class of all other Rust errors
        return ModelError(f"The tokenizer failed: {error}.")
    return None


def _find_invalid_text(texts: Any) -> str | None:
    """Returns the first text in nested lists that cannot be encoded as UTF-8."""
    if isinstance(texts, str):
        try:
            texts.encode()
        except UnicodeEncodeError:
            return texts
    elif isinstance(texts, list | tuple):
        return next(filter(None, map(_find_invalid_text, texts)), None)
    return None


def to_tensorflow(encoding: Any) -> Any:
    """Converts the values of an encoding to TensorFlow tensors, integers and booleans to int32.

    Args:
        encoding: A dict of arrays or lists; it is changed in place.

    Returns:
        The same object.

    Raises:
        DataError: If the rows have different lengths.
        MissingExtraError: If TensorFlow is not installed.

    Example:
        >>> from finetune_tf.checkpoints.return_tensors import to_tensorflow
        >>> to_tensorflow({"input_ids": [[2, 7, 3]]})["input_ids"].shape
        TensorShape([1, 3])
    """
    tf = require_tensorflow("return_tensors='tf' makes tensors of")
    for name in list(encoding):
        array = encoding[name] = np.asarray(encoding[name])
        if array.dtype == object:
            raise DataError(
                "The texts have different lengths. Write tokenizer(texts, padding=True, "
                "truncation=True, return_tensors='tf')."
            )
        encoding[name] = tf.constant(array, tf.int32 if array.dtype.kind in "iub" else None)
    return encoding


def _call_with_tensors(call: Any, *args: Any, **kwargs: Any) -> Any:
    if kwargs.get("return_tensors") != "tf":
        return call(*args, **kwargs)
    return to_tensorflow(call(*args, **{**kwargs, "return_tensors": "np"}))


def _to_list(ids: Any) -> Any:
    return np.asarray(ids).tolist() if hasattr(ids, "shape") else ids


def _default(tokenizer: Any, name: str) -> Any:
    """Returns a setting of tokenizers that were made without it."""
    return getattr(type(tokenizer), name, False)


class TensorFlowTokenizerMixin:
    """Mixin for tokenizers: returns TensorFlow tensors, and decodes them."""

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Loads with the original class, since transformers treats unknown classes differently."""
        tokenizer = cls.__bases__[-1].from_pretrained(*args, **kwargs)
        tokenizer.__class__ = cls
        return tokenizer

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Tokenizes texts."""
        return _call_with_tensors(super().__call__, *args, **kwargs)

    def _encode_plus(self, *args: Any, **kwargs: Any) -> Any:
        """Encodes texts; all methods of fast tokenizers call it."""
        with without_shared_state(self):
            try:
                return super()._encode_plus(*args, **kwargs)
            except BaseException as error:
                explained = explained_failure(error, args, kwargs)
                if explained is None:
                    raise
                raise explained from None

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> Any:
        """Writes the tokenizer files atomically: all of them or none.

        They contain the sides of truncation and padding, the names of the inputs and the cleaning
        of decoded texts as they are. transformers writes those that the tokenizer was made with,
        so that changing `tokenizer.truncation_side` would have no effect after a reload.

        Raises:
            CheckpointError: If they cannot be written.
        """
        for name in _SETTINGS:
            if (value := getattr(self, name)) != self.init_kwargs.get(name, _default(self, name)):
                self.init_kwargs[name] = value
        if kwargs.get("push_to_hub"):  # the name of the folder is that of the repository
            return super().save_pretrained(save_directory, *args, **kwargs)
        folder = absolute(save_directory)
        with _lock, unfinished_files(folder) as temporary:
            try:
                written = super().save_pretrained(temporary, *args, **kwargs)
            except Exception as error:
                if type(error) is not Exception:
                    raise
                raise OSError(errno.EIO, str(error)) from None  # raised by Rust for a full disk
        return tuple(path.replace(str(temporary), str(folder)) for path in written or ())

    def pad(self, *args: Any, **kwargs: Any) -> Any:
        """Pads rows of ids to one length."""
        return _call_with_tensors(super().pad, *args, **kwargs)

    def decode(self, token_ids: Any, *args: Any, **kwargs: Any) -> Any:
        """Decodes ids to a text."""
        return super().decode(_to_list(token_ids), *args, **kwargs)

    def batch_decode(self, sequences: Any, *args: Any, **kwargs: Any) -> Any:
        """Decodes rows of ids to texts."""
        return super().batch_decode([_to_list(row) for row in sequences], *args, **kwargs)


class TensorFlowCollatorMixin:
    """Mixin for data collators: converts the NumPy arrays of a batch to TensorFlow tensors."""

    def __call__(self, features: Any, return_tensors: str | None = None) -> Any:
        """Combines rows to a batch."""
        if (return_tensors or self.return_tensors) != "tf":
            return super().__call__(features, return_tensors)
        with _lock:  # because the collator's own setting is changed during the call
            previous, self.return_tensors = self.return_tensors, "np"
            try:
                return to_tensorflow(super().__call__(features))
            finally:
                self.return_tensors = previous


@functools.cache
def with_tensorflow(cls: type, *mixins: type, module: str = __name__) -> type:
    """Returns a subclass of a tokenizer or collator class that supports `return_tensors="tf"`.

    Args:
        cls: The class of transformers.
        *mixins: Further base classes.
        module: The module in which pickle finds the class by its name.
    """
    is_tokenizer = hasattr(cls, "from_pretrained")
    mixin = TensorFlowTokenizerMixin if is_tokenizer else TensorFlowCollatorMixin
    return type(cls.__name__, (*mixins, mixin, cls), {"__module__": module})


def add_tensorflow_support(tokenizer: Any) -> Any:
    """Changes the class of a fast tokenizer of transformers to that of `with_tensorflow`.

    Its calls then support `return_tensors="tf"` and are safe in several threads. Any other object
    is returned unchanged.
    """
    cls = type(tokenizer)
    is_from_transformers = cls.__module__.partition(".")[0] == "transformers"
    if is_from_transformers and getattr(tokenizer, "is_fast", False):
        tokenizer.__class__ = with_tensorflow(cls)
    return tokenizer


def __getattr__(name: str) -> Any:
    """Returns a class by its name, for pickle."""
    if name.startswith("_"):
        raise AttributeError(name)
    import transformers

    return with_tensorflow(getattr(transformers, name))
