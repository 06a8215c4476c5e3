"""Encoded examples: the rows that a task makes of them for a model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from finetune_tf.checkpoints.return_tensors import without_shared_state
from finetune_tf.errors import DataError
from finetune_tf.messages import warn
from finetune_tf.tasks.feature import IGNORED, TOKENS, Feature, lengths_by_axis

Draw = Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Encoded:
    """The rows that a task makes of examples.

    Attributes:
        inputs: Features by the name of the model's input that each is for. Those that the model
            does not have are left out of batches.
        targets: One entry for each item, or one value for each position of an axis; None without
            labels.
        truncated: How many examples were longer than allowed and lost their end.
        limit: The tokens that were allowed, if it is not the `max_length` of the call.
        example: The index of the example that each row comes from, where an example can have
            several rows; None where rows and examples are the same.
        offsets: For each row the place of each token in its text: (tokens, 2) with the first
            character and the one past the last; None where nothing needs them.
        words: For each row its words: (words, 3) with the first token of the word (-1 for a word
            without one), its first character and the one past its last; None where nothing needs
            them.
        group: How many consecutive rows make one item, which has one target and is never split: 2
            where texts are compared in pairs.
        draw: Samples "input_ids" and targets with a random generator, where training sees
            different ones in each epoch: two int32 arrays with those of all rows concatenated.
        tokenizer: The tokenizer of the ids, where outputs have to be decoded to tokens.
    """

    inputs: dict[str, Feature]
    targets: Feature | None
    truncated: int = 0
    example: np.ndarray | None = None
    offsets: list[np.ndarray] | None = None
    words: list[np.ndarray] | None = None
    group: int = 1
    draw: Draw | None = None
    tokenizer: Any = None
    limit: int | None = None

    def __len__(self) -> int:
        """The number of rows."""
        return len(next(iter(self.inputs.values())))

    @property
    def lengths(self) -> dict[str, np.ndarray]:
        """The lengths (rows,) of the inputs along each axis that they have.

        The outputs of a model run along the last of these axes: target tokens where there are any.
        """
        return lengths_by_axis(self.inputs)

    def drawn(self, seed: int) -> Self:
        """The same rows after one draw, which stay the same from then on."""
        if self.draw is None:
            return self
        ids, targets = self.draw(np.random.default_rng(seed))
        ends = np.cumsum(self.lengths[TOKENS])[:-1]
        seen = replace(self.inputs["input_ids"], rows=np.split(ids, ends))
        return replace(
            self,
            inputs={**self.inputs, "input_ids": seen},
            targets=Feature(np.split(targets, ends), padding=IGNORED),
            draw=None,
        )


def tokenizer_of(model: Any) -> Any:
    """Returns what encodes texts for a model: its `encoding_tokenizer`, or else its tokenizer.

    Args:
        model: A model with a tokenizer; it need not be one of `load`.
    """
    has_own = hasattr(type(model), "encoding_tokenizer")
    return model.encoding_tokenizer if has_own else model.tokenizer


def preparer_of(model: Any) -> Any:
    """Returns what turns examples into the inputs of a model, the argument of `Task.encode`.

    Args:
        model: A model with a task.
    """
    name = model.task.preprocessor
    return tokenizer_of(model) if name == "tokenizer" else getattr(model, name)


def tokenized(tokenizer: Any, texts: list | None, pairs: list | None = None, **options: Any) -> Any:
    """A tokenizer's output for several texts, never padded.

    Args:
        tokenizer: A fast tokenizer of transformers.
        texts: Texts, or lists of words with `is_split_into_words=True`; None with `text_target`.
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


def token_inputs(encoding: Any, tokenizer: Any) -> dict[str, Feature]:
    """The inputs that every text task has: token ids and token types.

    Args:
        encoding: A tokenizer's output for several texts, not padded.
        tokenizer: The tokenizer.

    Raises:
        DataError: If an id is larger than any embedding table.
    """
    paddings = {"input_ids": tokenizer.pad_token_id or 0, "token_type_ids": 0}
    try:
        return {
            name: Feature([np.asarray(row, "int32") for row in encoding[name]], padding=padding)
            for name, padding in paddings.items()
        }
    except OverflowError:
        raise DataError(
            "The tokenizer returns ids beyond 2**31. Its files are damaged: get them again."
        ) from None


def warn_of_two_starts(rows: Sequence[Sequence[int]], tokenizer: Any, name: str) -> None:
    """Warns about texts that begin with the token that the tokenizer puts in front of each text.

    Chat templates write it, and so do scripts that write "[CLS]" in front of each sentence.

    Args:
        rows: The token ids of each text.
        tokenizer: The tokenizer.
        name: What the texts are called in messages.
    """
    starts = {getattr(tokenizer, f"{each}_token_id", None) for each in ("bos", "cls")} - {None}
    doubled = [row[0] for row in rows if len(row) > 1 and row[0] == row[1] and row[0] in starts]
    if doubled and tokenized(tokenizer, ["a"])["input_ids"][0][:1] == doubled[:1]:
        token = tokenizer.convert_ids_to_tokens(int(doubled[0]))
        warn(
            f"{name}: {len(doubled):,} of {len(rows):,} texts begin with {token!r}, which the "
            "tokenizer puts in front of each text, so that they have it twice. Remove it from the "
            "texts. Conversations need no text: the chat template writes them."
        )


def check_ids(encoded: Encoded, tokenizer: Any, sizes: Mapping[str, int | None], name: str) -> None:
    """Checks that every token id has a row in the model's token embedding table.

    A device could read another row for an id that has none, without an error.

    Args:
        encoded: The rows.
        tokenizer: The tokenizer of their ids.
        sizes: Rows of the embedding table of each input with token ids; None if unknown.
        name: The name of the examples, for messages.

    Raises:
        DataError: If an id, or that of the padding token, is beyond the table.
    """
    for key, size in sizes.items():
        if size is not None and len(encoded.inputs.get(key, ())):
            _check_ids(encoded, key, tokenizer, size, name)


def _check_ids(encoded: Encoded, key: str, tokenizer: Any, size: int, name: str) -> None:
    ids = encoded.inputs[key]
    largest = max(int(np.concatenate(ids.rows).max(initial=0)), int(ids.padding))
    if encoded.draw is not None:  # fill-mask replaces tokens by the mask token and by others
        largest = max(largest, tokenizer.mask_token_id, tokenizer.vocab_size - 1)
    if largest >= size:
        token = tokenizer.convert_ids_to_tokens(largest)
        raise DataError(
            f"The tokenizer gives the id {largest} ({token!r}) for {name}, but the model's token "
            f"embedding table has {size:,} rows. Make room for new tokens before the first fit: "
            "model.resize_token_embeddings(len(model.tokenizer)); otherwise the tokenizer is that "
            "of another checkpoint."
        )
