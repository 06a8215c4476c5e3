"""The column of conversations, lists of messages as in the API of OpenAI, and its check."""

from collections.abc import Mapping, Sequence

from finetune_tf.data.checks import CheckedRows, has_lone_surrogate, invalid_rows, is_missing
from finetune_tf.data.places import shortened
from finetune_tf.errors import DataError, DataTypeError
from finetune_tf.tasks.chat import is_conversation

#: Who may speak. The chat template of a tokenizer decides which of these it accepts.
ROLES = ("system", "developer", "user", "assistant", "tool")

_FORM = '[{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]'


def check_conversations(values: list, column: str, rows: CheckedRows) -> list[list[dict]]:
    """Checks that each value is a conversation whose messages have a role and a content.

    Args:
        values: One value for each row.
        column: Name of the column.
        rows: The examples.

    Returns:
        The conversations as lists of dicts. Keys without a value are left out, since Arrow adds
        those of other messages; further keys are kept for the chat template.

    Raises:
        DataError: If a role is unknown, or a content is empty.
        DataTypeError: If a value is not a list of messages, or a content is not a text.
    """
    found = [
        [{key: part for key, part in message.items() if part is not None} for message in value]
        if is_conversation(value)
        else None
        for value in values
    ]
    problems = [_problem(conversation) for conversation in found]
    wrong = [(row, values[row]) for row, problem in enumerate(problems) if problem]
    if wrong:
        row, value = wrong[0]
        message, error = problems[row]
        raise invalid_rows(
            f"The column {column!r} of {rows.name} must hold conversations, {_FORM}; "
            f"{rows.places.name(row)} {message or f'is {shortened(value)}'}. Correct or remove "
            f"{rows.places.names([row for row, _ in wrong])}.",
            wrong,
            "with messages in no known form",
            error,
        )
    return found


def check_prompt(messages: Sequence[Mapping], place: str) -> None:
    """Checks a conversation that a model is to answer.

    Args:
        messages: The messages. One that calls tools needs no content.
        place: What the conversation is called in messages, such as "Prompt 0".

    Raises:
        DataError: If a role is unknown, or a content is empty.
        DataTypeError: If a content is not a text.
    """
    with_content = [
        {**message, "content": message.get("content") or "…"}
        if message.get("tool_calls")
        else dict(message)
        for message in messages
    ]
    problem = _problem(with_content)
    if problem:
        message, error = problem
        raise error(f"{place} {message}. Write conversations as {_FORM}.")


def conversation_key(messages: list[dict]) -> tuple[tuple[str, str], ...]:
    """Returns roles and contents without differences in case and white space."""
    return tuple((m["role"], " ".join(m["content"].casefold().split())) for m in messages)


def _problem(
    conversation: list[dict] | None,
) -> tuple[str, type[DataError] | type[DataTypeError]] | None:
    """Returns what is wrong with a conversation, to follow its place, and the class of error."""
    if conversation is None:
        return "", DataTypeError
    for number, message in enumerate(conversation):
        role, content = message.get("role"), message.get("content")
        which = f"has as its message {number}"
        if role not in ROLES:
            found = f"no role, found {shortened(message)}" if role is None else f"the role {role!r}"
            return f"{which} one with {found}; roles are {', '.join(ROLES)}", DataError
        if is_missing(content):
            return f"{which} one of {role} with an empty content", DataError
        if not isinstance(content, str):
            return f"{which} one whose content is no text but {shortened(content)}", DataTypeError
        if has_lone_surrogate(content):
            return f"{which} one with half a surrogate pair, which no encoding can write", DataError
    return None
