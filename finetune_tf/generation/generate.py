"""`generate`: a language model continues prompts."""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np

from finetune_tf.base.arguments import check, shown
from finetune_tf.base.spelling import names_checked
from finetune_tf.errors import ArgumentError, DataError, DataTypeError, ModelError
from finetune_tf.generation.beams import Beams
from finetune_tf.generation.forward import cached_blocks
from finetune_tf.generation.loop import generate_ids, search_ids
from finetune_tf.generation.sampling import Rules, Sampling
from finetune_tf.generation.settings import GenerationSettings, Stopping, check_options
from finetune_tf.graph.stages import require_task
from finetune_tf.messages import say
from finetune_tf.tasks.causal_tokens import without_end
from finetune_tf.tasks.chat import is_conversation, prompt_ids
from finetune_tf.training.untrained import say_if_untrained

_DEFAULT_TOKENS = 50  # if neither the call nor the checkpoint specifies a number


@names_checked
def generate(
    model: keras.Model,
    prompts: str | Iterable[Any],
    max_new_tokens: int | None = None,
    *,
    min_new_tokens: int | None = None,
    do_sample: bool | None = None,
    num_beams: int | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float | None = None,
    no_repeat_ngram_size: int | None = None,
    length_penalty: float | None = None,
    early_stopping: Stopping | None = None,
    num_return_sequences: int | None = None,
    batch_size: int = 8,
    seed: int = 0,
    return_ids: bool = False,
) -> Any:
    """Continues prompts with a causal language model.

    Options that are not given come from the checkpoint's generation_config.json, or else from the
    defaults of transformers. Greedy and beam search return the tokens that PyTorch's `generate`
    returns for each prompt alone; samples have the same distribution.

    Args:
        model: A model loaded for the task "text-generation".
        prompts: A text, or several texts of any lengths. A conversation, a list of messages
            {"role": …, "content": …}, may stand in the place of a text: the chat template of the
            tokenizer makes the prompt, and the new text is the answer of the assistant.
        max_new_tokens: The maximum number of new tokens, by default 50.
        min_new_tokens: The minimum number of new tokens, by default 0.
        do_sample: Whether tokens are sampled; by default the most probable token is selected.
        num_beams: Number of beams of beam search, by default 1, which means no beam search.
        temperature: Divides the logits before sampling, by default 1.0.
        top_k: Samples from this number of most probable tokens, by default 50; 0 for all.
        top_p: Samples from the most probable tokens with this total probability, by default 1.0
            (Holtzman et al. 2020).
        min_p: Samples from tokens with at least this fraction of the highest probability, by
            default 0.0 (Nguyen et al. 2024).
        repetition_penalty: Lowers the scores of tokens that already occur, by default 1.0, which
            changes nothing (Keskar et al. 2019).
        no_repeat_ngram_size: N-grams of this size never occur twice; by default 0, no restriction
            (Paulus et al. 2018).
        length_penalty: Exponent of the length by which beam search divides scores, by default 1.0.
        early_stopping: When beam search ends: True, as soon as `num_beams` texts are complete;
            False (the default), when no running beam of the current length has a better score;
            "never", when no beam of any length can have one.
        num_return_sequences: Texts for each prompt, by default 1.
        batch_size: Prompts in a batch.
        seed: Seed of the samples.
        return_ids: Whether to return token ids instead of texts.

    Returns:
        For each prompt the new text, without the prompt; for a single prompt the text itself. If
        `num_return_sequences` is above 1, a list of texts for each prompt. With `return_ids`,
        int32 arrays (tokens,) without the token that ends a text.

    Raises:
        ArgumentError: If an option is out of range, or options contradict each other.
        DataError: If a prompt is empty or leaves no room for new tokens.
        DataTypeError: If a prompt is not a text.
        ModelError: If the model is not for text generation, or its output is not finite.

    Example:
        >>> gpt = ft.load(decoder)
        >>> text = ft.generate(gpt, "a very good", max_new_tokens=3)
        >>> len(gpt.tokenizer(text)["input_ids"]) <= 5
        True
    """
    options = dict(locals())
    for name in ("model", "prompts", "return_ids"):
        options.pop(name)
    check_options(options)
    task = require_task(model).task
    if not task.generates_text:
        raise ModelError(
            f"generate needs a model that generates text, found one for {task.name}. Load one with "
            "ft.load(checkpoint, 'text-generation')."
        )
    say_if_untrained(model)
    is_single = isinstance(prompts, str) or is_conversation(prompts)
    texts = [prompts] if is_single else _as_list(prompts)
    found = model.generate(_encode(model, texts), **options)
    if not return_ids:
        decode = functools.partial(model.tokenizer.decode, skip_special_tokens=True)
        found = [
            decode(row) if isinstance(row, np.ndarray) else list(map(decode, row)) for row in found
        ]
    return found[0] if is_single else found


