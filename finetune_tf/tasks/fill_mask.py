"""Fill-mask: masked words of a text, by which a model is adapted to the language of a domain."""

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from keras import ops

from finetune_tf.base.arguments import check
from finetune_tf.errors import DataError, ModelError
from finetune_tf.messages import say
from finetune_tf.tasks.encoded import token_inputs, tokenized
from finetune_tf.tasks.feature import Feature
from finetune_tf.tasks.language_model import LanguageModelOutputs
from finetune_tf.tasks.masking import Cloze, Masking, mask_id
from finetune_tf.tasks.task import IGNORED, Columns, Encoded, Task
from finetune_tf.tasks.text_classification import encode_texts
from finetune_tf.tasks.token_scores import token_scores
from finetune_tf.tasks.usage import make_usage

#: Number of words that `predict` returns for each mask.
CANDIDATES = 5
_WORD_STARTS = ("Ġ", "▁")  # the marks of byte-level and SentencePiece tokens for a space


@dataclass(frozen=True, repr=False)
class Candidate:
    """A word that may be in the place of a mask.

    Attributes:
        word: The word, or a part of one.
        score: Its probability.
        text: The text with the word in place of the mask; other masks remain.
    """

    word: str
    score: float
    text: str

    def __repr__(self) -> str:
        return f"Candidate({self.word!r}, {self.score:.3f})"


