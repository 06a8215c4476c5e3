"""Text generation: a causal language model, which predicts each token from those before it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetune_tf.base.arguments import check
from finetune_tf.errors import DataError, ModelError
from finetune_tf.tasks.causal_tokens import next_tokens, token_ids
from finetune_tf.tasks.chat import is_conversation, without_answer
from finetune_tf.tasks.encoded import Encoded
from finetune_tf.tasks.feature import IGNORED, Feature
from finetune_tf.tasks.interfaces import Columns
from finetune_tf.tasks.language_model import LanguageModelOutputs
from finetune_tf.tasks.task import Task
from finetune_tf.tasks.token_scores import token_scores
from finetune_tf.tasks.usage import make_usage


@dataclass(frozen=True, eq=False)
class ScoredText:
    """A text of a test, whose tokens every model has to predict.

    Attributes:
        input_ids: (tokens,) int32.
        targets: (tokens,) int32, the token after each one; -100 where it is not scored.
        is_truncated: Whether the text was longer than the model accepts.
        scored_bytes: Length in UTF-8 of the text that the scored tokens stand for.
        vocab_size: Number of tokens from which each one is predicted.
    """

    input_ids: np.ndarray
    targets: np.ndarray
    is_truncated: bool
    scored_bytes: int
    vocab_size: int


class TextGeneration(LanguageModelOutputs, Task):
    """A distribution over the next token at every token of a text.

    A model learns from whole texts (the column `text`), from what follows a prompt (`prompt` and
    `completion`), where only the tokens of the completion have targets, or from conversations
    (`messages`), where only what the assistant says has targets.
    """

    name = "text-generation"
    class_suffix = "ForCausalLM"
    generates_text = True
    targets_are_next_tokens = True
    columns = ("text", "prompt", "completion", "messages")
    input_forms = (("prompt",), ("messages",))
    target_column = "scored"
    reduces_with_targets = scores_tokens = True
    usage = make_usage(
        predict='ft.generate(model, "Once upon a time", max_new_tokens=50)',
        transformers="""from transformers import pipeline

