"""Target texts: their references, and the token ids that a decoder reads and has to predict."""

from typing import Any

import numpy as np

from finetune_tf.errors import DataError, ModelError
from finetune_tf.tasks.encoded import tokenized
from finetune_tf.tasks.interfaces import Columns


def references_of(value: str | list[str]) -> list[str]:
    """Returns the references of an example as a list; a text is the only one.

    Example:
        >>> from finetune_tf.tasks.target_texts import references_of
        >>> references_of("ein Hund"), references_of(["ein Hund", "der Hund"])
        (['ein Hund'], ['ein Hund', 'der Hund'])
    """
    return [value] if isinstance(value, str) else list(value)


def token_ids(
    tokenizer: Any, limit: int, texts: list[str] | None, **options: list[str]
) -> tuple[list[np.ndarray], int]:
    """The ids of each text, (tokens,) int32, and how many were truncated to a limit.

    The tokenizer truncates, so that the special tokens around a text remain.

    Args:
        tokenizer: A tokenizer of transformers.
        limit: The most tokens of a text, special ones included.
        texts: The texts; None with `text_target`.
        **options: Texts for the tokenizer by argument: `text_target`.

    Raises:
        DataError: If an id is larger than any embedding table.
    """
    encoding = tokenized(tokenizer, texts, truncation=True, max_length=limit, **options)
    ids = encoding["input_ids"]
    full = [i for i, row in enumerate(ids) if len(row) >= limit]
    truncated = 0
    if full:  # only these can have lost tokens
        some = {key: [value[i] for i in full] for key, value in options.items()}
        whole = tokenized(tokenizer, texts and [texts[i] for i in full], **some)["input_ids"]
        truncated = sum(len(row) > limit for row in whole)
    try:
        return [np.asarray(row, "int32") for row in ids], truncated
    except OverflowError:
        raise DataError(
            "The tokenizer returns ids beyond 2**31. Its files are damaged: get them again."
        ) from None


def end_of(tokenizer: Any) -> int | None:
    """Returns the id of the token that ends a target: eos, or else sep as in BERT; None if neither.

    Args:
        tokenizer: A tokenizer of transformers.
    """
    end = tokenizer.eos_token_id
    return tokenizer.sep_token_id if end is None else end


def adds_end(tokenizer: Any, text: str) -> bool:
    """Returns whether the tokenizer itself puts a token behind a text.

    A tokenizer may do so without saying which of its tokens ends a text.

    Args:
        tokenizer: A tokenizer of transformers.
        text: A target that is not empty.
    """
    ids, plain = (
        tokenizer(text_target=text, add_special_tokens=special)["input_ids"]
        for special in (True, False)
    )
    return ids[-len(plain) :] != plain


def target_ids(examples: Columns, tokenizer: Any, limit: int) -> tuple[list[np.ndarray], int]:
    """The ids of each target with the token that ends it, and how many were truncated.

    The token that ends it is the last one, or in the tokenizers of mBART and NLLB the last but one,
    in front of the code of the language.

    Args:
        examples: Examples with targets; the first of several references is encoded.
        tokenizer: A tokenizer of transformers, which may encode targets in its own way.
        limit: The most tokens that a target may have, its end included.

    Raises:
        DataError: If a target has no tokens.
        ModelError: If the tokenizer marks targets with their language and does not know it.
    """
    if getattr(tokenizer, "tgt_lang", "") is None:
        raise ModelError(
            "The tokenizer marks each target with its language, but does not know the language. "
            'Set it: model.tokenizer.src_lang = "en_XX" and model.tokenizer.tgt_lang = "de_DE".'
        )
    texts = [references_of(value)[0] for value in examples.columns["target"]]
    end = end_of(tokenizer)
    ids, truncated = token_ids(tokenizer, limit, None, text_target=texts)
    if end is not None and not all(_has_end(row, end, tokenizer) for row in ids):
        # The tokenizer adds no end, so that one token has to be left for it.
        ids, truncated = token_ids(tokenizer, max(limit - 1, 1), None, text_target=texts)
        ids = [row if len(row) and row[-1] == end else np.append(row, end) for row in ids]
    return _not_empty([row[-limit:].astype("int32") for row in ids], examples), truncated


def language_token(tokenizer: Any) -> int | None:
    """Returns the token of the language of targets, as in the tokenizers of mBART; else None.

    Args:
        tokenizer: A tokenizer of transformers.
    """
    language = getattr(tokenizer, "tgt_lang", None)
    return None if language is None else tokenizer.convert_tokens_to_ids(language)


def _has_end(ids: np.ndarray, end: int, tokenizer: Any) -> bool:
    """Whether a target ends, perhaps in front of the code of its language."""
    if len(ids) > 1 and ids[-2] == end and ids[-1] in tokenizer.all_special_ids:
        return True
    return len(ids) > 0 and ids[-1] == end


def _not_empty(ids: list[np.ndarray], examples: Columns) -> list[np.ndarray]:
    for i, row in enumerate(ids):
        if not len(row):
            raise DataError(
                f"The target of {examples.places.name(i)} of {examples.name} has no tokens. "
                "Remove it."
            )
    return ids


def shifted(ids: np.ndarray, start: int | None, end: int | None) -> np.ndarray:
    """Returns what the decoder reads: the start token, then the target without its last token.

    A target that ends with the code of its language after `end`, as mBART's do, starts with this
    code, as in `shift_tokens_right` of transformers for mBART.

    Args:
        ids: The target (tokens,).
        start: The id of the start token.
        end: The id of the token that ends a target.

    Raises:
        ModelError: If there is no start token.

    Example:
        >>> from finetune_tf.tasks.target_texts import shifted
        >>> shifted(np.array([7, 8, 1]), start=0, end=1).tolist()
        [0, 7, 8]
        >>> shifted(np.array([7, 8, 2, 250]), start=2, end=2).tolist()  # 250 is a language
        [250, 7, 8, 2]
    """
    if end is not None and len(ids) > 1 and ids[-2] == end != ids[-1]:
        start = ids[-1]
    if start is None:
        raise ModelError(
            "The config of the model has no decoder_start_token_id, the token that a decoder "
            'starts with. Give it: ft.load(checkpoint, config={"decoder_start_token_id": …}).'
        )
    return np.append(np.int32(start), ids[:-1]).astype("int32")
