"""`generate`: a language model continues prompts."""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np

from finetune_tf.base.arguments import check
from finetune_tf.base.spelling import names_checked
from finetune_tf.errors import ModelError
from finetune_tf.generation.beams import Beams
from finetune_tf.generation.ends import Ends, compiled
from finetune_tf.generation.engine import require_engine
from finetune_tf.generation.forward import cached_blocks, reads_sources
from finetune_tf.generation.loop import generate_ids
from finetune_tf.generation.prompts import (
    as_list,
    batches_of,
    checked_ids,
    encode,
    encode_words,
    padded_rows,
    rooms,
)
from finetune_tf.generation.search import search_ids
from finetune_tf.generation.settings import (
    GenerationSettings,
    Stopping,
    check_options,
    target_size,
)
from finetune_tf.generation.source_rules import check_shared_vocabulary
from finetune_tf.generation.way import Way
from finetune_tf.graph.stages import require_task
from finetune_tf.graph.traces import traces_of
from finetune_tf.tasks.chat import is_conversation
from finetune_tf.training.untrained import say_if_untrained


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
    typical_p: float | None = None,
    epsilon_cutoff: float | None = None,
    eta_cutoff: float | None = None,
    repetition_penalty: float | None = None,
    no_repeat_ngram_size: int | None = None,
    encoder_repetition_penalty: float | None = None,
    encoder_no_repeat_ngram_size: int | None = None,
    bad_words: Sequence[str] | None = None,
    stop_strings: str | Sequence[str] | None = None,
    length_penalty: float | None = None,
    early_stopping: Stopping | None = None,
    num_return_sequences: int | None = None,
    batch_size: int = 8,
    seed: int = 0,
    return_ids: bool = False,
    return_scores: bool = False,
) -> Any:
    """Continues prompts with a causal language model.

    Options that are not given come from the checkpoint's generation_config.json, or else from the
    defaults of transformers. Greedy and beam search return the tokens that PyTorch's `generate`
    returns for each prompt alone; samples have the same distribution.

    Args:
        model: A model loaded for the task "text-generation".
        prompts: A text, or several texts of any lengths. A conversation, a list of messages
            {"role": …, "content": …}, may stand in the place of a text: the chat template of the
            tokenizer makes the prompt, and the new text is the answer of the assistant. If the last
            message is one of the assistant already, the new text continues it.
        max_new_tokens: The maximum number of new tokens, by default 50.
        min_new_tokens: The minimum number of new tokens, by default 0.
        do_sample: Whether tokens are sampled; by default the most probable token is selected.
        num_beams: Number of beams of beam search, by default 1, which means no beam search. With
            `do_sample`, its candidates are drawn without replacement from the softmax of their
            scores, after the restrictions below.
        temperature: Divides the logits before sampling, by default 1.0.
        top_k: Samples from this number of most probable tokens, by default 50; 0 for all.
        top_p: Samples from the most probable tokens with this total probability, by default 1.0
            (Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration").
        min_p: Samples from tokens with at least this fraction of the highest probability, by
            default 0.0 (Nguyen et al. 2024, "Turning Up the Heat").
        typical_p: Samples from the tokens with this total probability whose information is closest
            to the entropy, by default 1.0 (Meister et al. 2023, "Locally Typical Sampling").
        epsilon_cutoff: Samples from tokens with at least this probability, by default 0.0 (Hewitt
            et al. 2022, "Truncation Sampling as Language Model Desmoothing").
        eta_cutoff: As `epsilon_cutoff`, but lower where the entropy is high, by default 0.0.
        repetition_penalty: Lowers the scores of tokens that already occur, by default 1.0, which
            changes nothing (Keskar et al. 2019, "CTRL").
        no_repeat_ngram_size: N-grams of this size never occur twice; by default 0, no restriction
            (Paulus et al. 2018, "A Deep Reinforced Model for Abstractive Summarization").
        encoder_repetition_penalty: Above 1, raises the scores of tokens of the source (of the
            prompt, if the model has no sources), against words that are made up; by default 1.0.
        encoder_no_repeat_ngram_size: N-grams of this size of the source (or prompt) never occur in
            the text; by default 0, no restriction.
        bad_words: Texts that are never generated, in addition to those of the checkpoint. Each is
            excluded as the tokens into which the tokenizer splits it, with and without a space
            before it.
        stop_strings: A text ends as soon as it contains one of these strings, which may also begin
            in the prompt. The text includes the string and the rest of its last token.
        length_penalty: Exponent of the length by which beam search divides scores, by default 1.0.
        early_stopping: When beam search ends: True, as soon as `num_beams` texts are complete;
            False (the default), when no running beam of the current length has a better score;
            "never", when no beam of any length can have one.
        num_return_sequences: Texts for each prompt, by default 1.
        batch_size: Prompts in a batch.
        seed: Seed of the samples.
        return_ids: Whether to return token ids instead of texts.
        return_scores: Whether to return the score of each text as well. It is the sum of the
            log-probabilities (natural logarithms) of its tokens, including the one that ends it:
            those of the distribution from which each was selected, after all options. In beam
            search, penalties count in the sum, which is divided by the number of tokens to the
            power `length_penalty`.

    Returns:
        For each prompt the new text, without the prompt; for a single prompt the text itself. If
        `num_return_sequences` is above 1, a list of texts for each prompt. With `return_ids`,
        int32 arrays (tokens,) without the token that ends a text. With `return_scores`, a pair of
        that and floats in the same structure.

    Raises:
        ArgumentError: If an option is out of range, or options contradict each other.
        DataError: If a prompt is empty or leaves no room for new tokens.
        DataTypeError: If a prompt is not a text.
        ModelError: If the model is not for text generation, or its output is not finite.

    Example:
        >>> gpt = ft.load(decoder)
        >>> text, score = ft.generate(gpt, "a very good", max_new_tokens=3, return_scores=True)
        >>> len(gpt.tokenizer(text)["input_ids"]) <= 3, score < 0
        (True, True)
    """
    options = dict(locals())
    for name in ("model", "prompts", "return_ids", "return_scores"):
        options.pop(name)
    options = checked_options(model, options, "generate")
    is_single = isinstance(prompts, str) or is_conversation(prompts)
    texts = [prompts] if is_single else as_list(prompts)
    found = model.generate(encode(model, texts), return_scores=return_scores, **options)
    found, scores = found if return_scores else (found, [None])
    if not return_ids:
        decode = functools.partial(model.target_tokenizer.decode, skip_special_tokens=True)
        found = [
            decode(row) if isinstance(row, np.ndarray) else list(map(decode, row)) for row in found
        ]
    if is_single:
        found, scores = found[0], scores[0]
    return (found, scores) if return_scores else found


