"""Prompts: from texts to checked rows of token ids, and the room that they leave for new tokens."""

from collections.abc import Iterable, Iterator
from typing import Any, Literal

import numpy as np

from finetune_tf.base.arguments import shown
from finetune_tf.data.conversations import check_prompt
from finetune_tf.errors import ArgumentError, DataError, DataTypeError
from finetune_tf.generation.engine import filled_length
from finetune_tf.generation.forward import is_prefix_model, reads_sources
from finetune_tf.generation.settings import GenerationSettings
from finetune_tf.messages import say
from finetune_tf.tasks.causal_tokens import without_end
from finetune_tf.tasks.chat import is_conversation, prompt_ids
from finetune_tf.tasks.encoded import warn_of_two_starts
from finetune_tf.tasks.task_params import warn_of_prefix

_DEFAULT_TOKENS = 50  # if neither the call nor the checkpoint specifies a number


def as_list(prompts: Any) -> list:
    """Returns prompts as a list.

    Raises:
        DataTypeError: If they are no texts.
    """
    if isinstance(prompts, bytes | dict) or not isinstance(prompts, Iterable):
        raise DataTypeError(
            f"Prompts are a text or a list of texts, found {type(prompts).__name__}."
        )
    return list(prompts)


def encode(model: Any, texts: list) -> list[np.ndarray]:
    """Returns the token ids of each prompt, (tokens,) int32, without the token that ends a text.

    Raises:
        DataError: If a prompt is empty.
        DataTypeError: If a prompt is not a text.
    """
    tokenizer, rows = model.tokenizer, []
    prefix = model.task.prompt_prefix(model.config)
    warn_of_prefix(prefix, texts, "prompts")
    for i, text in enumerate(texts):
        if is_conversation(text):
            check_prompt(text, f"Prompt {i}")
            rows.append(prompt_ids(text, tokenizer, f"prompt {i}"))
            continue
        if not isinstance(text, str):
            raise DataTypeError(f"Prompt {i} is no text but {type(text).__name__}: {text!r}.")
        if reads_sources(model) and not text.strip():  # it would have the token that ends a text
            raise DataError(f"Source {i} is empty, so that a target would be made up. Remove it.")
        ids = tokenizer(prefix + text, return_attention_mask=False, verbose=False)["input_ids"]
        if not ids:
            raise DataError(
                f"Prompt {i} is empty, so there is nothing to continue. Begin with a word."
            )
        ids = np.asarray(ids, "int32")
        # A source ends as the tokenizer ends it; a prompt is to be continued.
        rows.append(ids if reads_sources(model) else without_end(ids, text, tokenizer))
    warn_of_two_starts(rows, tokenizer, "prompts")
    return rows


def checked_ids(i: int, row: Any, model: Any) -> np.ndarray:
    """Returns the ids of the i-th prompt as int32 (tokens,).

    Raises:
        DataError: If it has no ids, or ids without embedding.
    """
    size = model.config["vocab_size"]
    try:
        ids = np.asarray(row)
    except ValueError:  # lists of different lengths
        ids = np.empty(0)
    if ids.ndim != 1 or not ids.size or not np.issubdtype(ids.dtype, np.integer):
        raise DataError(
            f"Prompt {i} has to be a list of token ids with at least one, found {shown(row)}."
        )
    if ids.min() < 0 or ids.max() >= size:
        wrong = ids[(ids < 0) | (ids >= size)][0]
        raise DataError(
            f"Prompt {i} has the token id {wrong}, but the model has {size:,} tokens, from 0 to "
            f"{size - 1:,}. Encode it with model.tokenizer."
        )
    return ids.astype("int32")


