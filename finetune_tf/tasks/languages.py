"""Languages of tokenizers that mark each text with its language, as those of mBART do."""

from typing import Any

from finetune_tf.base.arguments import shown
from finetune_tf.errors import ModelError
from finetune_tf.messages import say


def marks_languages(tokenizer: Any) -> bool:
    """Whether a tokenizer marks texts with their languages.

    Args:
        tokenizer: A tokenizer of transformers.
    """
    return hasattr(tokenizer, "tgt_lang") and bool(getattr(tokenizer, "lang_code_to_id", None))


def set_languages(model: Any, languages: Any) -> None:
    """Sets the language of the sources and that of the targets of a model.

    The tokenizers mark texts with them, and generation begins with that of the targets. Both are
    saved with the model.

    Args:
        model: A model whose tokenizer marks languages.
        languages: The code of the language of the sources and that of the targets.

    Raises:
        ModelError: If these are no two codes that the tokenizer knows.
    """
    is_pair = isinstance(languages, list | tuple) and len(languages) == 2
    if not is_pair or not all(isinstance(code, str) for code in languages):
        raise ModelError(
            'languages= takes two codes, such as ("en_XX", "de_DE"): that of the sources and that '
            f"of the targets; found {shown(languages)}."
        )
    source, target = languages
    reader, writer = model.tokenizer, model.target_tokenizer
    for code, tokenizer in ((source, reader), (target, writer)):
        _require_code(code, tokenizer)
    before = (reader.src_lang, writer.tgt_lang)
    reader.src_lang = source
    reader.tgt_lang = writer.tgt_lang = target
    _begin_with(writer.lang_code_to_id, target, model)
    if before != (source, target):
        say(f"The tokenizer marks sources with {source} and targets with {target}.")


def _require_code(code: str, tokenizer: Any) -> None:
    """Raises a ModelError if a tokenizer does not know a code; it would use the unknown token."""
    known = sorted(tokenizer.lang_code_to_id)
    if code in known:
        return
    similar = [name for name in known if name.split("_")[0] == code.lower().split("_")[0]]
    advice = f"Did you mean {' or '.join(similar)}?" if similar else f"It has {', '.join(known)}."
    raise ModelError(f"The tokenizer has no language {code!r}. {advice}")


def _begin_with(codes: dict[str, int], target: str, model: Any) -> None:
    """Makes generation begin with the language of the targets, as the decoder is trained.

    The decoder of mBART starts with the language. That of mBART-50 starts with another token, and
    writes the language first.
    """
    places = [model.config, model.info.generation]
    start = "decoder_start_token_id"
    starts = [place[start] for place in places if place.get(start) is not None]
    if not starts or any(token in codes.values() for token in starts):
        for place in places:
            if place is model.config or place.get(start) is not None:
                place[start] = codes[target]
        return
    # Without a generation_config.json, the settings of generation are those in the config.
    place = model.info.generation or model.config
    place["forced_bos_token_id"] = codes[target]
