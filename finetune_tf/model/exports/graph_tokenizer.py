"""A tokenizer of BERT as operations of TensorFlow and tensorflow-text."""

import json
from typing import Any

import numpy as np

from finetune_tf.base.extras import require_package

#: What special tokens in a text are replaced by: characters that Unicode reserves for internal use.
MARKS = range(0xFDD0, 0xFDEF)
_NO_MARK = 0xFDEF  # replaces these characters in texts; all of them are unknown to vocabularies
_CHARACTERS = 0x110000  # in Unicode
_SURROGATES = range(0xD800, 0xE000)  # numbers that are no characters
_CHUNK = 4096  # characters in one call of the tokenizer


class GraphTokenizer:
    """A tokenizer of BERT as TensorFlow operations.

    Args:
        tokenizer: A fast tokenizer of transformers that `require_strings` accepts.
        max_length: Tokens that a row may have, special ones included.
    """

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        import tensorflow as tf

        text = require_package("tensorflow_text", "A graph that reads texts needs")
        parts = json.loads(tokenizer.backend_tokenizer.to_str())
        model = parts["model"]
        self._max_length = max_length
        self._cuts_start = tokenizer.truncation_side == "left"
        self._unknown = model["unk_token"]
        self._longest = model["max_input_chars_per_word"]
        vocabulary = sorted(model["vocab"], key=model["vocab"].get)
        self._wordpiece = text.FastWordpieceTokenizer(
            vocabulary,
            suffix_indicator=model["continuing_subword_prefix"],
            max_bytes_per_word=4 * self._longest,
            token_out_type=tf.int32,
            unknown_token=self._unknown,
            no_pretokenization=True,
        )
        self._padding = tokenizer.pad_token_id or 0
        self._single = _Template(tokenizer, 1)
        self._pair = _Template(tokenizer, 2)
        added = sorted((token["content"] for token in parts["added_tokens"]), key=len, reverse=True)
        self._added = list(zip(added, map(chr, MARKS), strict=False))
        self._table = _table(tokenizer.backend_tokenizer, dict(zip(MARKS, added, strict=False)))

    def __call__(self, texts: Any, pairs: Any = None) -> dict[str, Any]:
        """Encodes texts (batch,), or pairs of texts, as input ids, token types and a mask."""
        import tensorflow as tf

        template = self._single if pairs is None else self._pair
        room = self._max_length - template.special
        parts = [self._ids(texts)] if pairs is None else [self._ids(texts), self._ids(pairs)]
        lengths = [tf.cast(part.row_lengths(), tf.int32) for part in parts]
        kept = [tf.minimum(lengths[0], room)] if pairs is None else _shortened(*lengths, room)
        parts = [_cut(*each, self._cuts_start) for each in zip(parts, kept, strict=True)]
        rows, types = template.joined(parts)
        return {
            "input_ids": rows.to_tensor(self._padding),
            "token_type_ids": types.to_tensor(0),
            "attention_mask": tf.ones_like(rows).to_tensor(0),
        }

    def _ids(self, texts: Any) -> Any:
        """The ids of texts (batch,) as a ragged tensor (batch, tokens), without special tokens."""
        import tensorflow as tf

        reserved = f"[{chr(MARKS[0])}-{chr(MARKS[-1])}]"
        texts = tf.strings.regex_replace(texts, reserved, chr(_NO_MARK))
        for token, mark in self._added:
            texts = tf.strings.regex_replace(texts, _quoted(token), mark)
        characters = tf.strings.unicode_decode(texts, "UTF-8").with_row_splits_dtype(tf.int32)
        characters = tf.gather(self._table, characters).merge_dims(1, 2)
        words = tf.strings.split(tf.strings.unicode_encode(characters, "UTF-8"))
        is_long = tf.strings.length(words.flat_values, "UTF8_CHAR") > self._longest
        words = words.with_flat_values(tf.where(is_long, self._unknown, words.flat_values))
        return self._wordpiece.tokenize(words).merge_dims(1, 2)


