"""What a generation_config.json may contain.

Keys are those of transformers' GenerationConfig. A key that would change the text and is not
supported is refused by name.
"""

from collections.abc import Mapping
from typing import Any

from finetune_tf.base.arguments import Number, shown
from finetune_tf.errors import CheckpointError
from finetune_tf.families.config_values import OneOf, Predicate, Rule


def _is_token(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _are_tokens(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_token, value))


def _are_words(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(_are_tokens(word) and word for word in value)


def _are_texts(value: Any) -> bool:
    texts = [value] if isinstance(value, str) else value
    return isinstance(texts, list | tuple) and all(isinstance(t, str) and t for t in texts)


_COUNT = Number(1, whole=True, also=(None,))
_FROM_0 = Number(0, whole=True, also=(None,))
_SHARE = Number(0, 1, below_high=True, also=(None,))
_MASS = Number(0, 1, above_low=True, also=(None,))
_TOKEN = Predicate("a token id, or null", lambda value: value is None or _is_token(value))
_TOKENS = Predicate(
    "a token id, a list of them, or null",
    lambda value: value is None or _is_token(value) or _are_tokens(value),
)
_TOKEN_LIST = Predicate(
    "a list of token ids, or null", lambda value: value is None or _are_tokens(value)
)
_WORDS = Predicate(
    "a list with a list of token ids for each word, or null",
    lambda value: value is None or _are_words(value),
)
_TEXTS = Predicate(
    "a text that is not empty, a list of them, or null",
    lambda value: value is None or _are_texts(value),
)
_FLAG = OneOf((True, False, None))

#: The supported keys.
RULES: dict[str, Rule] = {
    "bad_words_ids": _WORDS,
    "begin_suppress_tokens": _TOKEN_LIST,
    "decoder_start_token_id": _TOKEN,
    "do_sample": _FLAG,
    "early_stopping": OneOf((True, False, "never", None)),
    "encoder_no_repeat_ngram_size": _FROM_0,
    "encoder_repetition_penalty": Number(0, above_low=True, also=(None,)),
    "eos_token_id": _TOKENS,
    "epsilon_cutoff": _SHARE,
    "eta_cutoff": _SHARE,
    "forced_bos_token_id": _TOKEN,
    "forced_eos_token_id": _TOKENS,
    "length_penalty": Number(-1e9, also=(None,)),
    "max_length": _COUNT,
    "max_new_tokens": _COUNT,
    "min_length": _FROM_0,
    "min_new_tokens": _FROM_0,
    "min_p": Number(0, 1, also=(None,)),
    "no_repeat_ngram_size": _FROM_0,
    "num_beams": _COUNT,
    "num_return_sequences": _COUNT,
    "pad_token_id": _TOKEN,
    "renormalize_logits": _FLAG,
    "repetition_penalty": Number(0, above_low=True, also=(None,)),
    "stop_strings": _TEXTS,
    "suppress_tokens": _TOKEN_LIST,
    "temperature": Number(0, above_low=True, also=(None,)),
    "top_k": _FROM_0,
    "top_p": _MASS,
    "typical_p": _MASS,
}
#: Keys that would change a text, with the values that change nothing.
_UNSUPPORTED: dict[str, tuple] = {
    "constraints": (None, []),
    "diversity_penalty": (None, 0, 0.0),
    "dola_layers": (None,),
    "exponential_decay_length_penalty": (None,),
    "force_words_ids": (None, []),
    "guidance_scale": (None, 1, 1.0),
    "max_time": (None,),
    "num_beam_groups": (None, 1),
    "penalty_alpha": (None, 0, 0.0),
    "remove_invalid_values": (None, False),
    "sequence_bias": (None, {}, []),
    "token_healing": (None, False),
    "top_h": (None,),
    "watermarking_config": (None,),
}
_IDS = (
    "bad_words_ids",
    "begin_suppress_tokens",
    "decoder_start_token_id",
    "eos_token_id",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "pad_token_id",
    "suppress_tokens",
)


def older_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings in a config.json of older releases, which had no other place.

    As in transformers 5, `task_specific_params` do not count.

    Example:
        >>> from finetune_tf.generation.generation_config import older_settings
        >>> older_settings({"d_model": 768, "num_beams": 4, "min_length": 56})
        {'num_beams': 4, 'min_length': 56}
    """
    return {key: value for key, value in config.items() if key in RULES or key in _UNSUPPORTED}


def token_beyond(settings: Mapping[str, Any], vocab_size: int) -> tuple[str, int] | None:
    """Returns the first key with a token id that the model does not have, and the id.

    Example:
        >>> from finetune_tf.generation.generation_config import token_beyond
        >>> token_beyond({"eos_token_id": 1, "bad_words_ids": [[3], [4, 70]]}, vocab_size=20)
        ('bad_words_ids', 70)
    """
    for key in _IDS:
        for token in _flat(settings.get(key)):
            if token >= vocab_size:
                return key, token
    return None


def _flat(ids: Any) -> list[int]:
    """Returns the ids in nested lists."""
    if isinstance(ids, list | tuple):
        return [token for each in ids for token in _flat(each)]
    return [] if ids is None else [ids]


def check_generation_config(config: Mapping[str, Any], vocab_size: int) -> None:
    """Checks the content of a generation_config.json.

    Args:
        config: The content.
        vocab_size: Number of tokens of the model.

    Raises:
        CheckpointError: If a value is wrong, or a key is not supported; names key and value.
    """
    for key, rule in RULES.items():
        if key in config and not rule.accepts(config[key]):
            raise CheckpointError(
                f"The key {key!r} of generation_config.json has the value {shown(config[key])}, "
                f"but has to be {rule}."
            )
    if beyond := token_beyond(config, vocab_size):
        key, token = beyond
        raise CheckpointError(
            f"The key {key!r} of generation_config.json has the id {token}, but the model has "
            f"{vocab_size:,} tokens. Correct it."
        )
    for key, values in _UNSUPPORTED.items():
        if key in config and config[key] not in values:
            raise CheckpointError(
                f"The key {key!r} of generation_config.json has the value {shown(config[key])}, "
                "which is not supported here. Take the key out of the file, or set it to null, to "
                "generate without it."
            )
