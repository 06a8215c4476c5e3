"""Checks of a tokenizer's settings against its files and its vocabulary.

The files of a checkpoint may not define a setting, such as whether texts are lower-cased.
transformers then uses the default of the tokenizer class for the config's model_type, even if
tokenizer.json defines another value. A wrong setting changes tokens without any error.
"""

import inspect
import json
import random
import re
from collections.abc import Mapping
from typing import Any

from finetune_tf.errors import CheckpointError
from finetune_tf.messages import say, warn

# Arguments of transformers' tokenizer classes that affect tokens.
_SETTINGS = (
    *("do_lower_case", "strip_accents", "tokenize_chinese_chars"),
    *("keep_accents", "split_by_punct", "add_prefix_space"),
)
_SAMPLE_SIZE = 600  # words of a vocabulary that are tokenized
_MIN_CORRECT = 0.8  # share of words; an intact tokenizer maps all of them to their tokens
_MAX_ALTERED = 0.05  # share of words
_UNKNOWN_WORD = "\U00010380"  # an Ugaritic letter, which vocabularies do not contain
_RESERVED = re.compile(r"\[.*\]|<.*>")  # [unused7] and <extra_id_0> are not words


def stored_settings(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings that tokenizer.json defines, as arguments of transformers' classes.

    Args:
        stored: The content of tokenizer.json; empty if there is none.

    Example:
        >>> from finetune_tf.checkpoints.vocabularies import stored_settings
        >>> stored_settings({"normalizer": {"type": "Lowercase"}})["do_lower_case"]
        True
    """
    if not stored:
        return {}
    normalizers = _parts(stored, "normalizer", "normalizers")
    splitters = _parts(stored, "pre_tokenizer", "pretokenizers")
    for part in normalizers:
        if part.get("type") == "BertNormalizer":
            return {
                "do_lower_case": part.get("lowercase"),
                "strip_accents": part.get("strip_accents"),
                "tokenize_chinese_chars": part.get("handle_chinese_chars"),
            }
    kinds = {part.get("type") for part in normalizers}
    settings = {"do_lower_case": "Lowercase" in kinds, "keep_accents": "StripAccents" not in kinds}
    settings["split_by_punct"] = any(part.get("type") == "Punctuation" for part in splitters)
    for part in splitters:
        if part.get("type") == "ByteLevel":
            settings["add_prefix_space"] = part.get("add_prefix_space")
    return settings


def corrections(tokenizer: Any, settings: Mapping, stored: Mapping) -> dict[str, Any]:
    """Returns settings of tokenizer.json that transformers replaced by its own defaults.

    Args:
        tokenizer: The tokenizer as transformers loaded it.
        settings: The content of tokenizer_config.json, which transformers respects; may be empty.
        stored: The content of tokenizer.json; may be empty.
    """
    if type(tokenizer).__name__ == "TokenizersBackend":  # uses tokenizer.json unchanged
        return {}
    return {
        name: value
        for name, value in stored_settings(stored).items()
        if name not in settings and value is not None and getattr(tokenizer, name, value) != value
    }


def report_defaults(
    tokenizer: Any, name: str, settings: Mapping, stored: Mapping, corrected: Mapping
) -> None:
    """Prints the settings that were corrected, and those that are defaults of transformers.

    Args:
        tokenizer: The tokenizer.
        name: Name of its folder in messages.
        settings: The content of tokenizer_config.json; may be empty.
        stored: The content of tokenizer.json; may be empty.
        corrected: The result of `corrections`.
    """
    kind = type(tokenizer).__name__
    if corrected:
        say(
            f"The tokenizer in {name} uses {_format_settings(corrected)} of tokenizer.json instead "
            f"of the default of transformers' {kind}; tokenizer_config.json does not define it."
        )
    if stored:
        return
    # Not every class stores its arguments: MPNet's has no attribute tokenize_chinese_chars.
    defaults = {
        key: getattr(tokenizer, key, parameter.default)
        for key, parameter in inspect.signature(type(tokenizer).__init__).parameters.items()
        if key in _SETTINGS and key not in settings
    }
    defaults = {key: value for key, value in defaults.items() if value is not None}
    if defaults:
        say(
            f"The tokenizer in {name} uses {_format_settings(defaults)}, defaults of transformers' "
            f"{kind}; tokenizer_config.json can override them."
        )


def check_vocabulary(tokenizer: Any, name: str, settings: Mapping, stored: Mapping) -> None:
    """Checks that words of the vocabulary are mapped to their own tokens.

    Args:
        tokenizer: A fast tokenizer of transformers.
        name: Name of its folder in messages.
        settings: The content of tokenizer_config.json; may be empty.
        stored: The content of tokenizer.json; may be empty.

    Raises:
        CheckpointError: If the tokenizer does not map most of its words to their tokens, or if a
            default alters words so that their tokens are never used.
    """
    sample, wrong, altered = _try_words(tokenizer.backend_tokenizer)
    if len(altered) > _MAX_ALTERED * len(sample):
        _refuse_altered(altered, len(sample), tokenizer, name, settings, stored)
    if not stored and "do_lower_case" not in settings and _is_uncased(tokenizer, sample):
        raise CheckpointError(
            f"No word in the vocabulary of {name} has a capital letter, but transformers' "
            f"{type(tokenizer).__name__} does not lower-case texts by default, so words with "
            "capital letters would be unknown. tokenizer_config.json does not define this setting. "
            f'Write into {name}/tokenizer_config.json: {{"do_lower_case": true}}'
        )
    unaltered = len(sample) - len(altered)
    correct = len(sample) - len(wrong)
    if not sample or correct < _MIN_CORRECT * unaltered:
        raise CheckpointError(
            f"The tokenizer in {name}, loaded as transformers' {type(tokenizer).__name__}, maps "
            f"{correct} of {unaltered} words of its own vocabulary to their token; the others "
            "would become wrong or unknown tokens. Its files are damaged, or belong to another "
            "model type than config.json specifies: download tokenizer.json of the checkpoint."
        )


def maps_its_words(backend: Any) -> bool:
    """Returns whether `check_vocabulary` would find nothing wrong and say nothing.

    Args:
        backend: A tokenizer of the package tokenizers, made of a complete tokenizer.json.
    """
    sample, wrong, altered = _try_words(backend)
    unaltered = len(sample) - len(altered)
    is_correct = len(sample) - len(wrong) >= _MIN_CORRECT * unaltered
    return bool(sample) and is_correct and len(altered) <= _MAX_ALTERED * len(sample)


def _try_words(backend: Any) -> tuple[dict[int, str], list[str], dict[str, str]]:
    """Tokenizes a sample of the words in a vocabulary.

    Returns:
        The sample, from token ids to words; the words that do not get their token; and those among
        them that the normalizer changes, with what it makes of them.
    """
    backend.encode(_UNKNOWN_WORD)  # Rust raises an error if there is no token for unknown words
    sample = _sample_words(backend)
    encodings = backend.encode_batch(list(sample.values()), add_special_tokens=False)
    pairs = zip(sample.items(), (encoding.ids for encoding in encodings), strict=True)
    wrong = [word for (token_id, word), ids in pairs if token_id not in ids]
    normalizer = backend.normalizer
    altered = {
        word: changed
        for word in wrong
        if normalizer is not None and (changed := normalizer.normalize_str(word)) != word
    }
    return sample, wrong, altered


def _is_uncased(tokenizer: Any, sample: Mapping[int, str]) -> bool:
    """Returns whether a vocabulary has only lower-case letters, but texts are not lower-cased."""
    text = "".join(sample.values())
    keeps_case = getattr(tokenizer, "do_lower_case", None) is False
    return keeps_case and text == text.lower() != text.upper()


def _refuse_altered(
    altered: Mapping[str, str],
    count: int,
    tokenizer: Any,
    name: str,
    settings: Mapping,
    stored: Mapping,
) -> None:
    """Raises an error if a default alters words; warns if the checkpoint's own files do."""
    needed = _settings_without_change(altered, tokenizer)
    shown = ", ".join(f"{text!r} becomes {new!r}" for text, new in list(altered.items())[:3])
    problem = (
        f"{len(altered) / count:.0%} of the words in the vocabulary of {name} are changed "
        f"before the tokenizer looks them up ({shown}), so their tokens are never used"
    )
    if stored or any(key in settings for key in needed):
        advice = f"consider {_format_settings(needed)}" if needed else "check them"
        warn(f"{problem}. The tokenizer's own files specify that; {advice}.")
        return
    raise CheckpointError(
        f"{problem}. tokenizer_config.json does not define how texts are normalized, and the "
        f"default of transformers' {type(tokenizer).__name__} contradicts the vocabulary. Write "
        f"into {name}/tokenizer_config.json: {json.dumps(needed or {'do_lower_case': False})}"
    )


def check_special_tokens(
    tokenizer: Any, name: str, config: Mapping[str, Any] | None = None
) -> None:
    """Checks the maximum length, the padding side, and the padding token against the config.

    Args:
        tokenizer: A fast tokenizer of transformers.
        name: Name of its folder in messages.
        config: The model's complete config; None if it is not known.

    Raises:
        CheckpointError: If the maximum length is not valid, or if the padding token contradicts
            the config in a way that changes results.
    """
    limit = valid_length(tokenizer.model_max_length)
    if limit is None:
        raise CheckpointError(
            f"model_max_length in {name}/tokenizer_config.json has to be a number of tokens from 1 "
            f"on, found {tokenizer.model_max_length!r}."
        )
    tokenizer.model_max_length = limit
    if tokenizer.padding_side != "right":
        say(
            f"The tokenizer in {name} pads on the {tokenizer.padding_side}; batches of "
            "finetune_tf are padded on the right."
        )
    pad, expected = tokenizer.pad_token_id, (config or {}).get("pad_token_id")
    if pad is None or expected is None or pad == expected:
        return
    differ = (
        f"The tokenizer in {name} pads with {tokenizer.pad_token!r}, id {pad}, but "
        f"config.json has pad_token_id {expected}"
    )
    if _positions_depend_on_padding(config):
        raise CheckpointError(
            f"{differ}, and this family derives positions from that id. Tokenizer and config do "
            "not belong together: use the tokenizer files of this checkpoint."
        )
    say(
        f"{differ}; padding is masked, so results are the same, but row {expected} of the token "
        "embeddings is never trained."
    )


def valid_length(limit: Any) -> int | None:
    """Returns a maximum length as an integer; None if it is none."""
    is_number = isinstance(limit, int | float) and not isinstance(limit, bool)
    return int(limit) if is_number and 1 <= limit < float("inf") else None


def _positions_depend_on_padding(config: Mapping[str, Any]) -> bool:
    from finetune_tf.families.registry import FAMILIES

    family = FAMILIES.get(config.get("model_type"))
    # Such a family has more position embeddings than a text may have tokens.
    positions = config.get("max_position_embeddings")
    return family is not None and positions not in (None, family.max_length(config))


def _parts(stored: Mapping, key: str, nested: str) -> list[dict]:
    """Returns the steps of a part of tokenizer.json, which is one step or a sequence."""
    part = stored.get(key)
    if not isinstance(part, dict):
        return []
    steps = part.get(nested) if part.get("type") == "Sequence" else [part]
    return [step for step in steps or [] if isinstance(step, dict)]


def _format_settings(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in settings.items())


def _sample_words(backend: Any) -> dict[int, str]:
    """Samples words of the vocabulary at random, with a fixed seed; maps token ids to words.

    A sample at regular intervals could miss patterns that recur in the vocabulary.
    """
    size = backend.get_vocab_size()
    added = backend.get_added_tokens_decoder()
    tokens = {
        token_id: token
        for token_id in sorted(random.Random(0).sample(range(size), min(size, _SAMPLE_SIZE)))
        if token_id not in added and (token := backend.id_to_token(token_id)) is not None
    }
    prefix = getattr(backend.model, "continuing_subword_prefix", None)
    suffix = getattr(backend.model, "end_of_word_suffix", None) or ""  # "</w>" in CLIP
    word_start = "▁" if any(token.startswith("▁") for token in tokens.values()) else ""
    words = {}
    for token_id, token in tokens.items():
        if (prefix and token.startswith(prefix)) or not token.startswith(word_start):
            continue  # not the start of a word
        if not token.endswith(suffix):
            continue  # not its end
        text = backend.decoder.decode([token]) if backend.decoder else token.removeprefix("▁")
        text = text.removesuffix(suffix)
        if text.strip() and "\ufffd" not in text and not _RESERVED.fullmatch(text.strip()):
            words[token_id] = text
    return words


def _settings_without_change(altered: Mapping[str, str], tokenizer: Any) -> dict[str, bool]:
    """Returns the settings with which the normalizer would not change these words."""
    settings = {}
    if any(text.lower() != text and new != text for text, new in altered.items()):
        settings["do_lower_case"] = False
    joined = {text: new.replace(" ", "") for text, new in altered.items()}
    if any(text.lower() != new.lower() for text, new in joined.items()):
        if hasattr(tokenizer, "keep_accents"):
            settings["keep_accents"] = True
        else:
            settings["strip_accents"] = False
    if any(text.lower() == new.lower() for text, new in joined.items() if altered[text] != new):
        settings["tokenize_chinese_chars"] = False
    return settings