def generate_rows(
    model: keras.Model,
    prompts: Sequence[Any],
    max_new_tokens: int | None = None,
    *,
    batch_size: int = 8,
    seed: int = 0,
    **options: Any,
) -> list:
    """Continues prompts of token ids; arguments are as for `generate`.

    Args:
        model: A causal language model.
        prompts: Token ids, one array or list for each prompt.
        max_new_tokens: As for `generate`, as are all other arguments.
        batch_size: Prompts in a batch.
        seed: Seed of the samples.
        **options: The options of `GenerationSettings`.

    Returns:
        The ids of the new tokens without the end of the text, an array for each prompt; or a list
        of arrays for each prompt if there are several texts for each.

    Raises:
        ArgumentError: If an option is out of range, or options contradict each other.
        DataError: If a prompt is empty, has ids without embedding, or leaves no room.
        ModelError: If the model is not a causal language model, or its output is not finite.
    """
    check(max_new_tokens=max_new_tokens, batch_size=batch_size, seed=seed)
    cached_blocks(model)
    if keras.backend.backend() != "tensorflow":
        raise ModelError(
            "Text is generated on TensorFlow only, but Keras runs on "
            f"{keras.backend.backend()}. Set KERAS_BACKEND=tensorflow before Python starts."
        )
    settings = GenerationSettings.of(model).changed({"max_new_tokens": max_new_tokens, **options})
    rows = [_checked_ids(i, row, model) for i, row in enumerate(prompts)]
    new = _room(model, rows, settings, is_requested=max_new_tokens is not None)
    found = []
    for start in range(0, len(rows), batch_size):
        found += _continue(model, rows[start : start + batch_size], settings, new, (seed, start))
    ends = set(settings.eos_token_id)
    found = [[_until_end(row, ends) for row in several] for several in found]
    return [row for (row,) in found] if settings.num_return_sequences == 1 else found


def _as_list(prompts: Any) -> list:
    if isinstance(prompts, bytes | dict) or not isinstance(prompts, Iterable):
        raise DataTypeError(
            f"Prompts are a text or a list of texts, found {type(prompts).__name__}."
        )
    return list(prompts)


def _encode(model: Any, texts: list) -> list[np.ndarray]:
    """Returns the token ids of each prompt."""
    tokenizer, rows = model.tokenizer, []
    for i, text in enumerate(texts):
        if is_conversation(text):
            rows.append(prompt_ids(text, tokenizer, f"prompt {i}"))
            continue
        if not isinstance(text, str):
            raise DataTypeError(f"Prompt {i} is no text but {type(text).__name__}: {text!r}.")
        ids = tokenizer(text, return_attention_mask=False, verbose=False)["input_ids"]
        if not ids:
            raise DataError(
                f"Prompt {i} is empty, so there is nothing to continue. Begin with a word."
            )
        rows.append(without_end(np.asarray(ids, "int32"), text, tokenizer))
    return rows


def _checked_ids(i: int, row: Any, model: Any) -> np.ndarray:
    """Returns the ids of a prompt as int32 (tokens,)."""
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