generate = pipeline("{task}", model="{folder}")
generate("Once upon a time", max_new_tokens=50)""",
    )

    def require(self, examples: Columns) -> None:
        """Checks that examples have texts or prompts.

        Raises:
            ModelError: If they have neither.
        """
        if not {"text", "prompt", "messages"} & examples.columns.keys():
            raise ModelError(
                f"The task {self.name} reads the column text, or prompt and completion, or "
                f"messages, but {examples.name} has {', '.join(examples.columns)}. Name them when "
                'reading it, for example from_jsonl(path, prompt="…", completion="…").'
            )

    def encode(self, examples: Columns, tokenizer: Any, max_length: int) -> Encoded:
        """Encodes texts; the target of each token is the token after it.

        A completion ends with the token that ends a text, so that a model learns to stop. Prompts
        without completions, which are to be continued, have no targets.

        Args:
            examples: Examples with texts, or with prompts and perhaps completions.
            tokenizer: As for every task.
            max_length: As for every task.

        Raises:
            DataError: If a prompt alone fills `max_length`.
        """
        check(max_length=max_length)
        if "scored" in examples.columns:
            texts = examples.columns["scored"]
            _check_same(texts, token_ids(examples, tokenizer)[0], examples.name)
            ids, targets = [t.input_ids for t in texts], [t.targets for t in texts]
            truncated = sum(text.is_truncated for text in texts)
        else:
            ids, learned = token_ids(examples, tokenizer)
            truncated, targets = 0, None
            if learned is not None:
                truncated = sum(len(row) > max_length for row in ids)
                _check_room(learned, max_length, examples)
                ids = [row[:max_length] for row in ids]
                targets = [next_tokens(*pair) for pair in zip(ids, learned, strict=True)]
        padding = tokenizer.pad_token_id
        padding = tokenizer.eos_token_id or 0 if padding is None else padding
        return Encoded(
            inputs={"input_ids": Feature(ids, padding=padding)},
            targets=None if targets is None else Feature(targets, padding=IGNORED),
            truncated=truncated,
            tokenizer=tokenizer,
        )

    def prepare_test(self, examples: Any, tokenizer: Any, max_length: int, seed: int) -> Any:
        """Adds the column "scored" with the tokens that every model has to predict."""
        if "scored" in examples.columns:
            return examples
        self.require(examples)
        ids, learned = token_ids(examples, tokenizer)
        if learned is None:
            raise DataError(
                f"{examples.name} has nothing to score: give completions, or conversations that "
                "end with a message of the assistant."
            )
        _check_room(learned, max_length, examples)
        scored = []
        for row, is_learned in zip(ids, learned, strict=True):
            is_truncated, row = len(row) > max_length, row[:max_length]
            targets = next_tokens(row, is_learned)
            text = tokenizer.decode(targets[targets != IGNORED], skip_special_tokens=True)
            size = len(text.encode())
            scored.append(ScoredText(row, targets, is_truncated, size, len(tokenizer)))
        if not any((text.targets != IGNORED).any() for text in scored):
            raise DataError(
                f"The texts of {examples.name} have one token each, so there is no token to "
                "predict. Give longer texts."
            )
        columns = {**examples.columns, "scored": scored}
        return type(examples)(columns, examples.labels, examples.name, examples.places)

    def targets(self, examples: Columns) -> list[ScoredText]:
        """Returns the texts with the tokens that are scored.

        Raises:
            DataError: If the column holds anything else.
        """
        scored = examples.columns["scored"]
        if not all(isinstance(text, ScoredText) for text in scored):
            raise DataError(
                "text-generation is compared with the baseline 'bigram' or with another model, "
                "such as the one before training: baseline=ft.load(checkpoint)."
            )
        return scored

    def reduce_outputs(self, outputs: Any, targets: Any) -> Any:
        """Reduces logits (batch, length, vocabulary) to what metrics need.

        Args:
            outputs: The logits.
            targets: (batch, length), the next tokens; -100 where they are not scored.

        Returns:
            (batch, length, 2): the negative log-likelihood of the next token, and whether it has
            the highest logit; both 0 where it is not scored.
        """
        return token_scores(outputs, targets)

    def predict_rows(
        self,
        model: Any,
        encoded: Encoded,
        batch_size: int,
        forward: Callable[[Encoded], list[np.ndarray]],
    ) -> list[np.ndarray]:
        """Generates the continuation of prompts; rows with targets are scored instead.

        Args:
            model: As for every task.
            encoded: As for every task.
            batch_size: As for every task.
            forward: As for every task.
        """
        if encoded.targets is not None:
            return forward(encoded)
        return model.generate(list(encoded.inputs["input_ids"].rows), batch_size=batch_size)

    def decide(self, rows: list[np.ndarray], encoded: Encoded, examples: Columns) -> np.ndarray:
        """Returns the scores of each text, (texts, 2): negative log-likelihood, hits."""
        return np.stack([row.sum(axis=0, dtype="float64") for row in rows])

    def describe(self, rows: list[np.ndarray], encoded: Encoded, examples: Columns) -> list[str]:
        """Returns the continuation of each prompt.

        Raises:
            DataError: If there are texts in the place of prompts.
        """
        if not {"prompt", "messages"} & examples.columns.keys():
            raise DataError(
                f"predict continues prompts, found the texts of {examples.name}. Read them as "
                'prompts: from_jsonl(path, prompt="text").'
            )
        return [encoded.tokenizer.decode(row, skip_special_tokens=True) for row in rows]

    def as_json(self, described: str) -> dict[str, Any]:
        """Returns the generated text."""
        return {"generated_text": described}

    def asked(self, texts: Any, text_pair: Any = None, **columns: Any) -> dict[str, Any]:
        """Returns the prompts.

        Raises:
            DataError: If anything else is given.
        """
        if text_pair is not None:
            raise DataError("predict for text-generation expects prompts, not pairs of texts.")
        if is_conversation(texts) or (isinstance(texts, list) and any(map(is_conversation, texts))):
            return {"messages": texts}
        return {"prompt": super().asked(texts, **columns)["text"]}

    def questions(self, columns: dict[str, list]) -> dict[str, list]:
        """Returns conversations without the answer at their end, and other columns as they are."""
        if "messages" not in columns:
            return columns
        return {**columns, "messages": list(map(without_answer, columns["messages"]))}


def _check_same(scored: list[ScoredText], rows: list[np.ndarray], name: str) -> None:
    for text, row in zip(scored, rows, strict=True):
        if not np.array_equal(text.input_ids, row[: len(text.input_ids)]):
            raise ModelError(
                f"The models split the texts of {name} into different tokens, so their scores "
                "cannot be compared. Compare models with one tokenizer, or evaluate each by itself "
                "and look at the bits per byte."
            )


def _check_room(learned: list[np.ndarray], max_length: int, examples: Columns) -> None:
    for i, is_learned in enumerate(learned):
        length = int(is_learned.argmax())  # tokens before the first one that is learned
        if length >= max_length:
            raise DataError(
                f"{examples.places.title(i)} of {examples.name} has a prompt of {length:,} tokens, "
                "which leaves no room for its completion: rows have at most "
                f"{max_length:,} tokens. Shorten the prompt, or raise max_length."
            )
