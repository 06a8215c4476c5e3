"""Tokenizers and data collators of transformers with `return_tensors="tf"`, which 5 left out."""

import functools
from typing import Any

import numpy as np

from finetune_tf.errors import DataError


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


def __getattr__(name: str) -> Any:
    """A class by its name, for pickle."""
    if name.startswith("_"):
        raise AttributeError(name)
    import transformers

    return with_tensorflow(getattr(transformers, name))
