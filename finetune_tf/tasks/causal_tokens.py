"""Examples of a causal language model as tokens, and which of them it learns to predict."""

from typing import Any

import numpy as np

from finetune_tf.errors import DataError
from finetune_tf.messages import say
from finetune_tf.tasks.chat import answered_ids, prompt_ids
from finetune_tf.tasks.encoded import tokenized
from finetune_tf.tasks.feature import IGNORED
from finetune_tf.tasks.interfaces import Columns

#: What is said where a model cannot learn where texts end.
NO_END = (
    "the tokenizer has no token that ends a text, so the model does not learn where texts end, and "
    'generates as many tokens as it may. Set one: model.tokenizer.eos_token = "…".'
)


def token_ids(
    examples: Columns, tokenizer: Any
) -> tuple[list[np.ndarray], list[np.ndarray] | None]:
    """The tokens of each example, and which of them a model learns to predict.

    Args:
        examples: Examples with texts, with prompts and perhaps completions, or with conversations.
        tokenizer: The tokenizer.

    Returns:
        (tokens,) int32 and (tokens,) bool for each example; None instead of the latter for prompts
        without completions, which are to be continued.

    Raises:
        DataError: If a text has no tokens, or only some conversations end with an answer.
    """
    columns = examples.columns
    if "messages" in columns:
        return _tokens_of_messages(examples, tokenizer)
    texts = columns["prompt" if "prompt" in columns else "text"]
    ids = [np.asarray(row, "int32") for row in tokenized(tokenizer, texts)["input_ids"]]
    for i, row in enumerate(ids):
        if not len(row):
            raise DataError(
                f"{examples.places.title(i)} of {examples.name} has no tokens. Remove it."
            )
    if "prompt" not in columns:
        return ids, [np.ones(len(row), "bool") for row in ids]
    ids = [without_end(*pair, tokenizer) for pair in zip(ids, texts, strict=True)]
    if "completion" not in columns:
        return ids, None
    ends = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    if not ends:
        say(f"{examples.name}: {NO_END}")
    completions = tokenized(tokenizer, columns["completion"], add_special_tokens=False)
    rows = [
        # Data for other libraries has the end in the text.
        np.concatenate([prompt, np.asarray([*row, *(() if row[-1:] == ends else ends)], "int32")])
        for prompt, row in zip(ids, completions["input_ids"], strict=True)
    ]
    learned = [np.arange(len(r)) >= len(prompt) for r, prompt in zip(rows, ids, strict=True)]
    return rows, learned


def _tokens_of_messages(
    examples: Columns, tokenizer: Any
) -> tuple[list[np.ndarray], list[np.ndarray] | None]:
    conversations, places = examples.columns["messages"], examples.places
    named = [f"{places.name(i)} of {examples.name}" for i in range(len(conversations))]
    open_ones = [i for i, c in enumerate(conversations) if c[-1]["role"] != "assistant"]
    if len(open_ones) == len(conversations):
        pairs = zip(conversations, named, strict=True)
        return [prompt_ids(messages, tokenizer, name) for messages, name in pairs], None
    if open_ones:
        i = open_ones[0]
        raise DataError(
            f"{places.title(i)} of {examples.name} ends with a message of "
            f"{conversations[i][-1]['role']}, which the assistant does not answer, so there is "
            f"nothing to learn from its end. Remove this message, or {places.names(open_ones)}."
        )
    found = [
        answered_ids(messages, tokenizer, name)
        for messages, name in zip(conversations, named, strict=True)
    ]
    for i, (_, is_answer) in enumerate(found):
        if not is_answer.any():
            raise DataError(
                f"The chat template marks no token of {named[i]} as an answer of the assistant. "
                "Correct {% generation %} in tokenizer.chat_template."
            )
    return [ids for ids, _ in found], [is_answer for _, is_answer in found]


def next_tokens(ids: np.ndarray, is_learned: np.ndarray | None = None) -> np.ndarray:
    """The target of each token: the token after it, (tokens,) int32.

    It is -100 for the last token, and for those whose next token is not learned.

    Args:
        ids: (tokens,).
        is_learned: (tokens or more,), which tokens are learned; by default all.

    Example:
        >>> from finetune_tf.tasks.text_generation import next_tokens
        >>> next_tokens(np.array([5, 6, 7, 8]), np.array([False, False, True, True])).tolist()
        [-100, 7, 8, -100]
    """
    targets = np.append(ids[1:], IGNORED).astype("int32")
    if is_learned is not None:
        targets[:-1][~is_learned[1 : len(ids)]] = IGNORED
    return targets


def without_end(ids: np.ndarray, text: str, tokenizer: Any) -> np.ndarray:
    """Returns the tokens of a prompt without an end that the tokenizer adds to every text.

    Args:
        ids: The tokens (tokens,).
        text: The prompt.
        tokenizer: The tokenizer.
    """
    end = tokenizer.eos_token_id
    is_added = len(ids) > 1 and ids[-1] == end and not text.endswith(tokenizer.eos_token or "")
    return ids[:-1] if is_added else ids
