"""Tokenizers and data collators of transformers that give TensorFlow tensors again."""

import functools
from pathlib import Path
from typing import Any

import numpy as np

from finetune_tf.errors import DataError


def to_tensorflow(encoding: Any) -> Any:
    """An encoding whose arrays are TensorFlow tensors, whole numbers as int32."""
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


class _TensorFlow:
    """Takes the arguments that tokenizers had in transformers 4."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs.pop("pad_to_max_length", None):
            kwargs |= {"padding": "max_length", "truncation": True}
        if strategy := kwargs.pop("truncation_strategy", None):
            kwargs["truncation"] = strategy != "do_not_truncate" and strategy
        return _as_numpy(super().__call__, *args, **kwargs)

    def encode(self, text: Any, text_pair: Any = None, **kwargs: Any) -> Any:
        """Only the ids."""
        return self.encode_plus(text, text_pair, **kwargs)["input_ids"]

    def encode_plus(self, text: Any, text_pair: Any = None, **kwargs: Any) -> Any:
        """One text, or a pair; as a string, as its tokens or as their ids."""
        if not kwargs.get("is_split_into_words"):
            text, text_pair = self._text(text), self._text(text_pair)
        return self(text, text_pair, **kwargs)

    def batch_encode_plus(self, batch_text_or_text_pairs: Any, **kwargs: Any) -> Any:
        """Several texts, or a list of pairs."""
        texts = list(batch_text_or_text_pairs)
        if texts and isinstance(texts[0], tuple):
            return self(*map(list, zip(*texts, strict=True)), **kwargs)
        return self(texts, **kwargs)

    def decode(self, token_ids: Any, *args: Any, **kwargs: Any) -> Any:
        """Ids, tensors among them, to text."""
        return super().decode(_listed(token_ids), *args, **kwargs)

    def batch_decode(self, sequences: Any, *args: Any, **kwargs: Any) -> Any:
        """Several rows of ids to texts."""
        return super().batch_decode([_listed(row) for row in sequences], *args, **kwargs)

    def save_vocabulary(self, folder: str, *args: Any, **kwargs: Any) -> tuple:
        """Writes vocab.txt, as the slow tokenizers of WordPieces did."""
        if not self._has_word_pieces():
            return super().save_vocabulary(folder, *args, **kwargs)
        path, vocabulary = Path(folder) / "vocab.txt", self.get_vocab()
        lines = sorted(vocabulary, key=vocabulary.get)
        path.write_text("".join(f"{token}\n" for token in lines), encoding="utf-8")
        return (str(path),)

    def save_pretrained(self, folder: str, *args: Any, **kwargs: Any) -> tuple:
        """As there, and vocab.txt."""
        written = super().save_pretrained(folder, *args, **kwargs)
        return (*written, *self.save_vocabulary(folder)) if self._has_word_pieces() else written

    def _has_word_pieces(self) -> bool:
        return type(self.backend_tokenizer.model).__name__ == "WordPiece"

    def _text(self, given: Any) -> Any:
        if not isinstance(given, list) or not given:
            return given
        if isinstance(given[0], str):
            given = self.convert_tokens_to_ids(given)
        return super().decode(given)

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


def _listed(ids: Any) -> Any:
    return np.asarray(ids).tolist() if hasattr(ids, "shape") else ids


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
    # Where pickle finds it.
    return type(cls.__name__, (mixin, cls), {"__module__": "finetune_tf.compat"})


def _automatic(cls: type) -> Any:
    def from_pretrained(*args: Any, **kwargs: Any) -> Any:
        tokenizer = cls.from_pretrained(*args, **kwargs)
        tokenizer.__class__ = with_tensorflow(type(tokenizer))
        return tokenizer

    return from_pretrained
