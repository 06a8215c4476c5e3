"""`generate` of transformers 4: from rows of token ids to rows of token ids."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from finetune_tf.base.arguments import shown
from finetune_tf.compat.outputs import output_of
from finetune_tf.errors import ArgumentError, ModelError
from finetune_tf.generation.generate import continue_batch, settings_for, way_of
from finetune_tf.generation.generation_config import RULES, token_beyond
from finetune_tf.generation.prompts import checked_ids, rooms
from finetune_tf.generation.settings import GenerationSettings, target_size
from finetune_tf.messages import say

_LENGTH = 20  # the default of max_length, the prompt included
# Options that only change how the result is computed, or which of the inputs are not needed.
_WITHOUT_EFFECT = ("use_cache", "token_type_ids", "bos_token_id", "synced_gpus")
# Options of a call that transformers 5 reads from files only, as `GenerationSettings` does.
_TOKENS = ("eos_token_id", "pad_token_id", "decoder_start_token_id")
_DETAILS = ("output_scores", "output_attentions", "output_hidden_states")
_OF_SAMPLES = ("temperature", "top_k", "top_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
_OF_BEAMS = ("length_penalty", "early_stopping")


def generated(
    model: keras.Model,
    inputs: Any = None,
    generation_config: Any = None,
    attention_mask: Any = None,
    **options: Any,
) -> Any:
    """Generates token ids as `generate` of the old classes.

    Each row is continued as if it were alone. Samples follow `tf.random.set_seed`, unless there is
    a seed.

    Args:
        model: A language model.
        inputs: Token ids (batch, length); of an encoder-decoder, the sources. They may also be
            given as `input_ids`. Without them, a decoder begins with the token `bos_token_id`.
        generation_config: A `GenerationConfig` of transformers, whose values count if `options`
            have none.
        attention_mask: (batch, length), 0 for padding. By default, the padding token counts as
            padding if it is not a token that ends texts.
        **options: Those of transformers 4: `max_length` (of the prompt and the new tokens, by
            default 20), `max_new_tokens`, `min_length`, `do_sample`, `num_beams`, `temperature`,
            `top_k`, `top_p`, `repetition_penalty`, `no_repeat_ngram_size`, `bad_words_ids`,
            `num_return_sequences`, `length_penalty`, `early_stopping`, `pad_token_id`,
            `eos_token_id`, `decoder_start_token_id`, `forced_bos_token_id`, `seed` and others.

    Returns:
        An int32 tensor (batch · num_return_sequences, longest): the prompts as they were given and
        the new tokens; of an encoder-decoder, the start token and the new tokens. Rows that end
        early are filled up with the padding token. With `return_dict_in_generate=True`, an output
        whose `sequences` are this tensor.

    Raises:
        ArgumentError: If an option is unknown or out of range, or the prompt fills `max_length`.
        DataError: If a row has no tokens, or ids without embedding.
        ModelError: If scores or hidden states are asked for.
    """
    import tensorflow as tf

    inputs = options.pop("input_ids", None) if inputs is None else inputs
    options = {name: value for name, value in options.items() if value is not None}
    as_dict = options.pop("return_dict_in_generate", False)
    for name in _DETAILS:
        if options.pop(name, False):
            raise ModelError(
                f"{name} is not supported in generate. ft.generate(model, …, return_scores=True) "
                "returns the scores of texts."
            )
    if generation_config is not None:
        options = {**_of_config(generation_config), **options}
    seed = _seed(options.pop("seed", None))
    start = options.get("bos_token_id", model.config.get("bos_token_id"))
    settings = _settings(model, options)
    way = way_of(model, settings)
    ids, mask = _rows(model, inputs, attention_mask, settings, start)
    rows = [
        checked_ids(i, row[real > 0], model)
        for i, (row, real) in enumerate(zip(ids, mask, strict=True))
    ]
    given = ids.shape[1] if way.first is None else 1
    settings = replace(settings, max_new_tokens=_new_tokens(settings, given), max_length=None)
    most = max(rooms(model, rows, settings, is_requested=True))
    several = settings.num_return_sequences
    tokens, _ = continue_batch(model, rows, way, several, most, (seed, 0))
    tokens = np.array(tokens).reshape(len(rows) * several, -1)
    before = np.repeat(ids, several, axis=0)
    if way.first is not None:
        before = np.full((len(tokens), 1), way.first, "int32")
    # A row ends with the token that ends its text, which does not count in `cut`.
    prompts = [way.continues(rows[i // several]) for i in range(len(tokens))]
    ends = [len(way.ends.cut(*pair)) + 1 for pair in zip(prompts, tokens, strict=True)]
    tokens = tokens[:, : min(max(ends), tokens.shape[1])]
    for row, end in zip(tokens, ends, strict=True):
        row[end:] = way.padding
    sequences = tf.constant(np.concatenate([before, tokens], axis=1), tf.int32)
    return output_of(sequences=sequences) if as_dict else sequences


def _of_config(config: Any) -> dict[str, Any]:
    """Returns the values of a GenerationConfig that differ from its defaults."""
    values = config if isinstance(config, Mapping) else config.to_diff_dict()
    return {key: value for key, value in values.items() if key in RULES and value is not None}


def _settings(model: keras.Model, options: dict[str, Any]) -> GenerationSettings:
    """Returns the settings of a call.

    Raises:
        ArgumentError: If an option is unknown or out of range.
    """
    options = {name: value for name, value in options.items() if name not in _WITHOUT_EFFECT}
    of_files = {name: options.pop(name) for name in (*_TOKENS, "max_length") if name in options}
    for name, value in of_files.items():
        if not RULES[name].accepts(value):
            expected = str(RULES[name]).replace("null", "None")
            raise ArgumentError(f"{name} has to be {expected}, found {shown(value)}.")
    if beyond := token_beyond(of_files, target_size(model.config)):
        name, token = beyond
        raise ArgumentError(
            f"{name} has the id {token}, but the model has {target_size(model.config):,} tokens."
        )
    stored = GenerationSettings.of(model)
    for names, is_used, needed in (
        (_OF_SAMPLES, options.get("do_sample", stored.do_sample), "do_sample=True"),
        (_OF_BEAMS, options.get("num_beams", stored.num_beams) > 1, "num_beams above 1"),
    ):
        unused = [name for name in names if name in options and not is_used]
        for name in unused:
            del options[name]
        if unused:
            say(f"generate: {', '.join(unused)} has no effect without {needed}.")
    settings = settings_for(model, options).with_values(of_files)
    if "max_length" in of_files and "max_new_tokens" not in options:
        settings = replace(settings, max_new_tokens=None)
    return settings


def _rows(
    model: keras.Model, ids: Any, mask: Any, settings: GenerationSettings, start: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the token ids of the prompts or sources, and 1 for those that are no padding."""
    if ids is None:
        if start is None or model.is_encoder_decoder:
            raise ArgumentError("generate needs input_ids: token ids (batch, length).")
        ids = [[start]]
    ids = np.asarray(ids)
    if ids.ndim != 2 or not np.issubdtype(ids.dtype, np.integer):
        raise ArgumentError(
            f"input_ids have to be integers (batch, length), found {ids.dtype} of shape "
            f"{ids.shape}. Encode texts with tokenizer(texts, padding=True, return_tensors='tf')."
        )
    if mask is not None:
        mask = np.asarray(mask)
        if mask.shape != ids.shape:
            raise ArgumentError(
                f"attention_mask has the shape {mask.shape}, but input_ids have {ids.shape}."
            )
        return ids.astype("int32"), mask
    padding = settings.pad_token_id
    is_padding = padding is not None and padding not in settings.eos_token_id
    return ids.astype("int32"), (ids != padding if is_padding else np.ones_like(ids)).astype(
        "int32"
    )


def _new_tokens(settings: GenerationSettings, given: int) -> int:
    """Returns the most new tokens after so many given ones."""
    if settings.max_new_tokens is not None:
        return settings.max_new_tokens
    length = settings.max_length or _LENGTH
    if length <= given:
        raise ArgumentError(
            f"The prompts have {given} tokens, but max_length is {length}, the prompt included. "
            "Give max_new_tokens, or a larger max_length."
        )
    return length - given


def _seed(seed: Any) -> int:
    """Returns a seed; without one, a random number that `tf.random.set_seed` determines."""
    import tensorflow as tf

    if seed is None:
        return int(tf.random.uniform((), maxval=2**31 - 1, dtype=tf.int32))
    return int(np.asarray(seed).reshape(-1)[0])
