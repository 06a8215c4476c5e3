"""Examples as numbers."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from finetune_tf.checkpoints.return_tensors import without_shared_state
from finetune_tf.errors import DataError

Draw = Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Encoded:
    """Examples as numbers.

    Attributes:
        features: Per input name one array of ids a row, each of its own length.
        pad_values: What fills an input up to the length of its batch.
        targets: An array (rows, …), or one array a row with a number for each token, or None
            without labels.
        truncated: How many examples were longer than allowed and lost their end.
        example: The number of the example that each row comes from, where an example can have
            several rows; None where row and example are the same.
        offsets: For each row where each token stands in its text: (tokens, 2) of first
            character and the one past the last; None where nobody needs them.
        words: For each row its words: (words, 3) of the token that a word begins with (-1 for
            one that has none), its first character and the one past its last; None where nobody
            needs them.
        group: How many rows in succession make one item that has one target and is never torn
            apart: 2 where texts are compared in pairs.
        draw: Makes ids and targets of a random generator, where training meets others in each
            epoch: two arrays with those of all rows on end, int32.
        tokenizer: What made the ids, where outputs have to be read as tokens.
    """

    features: dict[str, list[np.ndarray]]
    pad_values: dict[str, int]
    targets: np.ndarray | list[np.ndarray] | None
    truncated: int = 0
    example: np.ndarray | None = None
    offsets: list[np.ndarray] | None = None
    words: list[np.ndarray] | None = None
    group: int = 1
    draw: Draw | None = None
    tokenizer: Any = None

    def drawn(self, seed: int) -> Self:
        """The rows of one draw, which then stay as they are."""
        if self.draw is None:
            return self
        ids, targets = self.draw(np.random.default_rng(seed))
        ends = np.cumsum([len(row) for row in self.features["input_ids"]])[:-1]
        features = {**self.features, "input_ids": np.split(ids, ends)}
        return replace(self, features=features, targets=np.split(targets, ends), draw=None)


def tokenized(tokenizer: Any, texts: list, pairs: list | None = None, **options: Any) -> Any:
    """A tokenizer's output for several texts, never padded.

    Args:
        tokenizer: A fast tokenizer of transformers.
        texts: Texts, or lists of words with `is_split_into_words=True`.
        pairs: Second texts.
        **options: For the tokenizer.
    """
    with without_shared_state(tokenizer):  # a tokenizer of the user's has no lock of ours
        return tokenizer(
            texts,
            pairs,
            return_attention_mask=False,
            return_token_type_ids=True,
            verbose=False,
            **options,
        )


def features_of(encoding: Any, tokenizer: Any) -> dict[str, Any]:
    """The part of `Encoded` that every task has: ids, token types and what fills them up.

    Raises:
        DataError: If an id is beyond every word table.
    """
    names = ("input_ids", "token_type_ids")
    try:
        features = {name: [np.asarray(row, "int32") for row in encoding[name]] for name in names}
    except OverflowError:
        raise DataError(
            "The tokenizer gives ids beyond 2**31. Its files are damaged: get them again."
        ) from None
    return {
        "features": features,
        "pad_values": {"input_ids": tokenizer.pad_token_id or 0, "token_type_ids": 0},
    }


def check_ids(encoded: Encoded, tokenizer: Any, size: int | None, name: str) -> None:
    """Makes sure that every id has a row in the model's word table.

    A device could take another row for one that is not there, and say nothing.

    Args:
        encoded: Rows.
        tokenizer: What made their ids.
        size: Rows of the word table; None if nobody knows.
        name: Of the examples, for messages.

    Raises:
        DataError: If an id, or that of the padding token, is beyond the table.
    """
    rows = encoded.features["input_ids"]
    if size is None or not len(rows):
        return
    largest = max(int(np.concatenate(rows).max(initial=0)), encoded.pad_values["input_ids"])
    if encoded.draw is not None:  # fill-mask hides words behind the mask token and others
        largest = max(largest, tokenizer.mask_token_id, tokenizer.vocab_size - 1)
    if largest >= size:
        raise DataError(
            f"The tokenizer gives the id {largest} ({tokenizer.convert_ids_to_tokens(largest)!r}) "
            f"for {name}, but the model's word table has {size:,} rows. Make room for new tokens "
            "before the first fit: model.resize_token_embeddings(len(model.tokenizer)); otherwise "
            "the tokenizer is that of another checkpoint."
        )
