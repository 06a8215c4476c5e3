"""Text classification: one label, several labels or a number for a text or a pair of texts."""

from typing import Any

from finetune_tf.checkpoints.layouts import SENTENCE_TRANSFORMERS, TRANSFORMERS, Layout
from finetune_tf.tasks.classification import Classification
from finetune_tf.tasks.encoded import token_inputs, tokenized
from finetune_tf.tasks.explained import Word, words_of_texts
from finetune_tf.tasks.feature import Feature
from finetune_tf.tasks.task import Columns, Encoded
from finetune_tf.tasks.usage import make_usage


class TextClassification(Classification):
    """One value per label for a text or a pair of texts."""

    name = "text-classification"
    class_suffix = "ForSequenceClassification"
    runs_in_all_engines = True
    serves_texts = True
    columns = ("text", "text_pair", "label")
    poolings = ("pooler", "cls", "mean")
    usage = make_usage(names_task=False, encoded="logits")

    def layout(self, pooling: str) -> Layout:
        """The classes of transformers only have a classifier on the family's own pooling."""
        return TRANSFORMERS if pooling == "pooler" else SENTENCE_TRANSFORMERS

    def encode(self, examples: Columns, tokenizer: Any, max_length: int) -> Encoded:
        """Encodes texts, truncated if they are too long; targets are in the order of the labels."""
        texts, pairs = examples.columns["text"], examples.columns.get("text_pair")
        encoding, truncated = encode_texts(tokenizer, texts, pairs, max_length)
        has_labels = "label" in examples.columns
        return Encoded(
            token_inputs(encoding, tokenizer),
            targets=Feature.of_array(self.targets(examples)) if has_labels else None,
            truncated=truncated,
        )

    def explained_words(
        self, encoded: Encoded, row: int, examples: Columns, tokenizer: Any
    ) -> list[Word]:
        """The words of the text, and of the second one."""
        columns = [name for name in ("text", "text_pair") if name in examples.columns]
        texts = {name: examples.columns[name][row] for name in columns}
        return words_of_texts(tokenizer, texts, encoded.inputs["input_ids"][row])


def encode_texts(
    tokenizer: Any, texts: list[str], pairs: list[str] | None, max_length: int
) -> tuple[dict[str, list], int]:
    """Encodes texts as token ids and token types.

    Args:
        tokenizer: A fast tokenizer of transformers.
        texts: Texts.
        pairs: Second texts.
        max_length: Tokens that a row may have, special ones included.

    Returns:
        The lists of ids and token types, and the number of texts that were truncated.
    """
    whole = tokenized(tokenizer, texts, pairs)
    encoding = {name: whole[name] for name in ("input_ids", "token_type_ids")}
    too_long = [i for i, row in enumerate(encoding["input_ids"]) if len(row) > max_length]
    if too_long:
        cut = tokenized(
            tokenizer,
            [texts[i] for i in too_long],
            [pairs[i] for i in too_long] if pairs else None,
            truncation=True,
            max_length=max_length,
        )
        for name, rows in encoding.items():
            for i, short in zip(too_long, cut[name], strict=True):
                rows[i] = short
    return encoding, len(too_long)