class FillMask(LanguageModelOutputs, Task):
    """A score for every word at every token, computed with the token embedding table."""

    name = "fill-mask"
    class_suffix = "ForMaskedLM"
    columns = ("text",)
    target_column = "cloze"
    output_layers = ("transform", "vocabulary_bias", "lm_head")
    encode_options = ("mask_rate", "whole_word")
    usage = make_usage('ft.predict(model, "The film was [MASK].")')
    reduces_with_targets = True

    def encode(
        self,
        examples: Columns,
        tokenizer: Any,
        max_length: int,
        mask_rate: float = 0.15,
        whole_word: bool = False,
    ) -> Encoded:
        """Encodes texts; the masked tokens are sampled in `batches` or given by clozes.

        Args:
            examples: Examples with texts; those of a test also have clozes, from `prepare_test`.
            tokenizer: As for every task.
            max_length: As for every task.
            mask_rate: Share of the words of a text that is masked, at least one.
            whole_word: Whether all tokens of a word are masked together.

        Raises:
            DataError: If the rate is not between 0 and 1.
            ModelError: If there is no mask token, or clozes belong to another tokenizer.
        """
        check(max_length=max_length, mask_rate=mask_rate)
        texts = examples.columns["text"]
        if "text_pair" in examples.columns:
            say(f"{examples.name}: {self.name} reads the column text only, not text_pair.")
        encoding, truncated = encode_texts(tokenizer, texts, None, max_length)
        inputs = token_inputs(encoding, tokenizer)
        ids = inputs["input_ids"]
        common = {"truncated": truncated, "tokenizer": tokenizer}
        if "cloze" in examples.columns:
            clozes = examples.columns["cloze"]
            _check_same(clozes, ids.rows, examples.name)
            inputs["input_ids"] = replace(ids, rows=[cloze.input_ids for cloze in clozes])
            answers = Feature([cloze.answers for cloze in clozes], padding=IGNORED)
            return Encoded(inputs, answers, **common)
        words = None
        if whole_word:
            again = tokenized(tokenizer, texts, truncation=True, max_length=max_length)
            words = [again.word_ids(row) for row in range(len(texts))]
        masking = Masking(ids.rows, tokenizer, mask_rate, words)
        return Encoded(inputs, targets=None, draw=masking.draw, **common)

    def prepare_test(self, examples: Any, tokenizer: Any, max_length: int, seed: int) -> Any:
        """Adds a column "cloze" with the masked words, which are the same for every model.

        Raises:
            DataError: If no text has a word that can be masked.
        """
        if "cloze" in examples.columns:
            return examples
        ids = encode_texts(tokenizer, examples.columns["text"], None, max_length)[0]["input_ids"]
        rows = [np.asarray(row, dtype="int32") for row in ids]
        masking = Masking(rows, tokenizer, rate=0.15)
        ends = np.cumsum([len(row) for row in rows])[:-1]
        seen, answers = (np.split(x, ends) for x in masking.draw(np.random.default_rng(seed)))
        allowed = np.split(masking.unit >= 0, ends)
        if not masking.unit.max() >= 0:
            raise DataError(f"{examples.name} has no word that the tokenizer knows.")
        size = len(masking.vocabulary)
        clozes = [
            Cloze(a, b, row[c], size)
            for a, b, row, c in zip(seen, answers, rows, allowed, strict=True)
        ]
        columns = {**examples.columns, "cloze": clozes}
        return type(examples)(columns, examples.labels, examples.name, examples.places)

    def targets(self, examples: Columns) -> list[Cloze]:
        """The clozes.

        Raises:
            DataError: If the column has other values.
        """
        clozes = examples.columns["cloze"]
        if not all(isinstance(cloze, Cloze) for cloze in clozes):
            raise DataError(
                "fill-mask is compared with the baseline 'unigram' or with another model, such as "
                "the one before training: baseline=ft.load(checkpoint, 'fill-mask')."
            )
        return clozes

    def reduce_outputs(self, outputs: Any, targets: Any) -> Any:
        """Reduces the logits (batch, length, vocabulary).

        Returns:
            With targets (batch, length, 2): the negative log-likelihood of the target and whether
            it is the most probable word, both 0 where no word is masked. Without targets
            (batch, length, 10): the five most probable words and their probabilities.
        """
        if targets is not None:
            return token_scores(outputs, targets)
        scores, words = ops.top_k(outputs, min(CANDIDATES, outputs.shape[-1]))
        chances = ops.exp(scores - ops.logsumexp(outputs, axis=-1, keepdims=True))
        return ops.concatenate([ops.cast(words, "float32"), chances], axis=-1)

    def decide(self, rows: list[np.ndarray], encoded: Encoded, examples: Columns) -> np.ndarray:
        """An array (texts, 3): sum of negative log-likelihoods, hits, and masked words."""
        asked = [(answers != IGNORED).sum() for answers in encoded.targets]
        return np.column_stack([[row.sum(axis=0, dtype="float64") for row in rows], asked])

    def describe(self, rows: list[np.ndarray], encoded: Encoded, examples: Columns) -> list[list]:
        """The most probable words: one list for each text, or for each mask if it has several.

        Raises:
            DataError: If a text has no mask.
        """
        tokenizer = encoded.tokenizer
        mask, wanted = tokenizer.mask_token, mask_id(tokenizer)
        described = []
        texts = examples.columns["text"]
        for i, (text, ids, row) in enumerate(
            zip(texts, encoded.inputs["input_ids"], rows, strict=True)
        ):
            spans = [match.span() for match in re.finditer(re.escape(mask), text)]
            places = np.flatnonzero(ids == wanted)
            if not spans:
                raise DataError(
                    f"Text {i} has no {mask}, so there is nothing to fill in: {text[:60]!r}. Put "
                    f"{mask} where the word is asked for."
                )
            if len(spans) != len(places):
                raise DataError(
                    f"Text {i} has {len(spans)} {mask}, but only {len(places)} among the tokens "
                    "that the model takes. Shorten it."
                )
            lists = [
                _candidates(row[place], text, span, tokenizer)
                for place, span in zip(places, spans, strict=True)
            ]
            described.append(lists[0] if len(lists) == 1 else lists)
        return described

    def as_json(self, described: list) -> dict[str, Any]:
        """The candidates of a text, with one list for each mask if it has several."""
        return {"candidates": _plain(described)}

    def asked(self, texts: Any, text_pair: Any = None, **columns: Any) -> dict[str, Any]:
        """Accepts texts only.

        Raises:
            DataError: If something else is given.
        """
        if text_pair is not None:
            raise DataError("predict for fill-mask takes single texts, no text_pair.")
        return super().asked(texts, **columns)


def _plain(described: Any) -> Any:
    return [_plain(one) for one in described] if isinstance(described, list) else vars(described)


def _candidates(
    row: np.ndarray, text: str, span: tuple[int, int], tokenizer: Any
) -> list[Candidate]:
    """Converts the words and probabilities (10,) at one mask to candidates."""
    found = []
    for number, score in zip(*np.split(row, 2), strict=True):
        token = tokenizer.convert_ids_to_tokens(int(number)) or ""
        word = tokenizer.decode([int(number)]).strip()
        before, after, piece = text[: span[0]], text[span[1] :], word
        if token.startswith("##"):  # a WordPiece token that continues the word before it
            before, piece = before.rstrip(), word.removeprefix("##")
        elif token.startswith(_WORD_STARTS):
            before = f"{before.rstrip()} " if before.strip() else ""
        found.append(Candidate(word, float(score), before + piece + after))
    return found


def _check_same(clozes: list[Cloze], rows: list[np.ndarray], name: str) -> None:
    if not all(np.array_equal(cloze.ids, row) for cloze, row in zip(clozes, rows, strict=True)):
        raise ModelError(
            f"The models split the texts of {name} into different tokens, so their perplexities "
            "cannot be compared. Compare models with one tokenizer and one max_length."
        )
