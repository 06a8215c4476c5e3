"""`generate`: prompts in, texts out."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_tf.base.arguments import check
from finetune_tf.base.spelling import names_checked
from finetune_tf.errors import DataError, DataTypeError, ModelError
from finetune_tf.generation.beams import Beams
from finetune_tf.generation.loop import generate_ids, search_ids
from finetune_tf.generation.sampling import Rules, Sampling
from finetune_tf.generation.settings import GenerationSettings, Stopping
from finetune_tf.graph.stages import require_task
from finetune_tf.messages import say

if TYPE_CHECKING:
    import keras

_USUAL_TOKENS = 50  # where neither the call nor the checkpoint says how many


@names_checked
def generate(
    model: "keras.Model",
    prompts: str | Iterable[str],
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
    """Continues prompts with a language model.

    What is not given is as the checkpoint's generation_config.json says, and else as transformers
    has it. The tokens are those of PyTorch's `generate` with the same options.

    Args:
        model: A model that was loaded for the task "text-generation".
        prompts: One text, or several of any lengths.
        max_new_tokens: Tokens that are generated at most, by default 50.
        min_new_tokens: Tokens that are generated before a text may end, by default 0.
        do_sample: Whether tokens are drawn at random; by default the best one is taken.
        num_beams: Beams of beam search, by default 1, which is none.
        temperature: Divides the logits before drawing, by default 1.0.
        top_k: Draws from so many of the best tokens, by default 50; 0 for all.
        top_p: Draws from the best tokens with this probability in all, by default 1.0
            (Holtzman et al. 2020).
        min_p: Draws from tokens with at least this share of the best one's probability, by
            default 0.0 (Nguyen et al. 2024).
        repetition_penalty: Makes tokens that occur already less probable, by default 1.0, which
            changes nothing (Keskar et al. 2019).
        no_repeat_ngram_size: So many tokens in succession never occur twice; by default 0, no
            such rule (Paulus et al. 2018).
        length_penalty: Of beam search: above 0, by default 1.0, favours long texts.
        early_stopping: Of beam search: True ends it as soon as `num_beams` texts have ended; False,
            the default, when no running beam of that length is better; "never" when none of any
            length can be.
        num_return_sequences: Texts for each prompt, by default 1.
        batch_size: Prompts that are continued at a time.
        seed: Decides what is drawn.
        return_ids: Whether to return token ids instead of texts.

    Returns:
        A text for each prompt, without the prompt; for a single prompt the text itself. With
        `num_return_sequences` above 1, a list of texts for each prompt. With `return_ids`, arrays of
        the new tokens, the end of the text not included.

    Raises:
        ArgumentError: If an option is out of range, or options contradict each other.
        DataError: If a prompt is empty, or leaves no room for new tokens.
        DataTypeError: If a prompt is no text.
        ModelError: If the model is no causal language model.

    Example:
        model = ft.load("HuggingFaceTB/SmolLM2-135M", "text-generation")
        ft.generate(model, "Once upon a time", max_new_tokens=20)
    """
    options = dict(locals())
    for name in ("model", "prompts", "batch_size", "seed", "return_ids"):
        options.pop(name)
    check(batch_size=batch_size, seed=seed)
    task = require_task(model).task
    if task.name != "text-generation":
        raise ModelError(
            f"generate needs a model for text-generation, found one for {task.name}. Load one with "
            "ft.load(checkpoint, 'text-generation')."
        )
    settings = GenerationSettings.of(model).changed(options)
    texts = [prompts] if isinstance(prompts, str) else _listed(prompts)
    rows = _prompt_ids(model, texts)
    new = _room(model, rows, settings, asked=max_new_tokens is not None)
    found = []
    for start in range(0, len(rows), batch_size):
        found += _continued(model, rows[start : start + batch_size], settings, new, seed + start)
    ends = set(settings.eos_token_id)
    found = [[_until_end(row, ends) for row in several] for several in found]
    if not return_ids:
        tokenizer = model.tokenizer
        found = [
            [tokenizer.decode(row, skip_special_tokens=True) for row in several]
            for several in found
        ]
    if settings.num_return_sequences == 1:
        found = [several[0] for several in found]
    return found[0] if isinstance(prompts, str) else found


def _listed(prompts: Any) -> list:
    if isinstance(prompts, bytes | dict) or not isinstance(prompts, Iterable):
        raise DataTypeError(
            f"Prompts are a text or a list of texts, found {type(prompts).__name__}."
        )
    return list(prompts)


def _prompt_ids(model: Any, texts: list) -> list[np.ndarray]:
    """The tokens of each prompt."""
    tokenizer, rows = model.tokenizer, []
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataTypeError(f"Prompt {i} is no text but {type(text).__name__}: {text!r}.")
        ids = tokenizer(text, return_attention_mask=False, verbose=False)["input_ids"]
        if not ids:
            raise DataError(
                f"Prompt {i} is empty, so there is nothing to continue. Begin with a word, or with "
                f"the token that begins a text: {tokenizer.bos_token!r}."
            )
        rows.append(np.asarray(ids, "int32"))
    return rows


def _room(model: Any, rows: list[np.ndarray], settings: GenerationSettings, asked: bool) -> int:
    """How many tokens are generated at most.

    Raises:
        DataError: If prompts are too long for that.
    """
    longest, limit = max(map(len, rows), default=0), model._max_positions
    new = settings.max_new_tokens
    if new is None and settings.max_length is not None:
        new = settings.max_length - longest
        if new < 1:
            raise DataError(
                f"A prompt has {longest:,} tokens, but the checkpoint's generation_config.json has "
                f"max_length {settings.max_length:,}, prompt included. Give max_new_tokens."
            )
    if new is None:
        new = _USUAL_TOKENS
    if longest + new > limit:
        if longest >= limit:
            raise DataError(
                f"A prompt has {longest:,} tokens, but the model has positions for {limit:,}, so "
                "nothing can be generated. Shorten it."
            )
        if asked:
            raise DataError(
                f"A prompt of {longest:,} tokens and max_new_tokens={new:,} need "
                f"{longest + new:,} positions, but the model has {limit:,}. Give "
                f"max_new_tokens={limit - longest} or less, or shorten the prompt."
            )
        new = limit - longest
        say(f"generate: at most {new:,} tokens, since the model has {limit:,} positions.")
    return new


def _continued(
    model: Any, rows: list[np.ndarray], settings: GenerationSettings, new: int, seed: int
) -> list[np.ndarray]:
    """New tokens of a batch of prompts: (texts, tokens) for each."""
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
        tokens, _ = search_ids(model, ids, mask, new, beams, rules, ends, padding, several)
        return list(np.asarray(tokens))
    several = settings.num_return_sequences
    ids, mask = (np.repeat(array, several, axis=0) for array in (ids, mask))
    sampling = Sampling(
        settings.do_sample, settings.temperature, settings.top_k, settings.top_p, settings.min_p
    )
    tokens = generate_ids(model, ids, mask, new, sampling, rules, ends, padding, seed)
    return list(np.asarray(tokens).reshape(len(rows), several, -1))


def left_padded(rows: list[np.ndarray], padding: int) -> tuple[np.ndarray, np.ndarray]:
    """Prompts of any lengths as ids and mask (batch, length) int32, with padding before them."""
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
    """The tokens of a text up to the one that ends it."""
    for i, token in enumerate(row.tolist()):
        if token in ends:
            return row[:i]
    return row
