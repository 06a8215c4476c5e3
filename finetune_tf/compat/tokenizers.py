"""Tokenizers and data collators of transformers with the methods of transformers 4."""

import contextlib
from collections.abc import Iterator
from dataclasses import make_dataclass
from pathlib import Path
from typing import Any

from finetune_tf.checkpoints import return_tensors
from finetune_tf.errors import DataError

# Records for texts and token ids that tutorials of 2020 used.
InputExample = make_dataclass(
    "InputExample", ["guid", "text_a", ("text_b", Any, None), ("label", Any, None)]
)
InputFeatures = make_dataclass(
    "InputFeatures",
    ["input_ids", *((n, Any, None) for n in ("attention_mask", "token_type_ids", "label"))],
)


class _OldTokenizerMethods:
    """A mixin with the methods and arguments that tokenizers had in transformers 4."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        for old, new in (("vocab_file", "vocab"), ("merges_file", "merges")):
            if old in kwargs:
                kwargs[new] = kwargs.pop(old)  # without it, transformers creates a new vocabulary
        super().__init__(*args, **kwargs)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Loads a tokenizer; ignores arguments that are meant for its call."""
        for name in ("add_special_tokens", "pad_to_max_length"):
            kwargs.pop(name, None)
        return super().from_pretrained(*args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs.pop("pad_to_max_length", None):
            kwargs |= {"padding": "max_length", "truncation": True}
        if strategy := kwargs.pop("truncation_strategy", None):
            kwargs["truncation"] = strategy != "do_not_truncate" and strategy
        return super().__call__(*args, **kwargs)

    def encode(self, text: Any, text_pair: Any = None, **kwargs: Any) -> Any:
        """Returns the token ids of a text or a pair."""
        return self.encode_plus(text, text_pair, **kwargs)["input_ids"]

    def encode_plus(self, text: Any, text_pair: Any = None, **kwargs: Any) -> Any:
        """Encodes a text or a pair, each as a string, a list of tokens or a list of ids."""
        if not kwargs.get("is_split_into_words"):
            text, text_pair = self._to_text(text), self._to_text(text_pair)
        return self(text, text_pair, **kwargs)

    def batch_encode_plus(self, batch_text_or_text_pairs: Any, **kwargs: Any) -> Any:
        """Encodes a list of texts or of pairs."""
        texts = list(batch_text_or_text_pairs)
        if texts and isinstance(texts[0], tuple):
            return self(*map(list, zip(*texts, strict=True)), **kwargs)
        return self(texts, **kwargs)

    @contextlib.contextmanager
    def as_target_tokenizer(self) -> Iterator[None]:
        """Inside the block, calls encode targets, as `tokenizer(text_target=…)` does."""
        self._switch_mode("target")
        self._in_target_context_manager = True
        try:
            yield
        finally:
            self._in_target_context_manager = False
            self._switch_mode("input")

    def _switch_mode(self, mode: str) -> None:
        switch = getattr(self, f"_switch_to_{mode}_mode", None)  # tokenizers of two languages
        if switch is not None:
            switch()

    def prepare_seq2seq_batch(
        self,
        src_texts: list[str],
        tgt_texts: list[str] | None = None,
        max_length: int | None = None,
        max_target_length: int | None = None,
        padding: Any = "longest",
        truncation: Any = True,
        **kwargs: Any,
    ) -> Any:
        """Encodes sources, and targets as `labels`."""
        for language in ("src_lang", "tgt_lang"):
            if kwargs.get(language) is not None:
                setattr(self, language, kwargs.pop(language))
        options = {"padding": padding, "truncation": truncation, **kwargs}
        batch = self(src_texts, max_length=max_length, **options)
        if tgt_texts is not None:
            length = max_target_length or max_length
            labels = self(text_target=tgt_texts, max_length=length, **options)
            batch["labels"] = labels["input_ids"]
        return batch

    def save_vocabulary(self, folder: str, *args: Any, **kwargs: Any) -> tuple:
        """Writes vocab.txt, as the slow WordPiece tokenizers did."""
        if not self._is_word_piece():
            return super().save_vocabulary(folder, *args, **kwargs)
        path, vocabulary = Path(folder) / "vocab.txt", self.get_vocab()
        lines = sorted(vocabulary, key=vocabulary.get)
        path.write_text("".join(f"{token}\n" for token in lines), encoding="utf-8")
        return (str(path),)

    def save_pretrained(self, folder: str, *args: Any, **kwargs: Any) -> tuple:
        """Saves the tokenizer, and vocab.txt of a WordPiece tokenizer."""
        written = super().save_pretrained(folder, *args, **kwargs)
        return (*written, *self.save_vocabulary(folder)) if self._is_word_piece() else written

    def _is_word_piece(self) -> bool:
        return type(self.backend_tokenizer.model).__name__ == "WordPiece"

    def _to_text(self, value: Any) -> Any:
        """Decodes a list of tokens or ids, which encoding the text must reproduce."""
        if not isinstance(value, list) or not value:
            return value
        if isinstance(value[0], str):
            value = self.convert_tokens_to_ids(value)
        text = self.decode(value)
        if self(text, add_special_tokens=False)["input_ids"] != value:
            raise DataError(
                f"encode expects a text, but the text of these tokens, {text!r}, yields other "
                "tokens. Use [tokenizer.cls_token_id, *ids, tokenizer.sep_token_id]."
            )
        return text


def old_style(cls: type) -> type:
    """Returns a tokenizer or collator class of transformers with the API of transformers 4."""
    if cls.__name__.startswith("Auto"):
        return type(cls.__name__, (), {"from_pretrained": staticmethod(_auto_loader(cls))})
    mixins = (_OldTokenizerMethods,) if hasattr(cls, "from_pretrained") else ()
    return return_tensors.with_tensorflow(cls, *mixins, module="finetune_tf.compat")


def _auto_loader(cls: type) -> Any:
    def from_pretrained(*args: Any, **kwargs: Any) -> Any:
        tokenizer = cls.from_pretrained(*args, **kwargs)
        tokenizer.__class__ = old_style(type(tokenizer))
        return tokenizer

    return from_pretrained
