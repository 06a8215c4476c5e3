"""A tokenizer that encodes texts without transformers, whose import takes seconds."""

from collections.abc import Callable, Mapping
from typing import Any

from finetune_tf.checkpoints.return_tensors import explained_failure, without_shared_state

_SIDES = ("longest_first", "only_first", "only_second")


class Encodings(dict):
    """What a tokenizer returns for several texts: lists by name, one entry for each row.

    Attributes:
        encodings: The encodings of the package tokenizers, one for each row.
    """

    def __init__(self, values: Mapping[str, list], encodings: list) -> None:
        super().__init__(values)
        self.encodings = encodings

    def word_ids(self, row: int = 0) -> list[int | None]:
        """Returns the word of each token; None for special tokens."""
        return self.encodings[row].word_ids

    def sequence_ids(self, row: int = 0) -> list[int | None]:
        """Returns the text of each token, 0 or 1; None for special tokens."""
        return self.encodings[row].sequence_ids


class RustTokenizer:
    """Encodes lists of texts as the tokenizer of transformers for the same files does.

    Whatever else is asked of it, such as decoding or a chat template, it asks that tokenizer, which
    is loaded for this purpose. It never changes: tokens are added to the tokenizer of transformers.
    `unchanged.rust_tokenizer` creates it, for files of which both are known to be equal.

    Args:
        backend: A tokenizer of the package tokenizers.
        special_tokens: The special tokens by role, such as "pad_token".
        model_max_length: The maximum number of tokens of a row.
        complete: Returns the tokenizer of transformers.
    """

    is_fast = True

    def __init__(
        self,
        backend: Any,
        special_tokens: Mapping[str, str],
        model_max_length: int,
        complete: Callable[[], Any],
    ) -> None:
        self._tokenizer, self._complete = backend, complete
        self._special_tokens = dict(special_tokens)
        self.model_max_length = model_max_length

    def __call__(self, texts: Any, pairs: Any = None, **options: Any) -> Any:
        """Encodes texts; the options are those of the tokenizers of transformers.

        Args:
            texts: A list of texts, or of lists of words with `is_split_into_words=True`.
            pairs: A list of second texts, or None.
            **options: Options that concern something else than encoding without padding are left
                to the tokenizer of transformers, and so is everything that is no list.
        """
        if not _is_simple(texts, pairs, **options):
            return self._complete()(texts, pairs, **options)
        with without_shared_state(self):
            try:
                return self._encode(texts, pairs, **options)
            except BaseException as error:
                explained = explained_failure(error, (texts, pairs), options)
                if explained is None:
                    raise
                raise explained from None

    def _encode(
        self,
        texts: list,
        pairs: list | None,
        add_special_tokens: bool = True,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        is_split_into_words: bool = False,
        return_offsets_mapping: bool = False,
        **_: Any,
    ) -> Encodings:
        backend = self._tokenizer
        backend.no_padding()
        backend.encode_special_tokens = False
        if truncation:
            strategy = _SIDES[0] if truncation is True else truncation
            backend.enable_truncation(max_length, stride=0, strategy=strategy, direction="right")
        else:
            backend.no_truncation()
        rows = backend.encode_batch(
            texts if pairs is None else list(zip(texts, pairs, strict=True)),
            is_pretokenized=is_split_into_words,
            add_special_tokens=add_special_tokens,
        )
        values = {
            "input_ids": [row.ids for row in rows],
            "token_type_ids": [row.type_ids for row in rows],
        }
        if return_offsets_mapping:
            values["offset_mapping"] = [row.offsets for row in rows]
        return Encodings(values, rows)

    @property
    def backend(self) -> Any:
        """The tokenizer of the package tokenizers, which is not to be changed."""
        return self._tokenizer

    def __len__(self) -> int:
        """The number of tokens, with added ones."""
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    def __bool__(self) -> bool:
        return True

    @property
    def vocab_size(self) -> int:
        """The number of tokens, without added ones that are not in the vocabulary."""
        return self._tokenizer.get_vocab_size(with_added_tokens=False)

    @property
    def all_special_ids(self) -> list[int]:
        """The ids of all special tokens."""
        return [
            self._tokenizer.token_to_id(t) for t in dict.fromkeys(self._special_tokens.values())
        ]

    def get_vocab(self) -> dict[str, int]:
        """Returns the ids of all tokens."""
        return self._tokenizer.get_vocab(with_added_tokens=True)

    def convert_ids_to_tokens(self, ids: Any, *args: Any, **kwargs: Any) -> Any:
        """Returns the token of an id."""
        if type(ids) is int and not args and not kwargs:
            return self._tokenizer.id_to_token(ids)
        return self._complete().convert_ids_to_tokens(ids, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        """Returns a special token, its id, or what the tokenizer of transformers has."""
        if name.startswith("__") or "_special_tokens" not in self.__dict__:  # while it is copied
            raise AttributeError(name)
        role = name.removesuffix("_id")
        if role in ROLES:
            token = self._special_tokens.get(role)
            is_id = role != name and token is not None
            return self._tokenizer.token_to_id(token) if is_id else token
        return getattr(self._complete(), name)


#: The roles of special tokens.
ROLES = tuple(f"{role}_token" for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))


def _is_simple(
    texts: Any,
    pairs: Any,
    add_special_tokens: bool = True,
    truncation: Any = None,
    max_length: Any = None,
    is_split_into_words: bool = False,
    return_offsets_mapping: bool = False,
    return_attention_mask: Any = None,
    return_token_type_ids: Any = None,
    verbose: bool = True,
    **others: Any,
) -> bool:
    """Returns whether a call asks for ids of lists of texts, with at most a truncation."""
    kind = list if is_split_into_words else str
    is_list = isinstance(texts, list) and texts and all(isinstance(text, kind) for text in texts)
    has_pairs = isinstance(pairs, list) and is_list and len(pairs) == len(texts)
    has_pairs = has_pairs and all(isinstance(pair, kind) for pair in pairs)
    cuts = truncation is True or (isinstance(truncation, str) and truncation in _SIDES)
    is_cut = cuts and type(max_length) is int
    return (
        is_list
        and (pairs is None or has_pairs)
        and (is_cut or (truncation in (None, False) and max_length is None))
        and return_attention_mask is False
        and return_token_type_ids is True
        and not others
    )
