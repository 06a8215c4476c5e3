"""`stream`: the text of one prompt, piece by piece while it is generated."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from finetune_tf.base.arguments import check
from finetune_tf.base.spelling import names_checked
from finetune_tf.errors import ArgumentError, DataTypeError
from finetune_tf.generation.ends import is_byte
from finetune_tf.generation.generate import (
    checked_options,
    require_finite,
    settings_for,
    way_of,
)
from finetune_tf.generation.loop import stream_ids
from finetune_tf.generation.prompts import encode, padded_rows, rooms
from finetune_tf.tasks.chat import is_conversation

_INCOMPLETE = "\ufffd"  # what the bytes of an incomplete character are decoded to


@names_checked
def stream(
    model: keras.Model,
    prompt: Any,
    max_new_tokens: int | None = None,
    *,
    min_new_tokens: int | None = None,
    do_sample: bool | None = None,
    num_beams: int | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    typical_p: float | None = None,
    epsilon_cutoff: float | None = None,
    eta_cutoff: float | None = None,
    repetition_penalty: float | None = None,
    no_repeat_ngram_size: int | None = None,
    encoder_repetition_penalty: float | None = None,
    encoder_no_repeat_ngram_size: int | None = None,
    bad_words: Sequence[str] | None = None,
    stop_strings: str | Sequence[str] | None = None,
    seed: int = 0,
) -> Iterator[str]:
    """Continues one prompt, and yields pieces of the text as soon as their characters are complete.

    Together, the pieces are the text that `generate` returns for the same arguments. Generation
    stops when the iterator is no longer read.

    Args:
        model: A model loaded for the task "text-generation".
        prompt: A text, or a conversation as for `generate`.
        max_new_tokens: As for `generate`, as are all other arguments.
        min_new_tokens: The minimum number of new tokens.
        do_sample: Whether tokens are sampled.
        num_beams: 1, if the checkpoint's generation_config.json has more: the text of a beam search
            is not known before its end.
        temperature: Divides the logits before sampling.
        top_k: Samples from this number of most probable tokens.
        top_p: Samples from the most probable tokens with this total probability.
        min_p: Samples from tokens with at least this fraction of the highest probability.
        typical_p: Samples from the most typical tokens with this total probability.
        epsilon_cutoff: Samples from tokens with at least this probability.
        eta_cutoff: As `epsilon_cutoff`, but lower where the entropy is high.
        repetition_penalty: Lowers the scores of tokens that already occur.
        no_repeat_ngram_size: N-grams of this size never occur twice.
        encoder_repetition_penalty: Above 1, raises the scores of tokens of the prompt.
        encoder_no_repeat_ngram_size: N-grams of the prompt of this size never occur in the text.
        bad_words: Texts that are never generated.
        stop_strings: The text ends as soon as it contains one of these strings.
        seed: Seed of the samples.

    Returns:
        An iterator of texts, none of them empty.

    Raises:
        ArgumentError: If an option is out of range, or options contradict each other.
        DataError: If the prompt is empty or leaves no room for new tokens.
        DataTypeError: If the prompt is not a text.
        ModelError: If the model is not for text generation, or its output is not finite.

    Example:
        >>> gpt = ft.load(decoder)
        >>> pieces = list(ft.stream(gpt, "a very good", max_new_tokens=3))
        >>> "".join(pieces) == ft.generate(gpt, "a very good", max_new_tokens=3)
        True
    """
    options = dict(locals())
    for name in ("model", "prompt", "seed"):
        options.pop(name)
    check(seed=seed)
    options = checked_options(model, options, "stream")
    if not isinstance(prompt, str) and not is_conversation(prompt):
        raise DataTypeError(
            f"stream continues one text, found {type(prompt).__name__}. Use generate for several."
        )
    settings = settings_for(model, options)
    if settings.num_beams > 1 or settings.num_return_sequences > 1:
        raise ArgumentError(
            "stream yields one text while it is generated, which beam search and several texts "
            f"exclude; found num_beams={settings.num_beams} and num_return_sequences="
            f"{settings.num_return_sequences}. Give num_beams=1, or use generate."
        )
    (row,) = encode(model, [prompt])
    (new,) = rooms(model, [row], settings, is_requested=max_new_tokens is not None)
    rows = _rows(model, row, new, way_of(model, settings), seed)
    return _pieces(rows, model.target_tokenizer)


def _rows(model: Any, prompt: np.ndarray, new: int, way: Any, seed: int) -> Iterator[np.ndarray]:
    """Yields all new tokens, (tokens,) int32, after each one."""
    ids, mask = padded_rows(model, [prompt], way.padding, way.first)
    before = way.continues(prompt)
    for progress in stream_ids(model, ids, mask, new, way, (seed, 0)):
        require_finite(progress.is_finite, model)
        yield way.ends.cut(before, np.asarray(progress.ids)[0, -int(progress.step) :])


def _pieces(rows: Iterable[np.ndarray], tokenizer: Any) -> Iterator[str]:
    """Yields what the text of each row adds to that of the row before it."""
    sent = text = ""
    for row in rows:
        text = tokenizer.decode(row, skip_special_tokens=True)
        final = _final(text, row, tokenizer)
        if len(final) > len(sent):
            yield final[len(sent) :]
            sent = final
    if len(text) > len(sent):
        yield text[len(sent) :]


def _final(text: str, row: np.ndarray, tokenizer: Any) -> str:
    """Returns the beginning of a text that no further token changes."""
    if not row.size or is_byte(tokenizer.convert_ids_to_tokens(int(row[-1]))):
        return ""  # the bytes of a character are decoded together
    if tokenizer.clean_up_tokenization_spaces:  # which removes spaces before a later token
        text = text[: max(text.rfind(" "), 0)]
    return text.rstrip(_INCOMPLETE)
