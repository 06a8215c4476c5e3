"""Masks words for a masked-language model.

As in BERT (Devlin et al. 2019), 15 % of the words of each text are selected. Of these, 80 % become
the mask token, 10 % another word, and 10 % are unchanged.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from finetune_tf.errors import ModelError
from finetune_tf.tasks.task import IGNORED

MASKED, REPLACED = 0.8, 0.1
_NEVER = -1  # the number of a unit that is never masked


@dataclass(frozen=True, eq=False)
class Cloze:
    """A text with masked words (Taylor 1953).

    Attributes:
        input_ids: The ids with masks (tokens,).
        answers: The original ids at masked tokens, -100 elsewhere (tokens,).
        candidates: The ids of the text that could have been masked.
        vocabulary: Number of tokens from which a masked one may come.
    """

    input_ids: np.ndarray
    answers: np.ndarray
    candidates: np.ndarray
    vocabulary: int

    @property
    def ids(self) -> np.ndarray:
        """The original ids (tokens,)."""
        return np.where(self.answers == IGNORED, self.input_ids, self.answers)


class Masking:
    """Samples the tokens of rows that are masked.

    Args:
        rows: Token ids, one array for each row.
        tokenizer: The tokenizer, whose special tokens are neither masked nor used as another word.
        rate: Share of the words of each row that is masked, at least one word.
        words: For each row the number of the word that each token belongs to, so that the tokens
            of a word are masked together; None masks single tokens.

    Raises:
        ModelError: If the tokenizer has no mask token.
    """

    def __init__(
        self,
        rows: list[np.ndarray],
        tokenizer: Any,
        rate: float,
        words: list[list[int | None]] | None = None,
    ) -> None:
        self.mask_id = mask_id(tokenizer)
        special = list(tokenizer.all_special_ids)
        self.vocabulary = np.setdiff1d(np.arange(tokenizer.vocab_size, dtype="int32"), special)
        self.ids = np.concatenate(rows)  # (tokens,), all rows concatenated
        row_of = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
        allowed = ~np.isin(self.ids, special)
        # The tokens of a unit are masked together; a unit begins where the row or word changes.
        begins = allowed.copy()
        if words is not None:
            numbers = [_NEVER if n is None else n for row in words for n in row]
            same = np.diff(np.stack([row_of, numbers]), axis=1) == 0
            begins[1:] &= ~(same.all(axis=0) & allowed[:-1])
        self.unit = np.where(allowed, np.cumsum(begins) - 1, _NEVER)  # (tokens,)
        self._row_of_unit = row_of[begins]
        units = np.bincount(self._row_of_unit, minlength=len(rows))
        hidden = np.where(units, np.maximum(np.rint(units * rate), 1), 0)
        self._hidden, self._first = hidden[self._row_of_unit], np.cumsum(units) - units

    def draw(self, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Samples masks: the ids with masks and the original ids at them, (tokens,) each."""
        places = np.arange(len(self._row_of_unit))
        # The units of each row in random order, of which the first ones are masked.
        order = np.lexsort([random.random(len(places)), self._row_of_unit])
        chosen = np.empty(len(places), dtype=bool)
        chosen[order] = places - self._first[self._row_of_unit] < self._hidden
        hidden = np.append(chosen, False)[
            self.unit
        ]  # index -1, which is _NEVER, is the appended False

        dice = random.random(len(self.ids))
        others = random.choice(self.vocabulary, len(self.ids))
        seen = np.where(dice < MASKED, self.mask_id, self.ids)
        seen = np.where(dice >= 1 - REPLACED, others, seen)
        seen = np.where(hidden, seen, self.ids)
        return seen.astype("int32"), np.where(hidden, self.ids, IGNORED).astype("int32")


def mask_id(tokenizer: Any) -> int:
    """The id of the mask token.

    Raises:
        ModelError: If there is none.
    """
    if tokenizer.mask_token_id is None:
        raise ModelError(
            "The checkpoint's tokenizer has no mask token, so no word can be hidden: fill-mask "
            "needs a checkpoint that was trained with one, such as bert-base-uncased. If it is "
            "only not declared, name it: model.tokenizer.mask_token = '[MASK]'."
        )
    return tokenizer.mask_token_id
