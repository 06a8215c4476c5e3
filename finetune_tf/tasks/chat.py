"""Conversations as tokens: the chat template of a tokenizer, and which tokens are answers."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from finetune_tf.checkpoints.return_tensors import without_shared_state
from finetune_tf.errors import DataError, ModelError

_MARKS_ANSWERS = re.compile(r"\{%-?\s*generation\s*-?%\}")

Messages = list[dict[str, str]]


def is_conversation(value: Any) -> bool:
    """Whether a value is a single conversation: a sequence of messages.

    Example:
        >>> from finetune_tf.tasks.chat import is_conversation
        >>> is_conversation([{"role": "user", "content": "Hello"}])
        True
    """
    if isinstance(value, str | bytes) or not isinstance(value, Sequence | np.ndarray):
        return False
    return len(value) > 0 and all(isinstance(message, Mapping) for message in value)


def without_answer(messages: list[dict]) -> list[dict]:
    """Returns a conversation without the messages of the assistant at its end.

    Example:
        >>> from finetune_tf.tasks.chat import without_answer
        >>> question = {"role": "user", "content": "Hello"}
        >>> without_answer([question, {"role": "assistant", "content": "Hi"}]) == [question]
        True
    """
    end = len(messages)
    while end and messages[end - 1]["role"] == "assistant":
        end -= 1
    return messages[:end]


def prompt_ids(messages: Messages, tokenizer: Any, place: str) -> np.ndarray:
    """Returns the tokens of a conversation up to where the assistant goes on.

    This is where the assistant begins to answer; or if the last message is one of the assistant,
    its end, without the tokens that end a turn.

    Args:
        messages: A conversation.
        tokenizer: A tokenizer with a chat template.
        place: What the conversation is called in messages.

    Returns:
        (tokens,) int32.

    Raises:
        DataError: If the chat template does not accept the conversation.
        ModelError: If the tokenizer has no chat template.
    """
    require_template(tokenizer)
    is_begun = bool(messages) and messages[-1]["role"] == "assistant"
    way = "continue_final_message" if is_begun else "add_generation_prompt"
    return _rendered(messages, tokenizer, place, **{way: True})


def answered_ids(messages: Messages, tokenizer: Any, place: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the tokens of a conversation, and which of them the assistant says.

    If the chat template marks the answers ({% generation %}), these are the tokens that count.
    Otherwise an answer is what a conversation up to it has more than one before it, where the
    assistant is about to begin; so the token that ends its turn counts as well.

    Args:
        messages: A conversation, which ends with a message of the assistant.
        tokenizer: A tokenizer with a chat template.
        place: What the conversation is called in messages.

    Returns:
        (tokens,) int32 and (tokens,) bool.

    Raises:
        DataError: If the chat template does not accept the conversation, or writes earlier messages
            differently when more follow.
        ModelError: If the tokenizer has no chat template.
    """
    require_template(tokenizer)
    if _MARKS_ANSWERS.search(tokenizer.get_chat_template()):
        with without_shared_state(tokenizer):
            found = _explained(
                lambda: tokenizer.apply_chat_template(
                    messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
                ),
                place,
            )
        return np.asarray(found["input_ids"], "int32"), np.asarray(found["assistant_masks"], "bool")
    ids = _rendered(messages, tokenizer, place)
    is_answer = np.zeros(len(ids), "bool")
    for number, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = _rendered(messages[:number], tokenizer, place, add_generation_prompt=True)
        until = _rendered(messages[: number + 1], tokenizer, place)
        if not (_begins(until, before) and _begins(ids, until)):
            raise DataError(
                f"The chat template writes {place} differently up to message {number} than as a "
                "whole, so the tokens of this answer are not known. Mark answers in "
                "tokenizer.chat_template with {% generation %} … {% endgeneration %}, or make an "
                "example of each answer, with the messages before it."
            )
        is_answer[len(before) : len(until)] = True
    return ids, is_answer


def require_template(tokenizer: Any) -> None:
    """Checks that a tokenizer has a chat template.

    Raises:
        ModelError: If it has none.
    """
    if tokenizer.chat_template is None:
        raise ModelError(
            "The tokenizer has no chat template, which writes a conversation as one text. Load a "
            "checkpoint that was trained on conversations (often called Instruct or Chat), or set "
            "model.tokenizer.chat_template to a template in the form of transformers. Without one, "
            "train on the columns prompt and completion."
        )


def _rendered(messages: Messages, tokenizer: Any, place: str, **options: bool) -> np.ndarray:
    if not messages:
        raise DataError(
            f"{place[:1].upper()}{place[1:]} begins with a message of the assistant. Begin with "
            "one of user or system."
        )
    with without_shared_state(tokenizer):
        text = _explained(
            lambda: tokenizer.apply_chat_template(messages, tokenize=False, **options), place
        )
        # A template writes special tokens itself.
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return np.asarray(ids, "int32")


def _begins(ids: np.ndarray, prefix: np.ndarray) -> bool:
    return np.array_equal(ids[: len(prefix)], prefix)


def _explained(render: Callable[[], Any], place: str) -> Any:
    try:
        return render()
    except ImportError as error:
        raise ModelError(
            "Chat templates need the package jinja2: pip install 'finetune-tf[chat]'."
        ) from error
    except Exception as error:
        # A ValueError says that the template does not write the message that is to be continued.
        if not type(error).__module__.startswith("jinja2") and type(error) is not ValueError:
            raise
        raise DataError(
            f"The chat template of the tokenizer does not accept {place}: {error}"
        ) from None