def _room(
    model: Any, rows: list[np.ndarray], settings: GenerationSettings, is_requested: bool
) -> int:
    """Returns the maximum number of new tokens.

    Raises:
        DataError: If prompts are too long for that.
    """
    longest, limit = max(map(len, rows), default=0), model._max_positions
    new = settings.max_new_tokens
    if new is not None and settings.min_new_tokens > new:
        raise ArgumentError(
            f"min_new_tokens={settings.min_new_tokens} is more than max_new_tokens={new}."
        )
    if new is None and settings.max_length is not None:
        new = settings.max_length - longest
        if new < 1:
            raise DataError(
                f"A prompt has {longest:,} tokens, but the checkpoint's generation_config.json has "
                f"max_length {settings.max_length:,}, prompt included. Give max_new_tokens."
            )
    if new is None:
        new = _DEFAULT_TOKENS
    if longest + new > limit:
        if longest >= limit:
            raise DataError(
                f"A prompt has {longest:,} tokens, but the model has positions for {limit:,}, so "
                "nothing can be generated. Shorten it."
            )
        if is_requested:
            raise DataError(
                f"A prompt of {longest:,} tokens and max_new_tokens={new:,} need "
                f"{longest + new:,} positions, but the model has {limit:,}. Give "
                f"max_new_tokens={limit - longest} or less, or shorten the prompt."
            )
        new = limit - longest
        say(f"generate: at most {new:,} tokens, since the model has {limit:,} positions.")
    return new


def _continue(
    model: Any,
    rows: list[np.ndarray],
    settings: GenerationSettings,
    new: int,
    seed: tuple[int, int],
) -> list[np.ndarray]:
    """Returns the new tokens of a batch of prompts, (texts, tokens) for each of them."""
    ids, mask = left_padded(rows, _padding(settings))
    rules = Rules(
        settings.repetition_penalty,
        settings.no_repeat_ngram_size,
        settings.min_new_tokens,
    )
    ends, padding = settings.eos_token_id, _padding(settings)
    if settings.num_beams > 1:
        beams = Beams(settings.num_beams, settings.length_penalty, settings.early_stopping)
        several = settings.num_return_sequences
        tokens, _, is_finite = search_ids(
            model, ids, mask, new, beams, rules, ends, padding, several
        )
        _require_finite(is_finite, model)
        return list(np.asarray(tokens))
    several = settings.num_return_sequences
    ids, mask = (np.repeat(array, several, axis=0) for array in (ids, mask))
    sampling = Sampling(
        settings.do_sample, settings.temperature, settings.top_k, settings.top_p, settings.min_p
    )
    tokens, is_finite = generate_ids(model, ids, mask, new, sampling, rules, ends, padding, seed)
    _require_finite(is_finite, model)
    return list(np.asarray(tokens).reshape(len(rows), several, -1))


def _require_finite(is_finite: Any, model: Any) -> None:
    if not is_finite:
        raise ModelError(
            f"{model.name} returned logits that are not finite while it generated: its weights are "
            "most likely broken. Train again, with a lower learning rate or without float16."
        )


def left_padded(rows: list[np.ndarray], padding: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns ids and mask (batch, length) of prompts, padded on the left.

    Example:
        >>> from finetune_tf.generation.generate import left_padded
        >>> [array.tolist() for array in left_padded([np.array([5, 6]), np.array([7])], padding=0)]
        [[[5, 6], [0, 7]], [[1, 1], [0, 1]]]
    """
    length = max(map(len, rows))
    ids = np.full((len(rows), length), padding, "int32")
    mask = np.zeros((len(rows), length), "int32")
    for i, row in enumerate(rows):
        ids[i, length - len(row) :] = row
        mask[i, length - len(row) :] = 1
    return ids, mask


def _padding(settings: GenerationSettings) -> int:
    if settings.pad_token_id is not None:
        return settings.pad_token_id
    return settings.eos_token_id[0] if settings.eos_token_id else 0


def _until_end(row: np.ndarray, ends: set[int]) -> np.ndarray:
    """Returns the tokens of a text before the one that ends it."""
    for i, token in enumerate(row.tolist()):
        if token in ends:
            return row[:i]
    return row
