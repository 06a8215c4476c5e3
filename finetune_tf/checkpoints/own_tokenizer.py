"""A tokenizer that the user made, for a model from a config or in the place of a checkpoint's."""

from collections.abc import Mapping
from typing import Any

from finetune_tf.checkpoints.vocabularies import check_special_tokens
from finetune_tf.errors import CheckpointError, DataTypeError
from finetune_tf.families.registry import family_of

_ROLES = ("pad_token_id", "eos_token_id", "bos_token_id")
# Keys whose default is the id of one of these tokens.
_SAME = ("decoder_start_token_id", "forced_eos_token_id")


def require_tokenizer(tokenizer: Any) -> None:
    """Checks that an object is a fast tokenizer of transformers.

    Raises:
        DataTypeError: If it is not.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise DataTypeError(
            f"tokenizer= is a fast tokenizer of transformers, found {type(tokenizer).__name__}. "
            "Wrap one of the package tokenizers: transformers.PreTrainedTokenizerFast("
            "tokenizer_object=…, pad_token='<pad>', eos_token='</s>')."
        )


def with_tokens_of(tokenizer: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a config for a new model, completed with what its tokenizer determines.

    The size of the vocabulary and the ids of padding, beginning and end are those of the tokenizer.
    The other ids follow from the family: BART's decoder, for example, starts with the token that
    ends a text, and T5's with the padding. Keys of the config take precedence.

    Args:
        tokenizer: A fast tokenizer.
        config: The content of a config.json.

    Example:
        >>> from finetune_tf.checkpoints.own_tokenizer import with_tokens_of
        >>> tokenizer = ft.load(decoder).tokenizer
        >>> config = with_tokens_of(tokenizer, {"model_type": "t5"})
        >>> config["eos_token_id"] == tokenizer.eos_token_id
        True
        >>> config["decoder_start_token_id"] == tokenizer.pad_token_id
        True
    """
    defaults = family_of(config, "The config").defaults
    tokens = {role: getattr(tokenizer, role) for role in _ROLES}
    tokens = {role: token for role, token in tokens.items() if token is not None}
    for key in _SAME:
        same = [role for role in tokens if defaults.get(key) == defaults.get(role)]
        if defaults.get(key) is not None and same:
            tokens[key] = tokens[same[0]]
    return {"vocab_size": len(tokenizer), **tokens, **config}


def check_tokenizer(tokenizer: Any, config: Mapping[str, Any]) -> None:
    """Checks a tokenizer against the config of the model.

    Args:
        tokenizer: A fast tokenizer.
        config: A complete config.

    Raises:
        CheckpointError: If it has more tokens than the model, or another padding token where the
            positions depend on it.
    """
    if len(tokenizer) > config["vocab_size"]:
        raise CheckpointError(
            f"The tokenizer has {len(tokenizer):,} tokens, but the model has embeddings for "
            f"{config['vocab_size']:,}. Use the tokenizer that belongs to the model; a new model "
            "without vocab_size in its config takes it from tokenizer=."
        )
    check_special_tokens(tokenizer, "this call", config)