def checked_options(model: Any, options: dict[str, Any], name: str) -> dict[str, Any]:
    """Returns the options of a call for texts as those of a call for token ids.

    Args:
        model: A model for text generation.
        options: The options of the call.
        name: The function, for messages.

    Raises:
        ArgumentError: If an option is out of range.
        ModelError: If the model is not for text generation.
    """
    words = options.pop("bad_words", None)
    check_options(options)
    task = require_task(model).task
    if not task.generates_text:
        raise ModelError(
            f"{name} needs a model that generates text, found one for {task.name}. Load one with "
            "ft.load(checkpoint, 'text-generation')."
        )
    say_if_untrained(model)
    if words is not None:
        known = GenerationSettings.of(model).bad_words_ids
        options["bad_words_ids"] = known + encode_words(words, model.target_tokenizer)
    return options


def generate_rows(
    model: keras.Model,
    prompts: Sequence[Any],
    max_new_tokens: int | None = None,
    *,
    batch_size: int = 8,
    seed: int = 0,
    return_scores: bool = False,
    **options: Any,
) -> Any:
    """Continues prompts of token ids; arguments are as for `generate`.

    Args:
        model: A causal language model.
        prompts: Token ids, one array or list for each prompt.
        max_new_tokens: As for `generate`, as are all other arguments.
        batch_size: Prompts in a batch.
        seed: Seed of the samples.
        return_scores: Whether to return the scores as well.
        **options: The options of `GenerationSettings`.

    Returns:
        The ids of the new tokens without the end of the text, an array for each prompt; or a list
        of arrays for each prompt if there are several texts for each. With `return_scores`, a pair
        of that and floats in the same structure.

    Raises:
        ArgumentError: If an option is out of range, or options contradict each other.
        DataError: If a prompt is empty, has ids without embedding, or leaves no room.
        ModelError: If the model is not a causal language model, or its output is not finite.
    """
    check(max_new_tokens=max_new_tokens, batch_size=batch_size, seed=seed)
    settings = settings_for(model, {"max_new_tokens": max_new_tokens, **options})
    way = way_of(model, settings, return_scores)
    rows = [checked_ids(i, row, model) for i, row in enumerate(prompts)]
    most = rooms(model, rows, settings, is_requested=max_new_tokens is not None)
    found: list[Any] = [None] * len(rows)
    scores: list[Any] = [None] * len(rows)
    several = settings.num_return_sequences
    for new, batch in batches_of(most, batch_size):
        prompts = [rows[i] for i in batch]
        tokens, totals = continue_batch(model, prompts, way, several, new, (seed, batch[0]))
        for i, prompt, texts, total in zip(batch, prompts, tokens, totals, strict=True):
            before = way.continues(prompt)
            found[i] = [way.ends.cut(before, row) for row in texts]
            scores[i] = total.tolist()
    if settings.num_return_sequences == 1:
        found, scores = [row for (row,) in found], [score for (score,) in scores]
    return (found, scores) if return_scores else found


