"""Tokenizers and data collators of transformers that give TensorFlow tensors again."""

import functools
from typing import Any

import numpy as np


def to_tensorflow(encoding: Any) -> Any:
    """An encoding whose arrays are TensorFlow tensors, whole numbers as int32."""
    import tensorflow as tf

    for name in list(encoding):
        array = np.asarray(encoding[name])
        encoding[name] = tf.constant(array, tf.int32 if array.dtype.kind in "iub" else None)
    return encoding


class _TensorFlow:
    """Takes the arguments that tokenizers had in transformers 4."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs.pop("pad_to_max_length", None):
            kwargs |= {"padding": "max_length", "truncation": True}
        return _as_numpy(super().__call__, *args, **kwargs)

    def encode(self, *args: Any, **kwargs: Any) -> Any:
        """Only the ids."""
        return self(*args, **kwargs)["input_ids"]

    def encode_plus(self, text: Any, text_pair: Any = None, **kwargs: Any) -> Any:
        """One text, or a pair."""
        return self(text, text_pair, **kwargs)

    def batch_encode_plus(self, texts: Any, **kwargs: Any) -> Any:
        """Several texts, or a list of pairs."""
        if texts and isinstance(texts[0], tuple):
            return self(*map(list, zip(*texts, strict=True)), **kwargs)
        return self(texts, **kwargs)

    def pad(self, *args: Any, **kwargs: Any) -> Any:
        """Rows of ids to one length."""
        return _as_numpy(super().pad, *args, **kwargs)


class _Collating:
    """Makes arrays, then tensors."""

    def __call__(self, features: Any, return_tensors: str | None = None) -> Any:
        if (return_tensors or self.return_tensors) != "tf":
            return super().__call__(features, return_tensors)
        wanted, self.return_tensors = self.return_tensors, "np"
        try:
            return to_tensorflow(super().__call__(features))
        finally:
            self.return_tensors = wanted


def _as_numpy(call: Any, *args: Any, **kwargs: Any) -> Any:
    if kwargs.get("return_tensors") != "tf":
        return call(*args, **kwargs)
    return to_tensorflow(call(*args, **{**kwargs, "return_tensors": "np"}))


@functools.cache
def with_tensorflow(cls: type) -> type:
    """A tokenizer or collator class of transformers that knows return_tensors="tf"."""
    if cls.__name__.startswith("Auto"):
        return type(cls.__name__, (), {"from_pretrained": staticmethod(_automatic(cls))})
    mixin = _TensorFlow if hasattr(cls, "from_pretrained") else _Collating
    return type(cls.__name__, (mixin, cls), {"__module__": cls.__module__})


def _automatic(cls: type) -> Any:
    def from_pretrained(*args: Any, **kwargs: Any) -> Any:
        tokenizer = cls.from_pretrained(*args, **kwargs)
        tokenizer.__class__ = with_tensorflow(type(tokenizer))
        return tokenizer

    return from_pretrained