class _Template:
    """Where a tokenizer puts its special tokens around one or two texts."""

    def __init__(self, tokenizer: Any, texts: int) -> None:
        whole = tokenizer(*["a"] * texts, return_token_type_ids=True)
        ids, types = whole["input_ids"], whole["token_type_ids"]
        sequences = whole.sequence_ids()
        self.special = sum(each is None for each in sequences)
        self._places: list[tuple[Any, int]] = []  # an id or the number of a text, and the type
        previous = None
        for number, kind, sequence in zip(ids, types, sequences, strict=True):
            if sequence is None:
                self._places.append((np.int32(number), kind))
            elif sequence != previous:
                self._places.append((sequence, kind))
            previous = sequence

    def joined(self, parts: list) -> tuple[Any, Any]:
        """Returns ids and token types of whole rows, ragged (batch, tokens) each."""
        import tensorflow as tf

        batch = parts[0].nrows()
        rows, types = [], []
        for what, kind in self._places:
            if isinstance(what, np.int32):
                part = tf.RaggedTensor.from_tensor(tf.fill((batch, 1), tf.constant(what)))
            else:
                part = parts[what]
            rows.append(part)
            types.append(tf.ones_like(part) * kind)
        return tf.concat(rows, axis=1), tf.concat(types, axis=1)


def _shortened(first: Any, second: Any, room: int) -> tuple[Any, Any]:
    """The tokens that remain of two texts, of which the longer one is cut first.

    This is what transformers' truncation does by default.

    Args:
        first: The tokens of the first texts, (batch,).
        second: Those of the second texts, (batch,).
        room: The tokens that both may have together.
    """
    import tensorflow as tf

    short, long = tf.minimum(first, second), tf.maximum(first, second)
    long = tf.where(short > room, short, tf.maximum(short, room - short))
    is_over = short + long > room
    short, long = (
        tf.where(is_over, room // 2, short),
        tf.where(is_over, room // 2 + room % 2, long),
    )
    is_first = first > second  # the longer one
    return tf.where(is_first, long, short), tf.where(is_first, short, long)


def _cut(rows: Any, lengths: Any, cuts_start: bool) -> Any:
    """The first tokens of each row of a ragged tensor, or the last ones."""
    import tensorflow as tf

    whole = tf.cast(rows.row_lengths(), tf.int32)
    places = tf.ragged.range(whole)
    first = whole - lengths if cuts_start else tf.zeros_like(lengths)
    places -= tf.expand_dims(first, 1)
    is_kept = tf.logical_and(places >= 0, places < tf.expand_dims(lengths, 1))
    return tf.ragged.boolean_mask(rows, is_kept)


def _quoted(token: str) -> str:
    r"""A regular expression of RE2 for a text: each ASCII symbol after a backslash."""
    return "".join(f"\\{c}" if c.isascii() and not c.isalnum() else c for c in token)


def _table(backend: Any, marks: dict[int, str]) -> Any:
    """What becomes of each character: a ragged tensor (characters, …) of numbers of characters.

    Spaces separate words, so those of a Chinese character are " c ".

    Args:
        backend: The Rust tokenizer.
        marks: What stands for a special token, with that token.
    """
    import tensorflow as tf

    numbers = [number for number in range(_CHARACTERS) if number not in _SURROGATES]
    found: dict[int, str] = {}
    for separator in "qz":  # between the characters that are asked about, which it is none of
        asked = [n for n in numbers if (separator == "z") == (chr(n).lower() in "q")]
        for start in range(0, len(asked), _CHUNK):
            chunk = asked[start : start + _CHUNK]
            text = separator.join(["", *map(chr, chunk), ""])
            normal = backend.normalizer.normalize_str(text)
            words = [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(normal)]
            pieces = " ".join(words).split(separator)[1:-1]
            found.update(zip(chunk, pieces, strict=True))
    found |= {mark: f" {token} " for mark, token in marks.items()}
    rows = [[ord(c) for c in found.get(number, "")] for number in range(_CHARACTERS)]
    values = np.fromiter((c for row in rows for c in row), "int32")
    return tf.RaggedTensor.from_row_lengths(
        values, np.fromiter(map(len, rows), "int32"), validate=False
    )