def rooms(
    model: Any, rows: list[np.ndarray], settings: GenerationSettings, is_requested: bool
) -> list[int]:
    """Returns the maximum number of new tokens of each prompt.

    Unless the call asks for a number, it depends on the length of a prompt and not on that of the
    others: `max_length` counts the prompt, and the positions of the model end somewhere.

    Args:
        model: The model, which limits the number of positions.
        rows: The ids of the prompts.
        settings: How text is generated.
        is_requested: Whether the number of new tokens is that of the call, so that no smaller one
            may be taken.

    Raises:
        ArgumentError: If it is less than the minimum number.
        DataError: If prompts are too long for that.
    """
    lengths, limit = [len(row) for row in rows], model._max_positions
    new = settings.max_new_tokens
    begun = lengths
    if reads_sources(model):
        longest = max(lengths, default=0)
        if longest > limit:
            raise DataError(
                f"A source text has {longest:,} tokens, but the model has positions for {limit:,}. "
                "Shorten it."
            )
        begun = [1 for _ in rows]  # the token with which a target begins
        # An encoder-decoder has other positions for sources. In a prefix language model, the token
        # that begins a target takes a position after the source, and the last new token none.
        lengths = lengths if is_prefix_model(model) else begun
    if new is not None and (settings.min_new_tokens or 0) > new:
        raise ArgumentError(
            f"min_new_tokens={settings.min_new_tokens} is more than max_new_tokens={new}."
        )
    wanted = [_DEFAULT_TOKENS if new is None else new for _ in rows]
    if new is None and settings.max_length is not None:
        wanted = [settings.max_length - length for length in begun]
        if min(wanted, default=1) < 1:
            raise DataError(
                f"A prompt has {max(begun):,} tokens, but the checkpoint's generation_config.json "
                f"has max_length {settings.max_length:,}, prompt included. Give max_new_tokens."
            )
    longest, most = max(lengths, default=0), max(wanted, default=0)
    if longest + most <= limit:
        return wanted
    if longest >= limit:
        raise DataError(
            f"A prompt has {longest:,} tokens, but the model has positions for {limit:,}, so "
            "nothing can be generated. Shorten it."
        )
    fitting = [min(pair) for pair in zip(wanted, (limit - n for n in lengths), strict=True)]
    if fitting != wanted and is_requested:
        raise DataError(
            f"A prompt of {longest:,} tokens and max_new_tokens={most:,} need "
            f"{longest + most:,} positions, but the model has {limit:,}. Give "
            f"max_new_tokens={limit - longest} or less, or shorten the prompt."
        )
    if fitting != wanted:
        say(f"generate: at most {min(fitting):,} tokens, since the model has {limit:,} positions.")
    return fitting


def batches_of(rooms: list[int], size: int) -> Iterator[tuple[int, list[int]]]:
    """Yields batches of prompts that have one maximum number of new tokens, and this number.

    Example:
        >>> from finetune_tf.generation.prompts import batches_of
        >>> list(batches_of([9, 9, 5, 9], size=2))
        [(9, [0, 1]), (9, [3]), (5, [2])]
    """
    for room in dict.fromkeys(rooms):
        same = [i for i, each in enumerate(rooms) if each == room]
        for start in range(0, len(same), size):
            yield room, same[start : start + size]


def padded_rows(
    model: Any, rows: list[np.ndarray], padding: int, first: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns ids and mask (batch, length) of prompts, or of the sources of a model that has them.

    Args:
        model: The model.
        rows: The token ids of each row.
        padding: The id of the padding.
        first: The token with which targets begin; None for a model that continues prompts.
    """
    if first is None:
        return padded(rows, padding, "left")
    return padded(rows, padding, "right", model._max_positions)


def padded(
    rows: list[np.ndarray],
    padding: int,
    side: Literal["left", "right"],
    most: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns ids and mask (batch, length) of token ids of different lengths.

    Args:
        rows: The token ids of each row.
        padding: The id of the padding.
        side: "left" for prompts, which all end at the same place, so that one token of each can
            follow; "right" for sources, whose positions start at 0.
        most: The highest length, if there is a limit to that of padding.

    Example:
        >>> from finetune_tf.generation.prompts import padded
        >>> rows = [np.array([5, 6]), np.array([7])]
        >>> [array.tolist() for array in padded(rows, padding=0, side="left")]
        [[[5, 6], [0, 7]], [[1, 1], [0, 1]]]
    """
    length = filled_length(max(map(len, rows)), most)
    ids = np.full((len(rows), length), padding, "int32")
    mask = np.zeros((len(rows), length), "int32")
    for i, row in enumerate(rows):
        start = length - len(row) if side == "left" else 0
        ids[i, start : start + len(row)] = row
        mask[i, start : start + len(row)] = 1
    return ids, mask


def encode_words(words: Any, tokenizer: Any) -> tuple[tuple[int, ...], ...]:
    """Returns the token ids of words that may not occur, at the beginning and inside of a text.

    Args:
        words: The words.
        tokenizer: The tokenizer of the model.

    Raises:
        ArgumentError: If there are no words, or the tokenizer has no tokens for one.

    Example:
        >>> from finetune_tf.generation.prompts import encode_words
        >>> tokenizer = ft.load(decoder).tokenizer
        >>> [tokenizer.decode(ids) for ids in encode_words(["bad film"], tokenizer)]
        ['bad film']
    """
    if isinstance(words, str) or not all(isinstance(word, str) for word in words):
        raise ArgumentError(f"bad_words is a list of texts, found {shown(words)}.")
    found = []
    for word in words:
        # Tokens of words inside a text mostly begin with a space.
        for text in (word, f" {word}"):
            ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
            if not word.strip() or not ids or tokenizer.unk_token_id in ids:
                raise ArgumentError(
                    f"bad_words has {word!r}, for which the tokenizer has no tokens. Take it out."
                )
            found.append(tuple(ids))
    return tuple(dict.fromkeys(found))
