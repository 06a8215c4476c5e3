"""Which files transformers reads as the very tokenizer that tokenizer.json describes.

transformers does not simply load tokenizer.json. For most models it builds a tokenizer of its own
from the vocabulary in that file, with the parts that its class prescribes, and adds special tokens.
For the classes in this module it is known what that is. If tokenizer.json has exactly these parts,
and none of its other files changes anything, the file alone gives the same tokens. Whatever is not
known here, or differs in any detail, is left to transformers.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from finetune_tf.base.json_files import parsed
from finetune_tf.checkpoints.return_tensors import is_panic
from finetune_tf.checkpoints.rust_tokenizer import ROLES, RustTokenizer
from finetune_tf.checkpoints.vocabularies import maps_its_words, valid_length
from finetune_tf.messages import warn

_SETTINGS, _TOKENIZER = "tokenizer_config.json", "tokenizer.json"
_TOKEN_MAP, _ADDED = "special_tokens_map.json", "added_tokens.json"
_NO_LIMIT = int(1e30)  # transformers' maximum length if there is none
# Keys of tokenizer_config.json that are checked here, or have no effect on tokens. With any other
# key, transformers reads the files.
_KNOWN_KEYS = {
    *ROLES,
    *("do_lower_case", "strip_accents", "tokenize_chinese_chars", "add_prefix_space"),
    *("trim_offsets", "added_tokens_decoder", "model_max_length", "max_len", "tokenizer_class"),
    *("additional_special_tokens", "extra_special_tokens", "padding_side", "truncation_side"),
    *("split_special_tokens", "name_or_path", "special_tokens_map_file", "tokenizer_file"),
    *("do_basic_tokenize", "never_split", "clean_up_tokenization_spaces", "model_input_names"),
    *("chat_template", "errors", "backend", "is_local", "local_files_only", "max_length", "stride"),
    *("truncation_strategy", "pad_to_multiple_of", "pad_token_type_id", "transformers_version"),
}
_FLAGS = ("special", "single_word", "lstrip", "rstrip", "normalized")  # of an added token


@dataclass(frozen=True)
class _Parts:
    """What a class prescribes; a part that is None has to be missing, "any" is not prescribed."""

    normalizer: Any = "any"
    pre_tokenizer: Any = "any"
    post_processor: Any = "any"
    model: Mapping[str, Any] = field(default_factory=dict)


_Ids = Callable[[str], int]


def _as_it_is(settings: Mapping, tokens: Mapping[str, str], ids: _Ids) -> _Parts:
    return _Parts()


def _bert(settings: Mapping, tokens: Mapping[str, str], ids: _Ids) -> _Parts:
    from tokenizers import processors

    cls, sep = tokens["cls_token"], tokens["sep_token"]
    processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(cls, ids(cls)), (sep, ids(sep))],
    )
    return _Parts(*_word_pieces(settings), processor, _word_piece_model(tokens))


def _mpnet(settings: Mapping, tokens: Mapping[str, str], ids: _Ids) -> _Parts:
    processor = _roberta_processor(tokens, ids, True, False)
    return _Parts(*_word_pieces(settings), processor, _word_piece_model(tokens))


def _roberta(settings: Mapping, tokens: Mapping[str, str], ids: _Ids) -> _Parts:
    from tokenizers import pre_tokenizers

    space, trims = settings.get("add_prefix_space", False), settings.get("trim_offsets", True)
    splits = pre_tokenizers.ByteLevel(add_prefix_space=space)
    return _Parts(None, splits, _roberta_processor(tokens, ids, trims, space), _BYTE_PAIRS)


def _gpt2(settings: Mapping, tokens: Mapping[str, str], ids: _Ids) -> _Parts:
    from tokenizers import pre_tokenizers

    space = settings.get("add_prefix_space", False)
    return _Parts(None, pre_tokenizers.ByteLevel(add_prefix_space=space), "any", _BYTE_PAIRS)


def _xlm_roberta(settings: Mapping, tokens: Mapping[str, str], ids: _Ids) -> _Parts:
    from tokenizers import pre_tokenizers, processors

    scheme = "always" if settings.get("add_prefix_space", True) else "never"
    splits = [
        pre_tokenizers.WhitespaceSplit(),
        pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme),
    ]
    bos, eos = tokens["bos_token"], tokens["eos_token"]
    processor = processors.TemplateProcessing(
        single=[bos, "$A", eos],
        pair=[bos, "$A", eos, eos, "$B", eos],
        special_tokens=[(bos, ids(bos)), (eos, ids(eos))],
    )
    model = {"type": "Unigram", "unk_id": 3, "byte_fallback": False}
    return _Parts("precompiled or none", pre_tokenizers.Sequence(splits), processor, model)


def _word_pieces(settings: Mapping) -> tuple[Any, Any]:
    from tokenizers import normalizers, pre_tokenizers

    normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
        lowercase=settings.get("do_lower_case", True),
    )
    return normalizer, pre_tokenizers.BertPreTokenizer()


def _word_piece_model(tokens: Mapping[str, str]) -> dict[str, Any]:
    return {
        "type": "WordPiece",
        "unk_token": tokens["unk_token"],
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
    }


def _roberta_processor(tokens: Mapping[str, str], ids: _Ids, trims: bool, space: bool) -> Any:
    from tokenizers import processors

    sep, cls = ((tokens[role], ids(tokens[role])) for role in ("sep_token", "cls_token"))
    return processors.RobertaProcessing(sep, cls, trims, space)


# Keys of a model in tokenizer.json that may be missing, and have these values then.
_MISSING = {"dropout": None, "byte_fallback": False, "ignore_merges": False}
_BYTE_PAIRS = {
    "type": "BPE",
    "dropout": None,
    "unk_token": None,
    "continuing_subword_prefix": "",
    "end_of_word_suffix": "",
    "fuse_unk": False,
    "byte_fallback": False,
    "ignore_merges": False,
}


@dataclass(frozen=True)
class _TokenizerClass:
    """A class of transformers: the parts and the special tokens that it prescribes."""

    parts: Callable[[Mapping, Mapping[str, str], _Ids], _Parts]
    tokens: tuple[str | None, ...] = (None,) * len(ROLES)  # in the order of ROLES


_CLASSES = {
    "TokenizersBackend": _TokenizerClass(_as_it_is),
    "BertTokenizer": _TokenizerClass(
        _bert, (None, None, "[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]")
    ),
    "MPNetTokenizer": _TokenizerClass(
        _mpnet, ("<s>", "</s>", "[UNK]", "</s>", "<pad>", "<s>", "<mask>")
    ),
    "RobertaTokenizer": _TokenizerClass(
        _roberta, ("<s>", "</s>", "<unk>", "</s>", "<pad>", "<s>", "<mask>")
    ),
    "GPT2Tokenizer": _TokenizerClass(
        _gpt2, ("<|endoftext|>", "<|endoftext|>", "<|endoftext|>", None, None, None, None)
    ),
    "XLMRobertaTokenizer": _TokenizerClass(
        _xlm_roberta, ("<s>", "</s>", "<unk>", "</s>", "<pad>", "<s>", "<mask>")
    ),
}
#: The class that transformers chooses for each model_type, unless the files name one.
_CLASS_OF = {
    "bert": "BertTokenizer",
    "distilbert": "BertTokenizer",
    "electra": "BertTokenizer",
    "nomic_bert": "BertTokenizer",
    "mpnet": "MPNetTokenizer",
    "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
    "gpt2": "GPT2Tokenizer",
    "modernbert": "TokenizersBackend",
}
_AS_IT_IS = ("PreTrainedTokenizer", "TokenizersBackend")


def rust_tokenizer(
    contents: Mapping[str, bytes], config: Mapping[str, Any], complete: Callable[[], Any]
) -> RustTokenizer | None:
    """Creates a tokenizer from tokenizer.json alone, if that is known to be equal.

    Args:
        contents: The tokenizer files of a checkpoint and its config.json, by name.
        config: The config of the model that reads the texts.
        complete: Returns the tokenizer of transformers for the same files.

    Returns:
        The tokenizer; None if only transformers knows what the files mean, and also if anything is
        wrong with them: transformers' tokenizer is then loaded, with the checks and the messages
        of `tokenizers.load_tokenizer`.
    """
    if _TOKENIZER not in contents or "config.json" not in contents:
        return None
    try:
        return _create(contents, config, complete)
    except BaseException as error:  # Rust raises bare Exceptions, and panics are not Exceptions
        if isinstance(error, Exception) or is_panic(error):
            return None
        raise


def _create(
    contents: Mapping[str, bytes], config: Mapping[str, Any], complete: Callable[[], Any]
) -> RustTokenizer | None:
    from tokenizers import Tokenizer

    files = {name: parsed(contents[name]) for name in contents if name.endswith(".json")}
    if not all(isinstance(content, dict) for content in files.values()):
        return None
    stored, settings = files[_TOKENIZER], files.get(_SETTINGS, {})
    kind = _class_of(files["config.json"], settings)
    if kind is None or not settings.keys() <= _KNOWN_KEYS:
        return None
    backend = Tokenizer.from_buffer(contents[_TOKENIZER])
    tokens = _special_tokens(kind, settings, files.get(_TOKEN_MAP, {}))
    if tokens is None or not _keeps_added_tokens(backend, stored, settings, files.get(_ADDED, {})):
        return None
    if (
        kind is _CLASSES["TokenizersBackend"]
        and stored.get("padding")
        and "pad_token" not in tokens
    ):
        return None  # transformers takes the token of the padding
    added = {token.content: token for token in backend.get_added_tokens_decoder().values()}
    if not all(token in added and added[token].special for token in tokens.values()):
        return None
    parts = kind.parts(settings, tokens, backend.token_to_id)
    limit = settings.get("model_max_length", settings.get("max_len"))
    length = valid_length(_NO_LIMIT if limit is None else limit)
    padding = tokens.get("pad_token")
    expected = config.get("pad_token_id")
    agrees = None in (padding, expected) or backend.token_to_id(padding) == expected
    if length is None or not agrees or not _has_parts(backend, stored, parts):
        return None
    if not _keeps_sides(stored, settings) or not maps_its_words(backend):
        return None
    return RustTokenizer(backend, tokens, length, complete)


def _class_of(config: Mapping[str, Any], settings: Mapping[str, Any]) -> _TokenizerClass | None:
    """Returns the class that transformers chooses, or None if it is none of the known ones."""
    usual = _CLASS_OF.get(config.get("model_type"))
    named = settings.get("tokenizer_class") or config.get("tokenizer_class") or usual
    if usual is None or not isinstance(named, str):
        return None
    named = named.removesuffix("Fast")
    if named in _AS_IT_IS:
        return _CLASSES["TokenizersBackend"]
    return _CLASSES[usual] if named == usual else None


def _special_tokens(
    kind: _TokenizerClass, settings: Mapping[str, Any], token_map: Mapping[str, Any]
) -> dict[str, str] | None:
    """Returns the special tokens by role; None if there are others, or one is turned off."""
    if settings.get("additional_special_tokens") or settings.get("extra_special_tokens"):
        return None
    given = {role: settings[role] for role in ROLES if role in settings}
    if any(isinstance(t, dict) and t.get("__type") != "AddedToken" for t in given.values()):
        return None
    if "added_tokens_decoder" not in settings:
        if not token_map.keys() <= set(ROLES):
            return None
        given |= token_map
    usual = dict(zip(ROLES, kind.tokens, strict=True))
    tokens = {}
    for role in ROLES:
        token = given.get(role, usual[role])
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str):
            tokens[role] = token
        elif token is not None or usual[role] is not None:
            return None
    return tokens


def _keeps_added_tokens(
    backend: Any, stored: Mapping, settings: Mapping, older: Mapping[str, int]
) -> bool:
    """Returns whether the added tokens are those of tokenizer.json, wherever else they stand.

    transformers adds them anew, in the order of their ids, to the vocabulary of the model.
    """
    added = {token["id"]: token for token in stored["added_tokens"]}
    flags = {i: [token["content"], *map(token.get, _FLAGS)] for i, token in added.items()}
    if flags != _added(backend):
        return False
    if "added_tokens_decoder" in settings:
        named = {
            int(i): [token["content"], *map(token.get, _FLAGS)]
            for i, token in settings["added_tokens_decoder"].items()
        }
        if named != flags:
            return False
    elif not all(i in added and added[i]["content"] == token for token, i in older.items()):
        return False
    size = backend.get_vocab_size(with_added_tokens=False)
    model = backend.model
    new = []
    for i, token in sorted(added.items()):
        in_model = model.token_to_id(token["content"])
        if in_model is None:
            new.append(i)
        elif in_model != i:
            return False
    return new == list(range(size, size + len(new)))


def _added(backend: Any) -> dict[int, list]:
    """Returns the added tokens with their flags by id."""
    return {
        i: [token.content, *(getattr(token, flag) for flag in _FLAGS)]
        for i, token in backend.get_added_tokens_decoder().items()
    }


def _has_parts(backend: Any, stored: Mapping, parts: _Parts) -> bool:
    """Returns whether a tokenizer has the parts that its class prescribes."""
    model = _MISSING | stored["model"]
    if any(model.get(key) != value for key, value in parts.model.items()):
        return False
    if backend.post_processor is None:  # transformers would make one
        return False
    for name in ("normalizer", "pre_tokenizer", "post_processor"):
        expected, found = getattr(parts, name), getattr(backend, name)
        if isinstance(expected, str):
            if expected != "any" and _state(found).get("type") not in (None, "Precompiled"):
                return False
        elif _state(found) != _state(expected):
            return False
    return True


def _state(part: Any) -> dict:
    """Returns the description of a part of a tokenizer, as in tokenizer.json."""
    return {} if part is None else json.loads(part.__getstate__())


def _keeps_sides(stored: Mapping, settings: Mapping) -> bool:
    """Returns whether texts are padded and truncated on the right, and special tokens read."""
    sides = [settings.get("padding_side"), settings.get("truncation_side")]
    for key in ("padding", "truncation"):
        with suppress(KeyError, TypeError):
            sides.append(stored[key]["direction"].lower())
    return set(sides) <= {None, "right"} and not settings.get("split_special_tokens")


def warn_of_difference(earlier: RustTokenizer, tokenizer: Any, name: str) -> None:
    """Compares a tokenizer with that of transformers, once both are there.

    Args:
        earlier: The tokenizer that encoded texts so far.
        tokenizer: The tokenizer of transformers.
        name: The name of their folder in messages.
    """
    one, other = earlier.backend, tokenizer.backend_tokenizer
    names = ("normalizer", "pre_tokenizer", "post_processor")
    is_equal = (
        all(_state(getattr(one, part)) == _state(getattr(other, part)) for part in names)
        and _added(one) == _added(other)
        and one.get_vocab() == other.get_vocab()
    )
    if not is_equal:
        warn(
            f"The tokenizer in {name} gives other tokens in this version of transformers than "
            "finetune_tf expects, and texts that were encoded without transformers may differ. Use "
            "model.tokenizer once before you make batches, and report this."
        )