def settings_for(model: Any, options: dict[str, Any]) -> GenerationSettings:
    """Returns the settings of a checkpoint with the options of a call.

    Raises:
        ArgumentError: If an option is out of range, or options contradict each other.
        ModelError: If the model cannot generate.
    """
    cached_blocks(model)
    require_engine()
    return GenerationSettings.of(model).changed(options, target_size(model.config))


def way_of(model: Any, settings: GenerationSettings, has_scores: bool = False) -> Way:
    """Returns what the graph of a model's loop depends on."""
    stops, texts = None, settings.stop_strings
    if texts:
        kept, tokenizer = traces_of(model), model.target_tokenizer
        of, stops = kept.get(("stop strings", texts), (None, None))
        if of is not tokenizer:
            stops = compiled(texts, tokenizer, target_size(model.config))
            kept["stop strings", texts] = tokenizer, stops
    rules = tuple(settings.rules())
    check_shared_vocabulary(rules, model)
    return Way(
        settings.choice(),
        rules,
        Ends(settings.eos_token_id, stops),
        settings.padding(),
        settings.num_return_sequences if settings.num_beams > 1 else 1,
        _first_token(model, settings),
        has_scores,
    )


def _first_token(model: Any, settings: GenerationSettings) -> int | None:
    """Returns the token with which targets begin; None for a model that continues prompts.

    Raises:
        ModelError: If the checkpoint does not say it.
    """
    if not reads_sources(model):
        return None
    if settings.decoder_start_token_id is None:
        raise ModelError(
            "The checkpoint does not say with which token its texts begin. Set "
            "model.config['decoder_start_token_id'], for mBART to the token of the language."
        )
    return settings.decoder_start_token_id


def continue_batch(
    model: Any, rows: list[np.ndarray], way: Way, several: int, new: int, seed: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the new tokens of a batch of prompts, and the scores of the texts.

    Args:
        model: A causal language model.
        rows: The ids of the prompts.
        way: How tokens are generated.
        several: Number of texts for each prompt.
        new: Maximum number of new tokens.
        seed: The seed of the samples, and the index of the first prompt.

    Returns:
        (prompts, texts, tokens) int32 and (prompts, texts) float32.
    """
    ids, mask = padded_rows(model, rows, way.padding, way.first)
    if isinstance(way.choice, Beams):
        tokens, scores, is_finite = search_ids(model, ids, mask, new, way, seed)
    else:
        ids, mask = (np.repeat(array, several, axis=0) for array in (ids, mask))
        tokens, scores, is_finite = generate_ids(model, ids, mask, new, way, seed)
    require_finite(is_finite, model)
    shape = len(rows), several
    return np.asarray(tokens).reshape(*shape, -1), np.asarray(scores).reshape(shape)


def require_finite(is_finite: Any, model: Any) -> None:
    """Raises a ModelError unless all logits were finite."""
    if not is_finite:
        raise ModelError(
            f"{model.name} returned logits that are not finite while it generated: its weights are "
            "most likely broken. Train again, with a lower learning rate or without float16."
        )
