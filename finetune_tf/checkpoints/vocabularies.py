"""What a tokenizer's settings are, who decided them, and whether its vocabulary agrees.

Files of a checkpoint can leave settings open, such as whether texts are put into lower case.
transformers fills these in with defaults of the tokenizer class that the config's model_type names,
even where tokenizer.json says something else. A wrong one changes every token without an error.
"""

import inspect
import json
import random
import re
from collections.abc import Mapping
from typing import Any

from finetune_tf.errors import CheckpointError
from finetune_tf.messages import say, warn

# Arguments of transformers' tokenizer classes that change tokens.
_SETTINGS = (
    *("do_lower_case", "strip_accents", "tokenize_chinese_chars"),
    *("keep_accents", "split_by_punct", "add_prefix_space"),
)
_SAMPLE = 600  # tokens of a vocabulary that are tried
_LEAST_RIGHT = 0.8  # a healthy tokenizer has all of them right
_MOST_ALTERED = 0.05
_UNHEARD_OF = "\U00010380"  # a letter of Ugaritic
_RESERVED = re.compile(r"\[.*\]|<.*>")  # [unused7], <extra_id_0>: no words


def stored_settings(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a tokenizer.json says.

    Args:
        stored: Its content; empty if there is none.
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
    """Settings that transformers took from its defaults although tokenizer.json says others.

    Args:
        tokenizer: As transformers loaded it.
        settings: The content of tokenizer_config.json, which it follows; empty for none.
        stored: The content of tokenizer.json; empty for none.
    """
    if type(tokenizer).__name__ == "TokenizersBackend":  # takes tokenizer.json as it is
        return {}
    return {
        name: value
        for name, value in stored_settings(stored).items()
        if name not in settings and value is not None and getattr(tokenizer, name, value) != value
    }


def tell_defaults(
    tokenizer: Any, called: str, settings: Mapping, stored: Mapping, corrected: Mapping
) -> None:
    """Says in one line each what was corrected, and what a default decides."""
    kind = type(tokenizer).__name__
    if corrected:
        say(
            f"The tokenizer in {called} takes {_listed(corrected)} from tokenizer.json; "
            f"transformers' {kind} has another default, and tokenizer_config.json says nothing."
        )
    if stored:
        return
    # Not every class keeps its arguments: MPNet's has no attribute tokenize_chinese_chars.
    defaults = {
        name: getattr(tokenizer, name, parameter.default)
        for name, parameter in inspect.signature(type(tokenizer).__init__).parameters.items()
        if name in _SETTINGS and name not in settings
    }
    defaults = {name: value for name, value in defaults.items() if value is not None}
    if defaults:
        say(
            f"The files of the tokenizer in {called} leave {_listed(defaults)} to the defaults of "
            f"transformers' {kind}; tokenizer_config.json can say otherwise."
        )


def check_vocabulary(tokenizer: Any, called: str, settings: Mapping, stored: Mapping) -> None:
    """Makes sure that words of the vocabulary get the tokens that they are.

    Args:
        tokenizer: A fast tokenizer of transformers.
        called: What to call its folder in messages.
        settings: The content of tokenizer_config.json; empty for none.
        stored: The content of tokenizer.json; empty for none.

    Raises:
        CheckpointError: If the tokenizer does not know most of its own words, or a default
            alters words so that no text ever gets their tokens.
    """
    backend = tokenizer.backend_tokenizer
    backend.encode(_UNHEARD_OF)  # an error of Rust where there is no token for unknown words
    sample = _sample(tokenizer)  # token number to word
    rows = backend.encode_batch(list(sample.values()), add_special_tokens=False)
    numbers = zip(sample.items(), (row.ids for row in rows), strict=True)
    wrong = [word for (number, word), ids in numbers if number not in ids]
    normalizer = backend.normalizer
    altered = {
        word: changed
        for word in wrong
        if normalizer is not None and (changed := normalizer.normalize_str(word)) != word
    }
    if len(altered) > _MOST_ALTERED * len(sample):
        _refuse_altered(altered, len(sample), tokenizer, called, settings, stored)
    if not stored and "do_lower_case" not in settings and _is_uncased(tokenizer, sample):
        raise CheckpointError(
            f"No word in the vocabulary of {called} has a capital letter, but the default of "
            f"transformers' {type(tokenizer).__name__} leaves capitals in texts as they are, so "
            "that words with one are unknown, and tokenizer_config.json says nothing. Write into "
            f'{called}/tokenizer_config.json: {{"do_lower_case": true}}'
        )
    others = len(sample) - len(altered)
    right = len(sample) - len(wrong)
    if not sample or right < _LEAST_RIGHT * others:
        raise CheckpointError(
            f"The tokenizer in {called}, read as transformers' {type(tokenizer).__name__}, gives "
            f"{right} of {others} words of its own vocabulary their token, so texts would "
            "become others or unknown ones. Its files are damaged, or are those of another kind of "
            "model than config.json says: get tokenizer.json of the checkpoint."
        )


def _is_uncased(tokenizer: Any, sample: Mapping[int, str]) -> bool:
    """Whether a vocabulary has letters, no capital among them, and texts keep their capitals."""
    text = "".join(sample.values())
    keeps = getattr(tokenizer, "do_lower_case", None) is False
    return keeps and text == text.lower() != text.upper()


def _refuse_altered(
    altered: Mapping[str, str],
    count: int,
    tokenizer: Any,
    called: str,
    settings: Mapping,
    stored: Mapping,
) -> None:
    """An error if a default alters words, a warning if the checkpoint's own files say so."""
    wanted = _what_would_keep(altered, tokenizer)
    shown = ", ".join(f"{text!r} becomes {new!r}" for text, new in list(altered.items())[:3])
    share = (
        f"{len(altered) / count:.0%} of the words in the vocabulary of {called} are changed "
        f"before the tokenizer looks them up ({shown}), so that no text ever gets their tokens"
    )
    if stored or any(name in settings for name in wanted):
        warn(f"{share}. Its own files ask for that; check {_listed(wanted) or 'them'}.")
        return
    raise CheckpointError(
        f"{share}. tokenizer_config.json does not say how texts are to be prepared, and the "
        f"default of transformers' {type(tokenizer).__name__} contradicts the vocabulary. Write "
        f"into {called}/tokenizer_config.json: {json.dumps(wanted or {'do_lower_case': False})}"
    )


def check_special_tokens(
    tokenizer: Any, called: str, config: Mapping[str, Any] | None = None
) -> None:
    """Checks limits and the padding token, which config and tokenizer both name.

    Args:
        tokenizer: A fast tokenizer of transformers.
        called: What to call its folder in messages.
        config: The model's complete config; None if it is not known.

    Raises:
        CheckpointError: If they contradict each other in what changes the numbers.
    """
    limit = tokenizer.model_max_length
    is_number = isinstance(limit, int | float) and not isinstance(limit, bool)
    if not is_number or not 1 <= limit < float("inf"):
        raise CheckpointError(
            f"model_max_length in {called}/tokenizer_config.json is a number of tokens from 1 on, "
            f"found {limit!r}."
        )
    tokenizer.model_max_length = int(limit)
    if tokenizer.padding_side != "right":
        say(
            f"The tokenizer in {called} pads on the {tokenizer.padding_side}; batches of "
            "finetune_tf are padded on the right."
        )
    pad, expected = tokenizer.pad_token_id, (config or {}).get("pad_token_id")
    if pad is None or expected is None or pad == expected:
        return
    differ = (
        f"The tokenizer in {called} pads with {tokenizer.pad_token!r}, number {pad}, but "
        f"config.json has pad_token_id {expected}"
    )
    if _positions_depend_on_padding(config):
        raise CheckpointError(
            f"{differ}, and this family counts positions from there. They do not belong together: "
            "get the tokenizer's files of this checkpoint."
        )
    say(f"{differ}; padding is masked, so results are the same, but row {expected} never learns.")


def _positions_depend_on_padding(config: Mapping[str, Any]) -> bool:
    from finetune_tf.families.registry import FAMILIES

    family = FAMILIES.get(config.get("model_type"))
    # Such a family has more rows in its position table than it has positions.
    return family is not None and family.max_length(config) != config["max_position_embeddings"]


def _parts(stored: Mapping, key: str, nested: str) -> list[dict]:
    """The steps of a part of tokenizer.json, which can be one or a sequence."""
    part = stored.get(key)
    if not isinstance(part, dict):
        return []
    steps = part.get(nested) if part.get("type") == "Sequence" else [part]
    return [step for step in steps or [] if isinstance(step, dict)]


def _listed(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in settings.items())


def _sample(tokenizer: Any) -> dict[int, str]:
    """Numbers and texts of words that stand in the vocabulary, drawn from all of it.

    They are the same ones each time. Every fiftieth one could miss what recurs in the vocabulary.
    """
    backend = tokenizer.backend_tokenizer
    size = backend.get_vocab_size()
    added = tokenizer.added_tokens_decoder
    tokens = {
        number: token
        for number in sorted(random.Random(0).sample(range(size), min(size, _SAMPLE)))
        if number not in added and (token := backend.id_to_token(number)) is not None
    }
    prefix = getattr(backend.model, "continuing_subword_prefix", None)
    begins = "▁" if any(token.startswith("▁") for token in tokens.values()) else ""
    found = {}
    for number, token in tokens.items():
        if (prefix and token.startswith(prefix)) or not token.startswith(begins):
            continue  # the inside of a word
        text = backend.decoder.decode([token]) if backend.decoder else token.removeprefix("▁")
        if text.strip() and "\ufffd" not in text and not _RESERVED.fullmatch(text.strip()):
            found[number] = text
    return found


def _what_would_keep(altered: Mapping[str, str], tokenizer: Any) -> dict[str, bool]:
    """The settings with which these words would stay as they are."""
    wanted = {}
    if any(text.lower() != text and new != text for text, new in altered.items()):
        wanted["do_lower_case"] = False
    joined = {text: new.replace(" ", "") for text, new in altered.items()}
    if any(text.lower() != new.lower() for text, new in joined.items()):
        if hasattr(tokenizer, "keep_accents"):
            wanted["keep_accents"] = True
        else:
            wanted["strip_accents"] = False
    if any(text.lower() == new.lower() for text, new in joined.items() if altered[text] != new):
        wanted["tokenize_chinese_chars"] = False
    return wanted
