"""Words and their first tokens, for tasks that predict something for every word."""

import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np

from finetune_tf.tasks.encoded import tokenized

_NO_TOKEN = -1


def encode_words(
    tokenizer: Any, rows: Sequence[Sequence[str]], max_length: int
) -> tuple[Any, list[np.ndarray], int]:
    """Encodes lists of words.

    Args:
        tokenizer: A fast tokenizer of transformers.
        rows: The words of each row.
        max_length: Tokens that a row may have, special ones included.

    Returns:
        The tokenizer's output; the words of each row, as in `Encoded.words`, with characters
        counted in `" ".join(words)`; and the number of rows that were truncated.
    """
    space = " " if _needs_space(tokenizer) else ""
    encoding, truncated = _encode(
        tokenizer, [[space + word for word in row] for row in rows], max_length, True
    )
    words = []
    for i, row in enumerate(rows):
        lengths = np.fromiter(map(len, row), dtype="int64", count=len(row))
        ends = np.cumsum(lengths + 1) - 1
        numbers = [_NO_TOKEN if word is None else word for word in encoding.word_ids(i)]
        known, tokens = np.unique(np.asarray(numbers, dtype="int64"), return_index=True)
        first = np.full(len(row), _NO_TOKEN, dtype="int64")
        first[known[known >= 0]] = tokens[known >= 0]
        words.append(np.stack([first, ends - lengths, ends], axis=1))  # (words, 3)
    return encoding, words, truncated


def encode_text_words(
    tokenizer: Any, texts: Sequence[str], max_length: int
) -> tuple[Any, list[np.ndarray], int]:
    """Encodes texts and finds the words in them.

    Words are those of the tokenizer's own pre-tokenization. If that only splits at white space,
    words also end at punctuation and around Chinese characters, as in BERT.

    Args:
        tokenizer: A fast tokenizer of transformers.
        texts: The texts.
        max_length: Tokens that a row may have, special ones included.

    Returns:
        As `encode_words`, with characters counted in the text.
    """
    space = " " if _needs_space(tokenizer) else ""
    encoding, truncated = _encode(tokenizer, [space + text for text in texts], max_length, False)
    words = [
        _words_of(text, encoding.word_ids(i), np.asarray(encoding["offset_mapping"][i]), len(space))
        for i, text in enumerate(texts)
    ]
    return encoding, words, truncated


def _encode(tokenizer: Any, rows: list, max_length: int, are_words: bool) -> tuple[Any, int]:
    encoding = tokenized(
        tokenizer,
        rows,
        is_split_into_words=are_words,
        return_offsets_mapping=True,
        truncation=True,
        max_length=max_length,
    )
    return encoding, sum(bool(row.overflowing) for row in encoding.encodings)


def _needs_space(tokenizer: Any) -> bool:
    """Whether a word has other tokens after a space, and the tokenizer does not add that space.

    This is the case for byte-level BPE (RoBERTa) without `add_prefix_space=True`: a word alone
    would get the tokens that it has within another word.
    """
    plain, spaced = tokenized(tokenizer, ["a", " a"], add_special_tokens=False)["input_ids"]
    return plain != spaced


def _words_of(
    text: str, word_ids: Sequence[int | None], offsets: np.ndarray, shift: int
) -> np.ndarray:
    """The words of a text (words, 3), from the word numbers and offsets of its tokens."""
    words: list[list[int]] = []
    number, stood_alone = None, False
    for token, (word, (start, end)) in enumerate(zip(word_ids, offsets - shift, strict=True)):
        if word is None:
            continue
        start = max(int(start), 0)
        piece = text[start:end]
        start += len(piece) - len(piece.lstrip())
        piece = piece.strip()
        alone = bool(piece) and all(map(_stands_alone, piece))
        # Several tokens can be parts of one character; a word does not end within it.
        apart = (alone or stood_alone) and words and start >= words[-1][2]
        if word != number or apart:
            words.append([token, start, start])
        words[-1][2] = max(words[-1][2], start + len(piece))
        number, stood_alone = word, alone
    words = [word for word in words if word[1] < word[2]]  # without empty ones
    return np.asarray(words, dtype="int64").reshape(-1, 3)


def _stands_alone(character: str) -> bool:
    """Whether a character is always a word of its own in BERT."""
    code = ord(character)
    is_ascii_sign = 33 <= code < 127 and not character.isalnum()
    is_chinese = 0x3400 <= code <= 0x9FFF or 0xF900 <= code <= 0xFAFF or 0x20000 <= code <= 0x323AF
    return is_ascii_sign or is_chinese or unicodedata.category(character).startswith("P")
