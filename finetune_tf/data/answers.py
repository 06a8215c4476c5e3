"""Answers that stand in a context: the forms a source may give them in, and their checks."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from finetune_tf.data.checks import rows_in_words
from finetune_tf.errors import DataError, DataTypeError
from finetune_tf.messages import say

_AROUND = 40  # characters of a context that messages show


class _Wrong(NamedTuple):
    row: int
    answer: str
    start: int | None


def check_answers(
    values: Sequence[Any], contexts: Sequence[str] | None, name: str
) -> list[dict[str, list]]:
    """Brings answers into SQuAD's form and checks that each stands in its context.

    A row may be `{"text": [...], "answer_start": [...]}` as in SQuAD (Rajpurkar et al. 2016), a
    list of `{"text": …, "answer_start": …}`, a text, or a list of texts. Starts that are given
    are checked; where there is none, the first place counts at which the answer stands, and if
    there are several, that is said. No answer at all means that the context does not answer the
    question (SQuAD 2, Rajpurkar et al. 2018).

    Args:
        values: The column of answers.
        contexts: The column of contexts.
        name: What messages call this data.

    Returns:
        `{"text": [...], "answer_start": [...]}` a row, with the same number of both.

    Raises:
        DataError: If an answer does not stand in its context, or not where it is said to.
        DataTypeError: If a row is in none of these forms.
    """
    if contexts is None:
        raise DataError(f"{name} has answers but no contexts to find them in: give context= too.")
    rows: list[dict[str, list]] = []
    wrong: list[_Wrong] = []
    ambiguous = 0
    for row, (value, context) in enumerate(zip(values, contexts, strict=True)):
        texts, starts = _parts(value, row, name)
        for i, (text, start) in enumerate(zip(texts, starts, strict=True)):
            if start is None:
                starts[i] = context.find(text)
                ambiguous += context.find(text, starts[i] + 1) >= 0
            if starts[i] < 0 or not context.startswith(text, starts[i]):
                wrong.append(_Wrong(row, text, start))
        rows.append({"text": texts, "answer_start": starts})
    if wrong:
        raise DataError(_where_it_should_stand(wrong, contexts, name))
    if ambiguous:
        say(
            f"{name}: {ambiguous:,} answers come without their start and stand in several places "
            "of their context; the first one counts."
        )
    return rows


def _parts(value: Any, row: int, name: str) -> tuple[list[str], list[int | None]]:
    """Texts and starts of one row; starts are None where they are not given."""
    given = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(given, Mapping):
        texts, starts = _list(given.get("text")), _list(given.get("answer_start"))
    elif isinstance(given, list | tuple) and given and isinstance(given[0], Mapping):
        texts = [answer.get("text") for answer in given]
        starts = [answer.get("answer_start") for answer in given]
    else:
        texts, starts = _list(given), None
    if texts is None or not all(isinstance(text, str) for text in texts):
        raise DataTypeError(
            f"The answers of row {row} of {name} are {_shortened(repr(value))}. Give them as in "
            'SQuAD, {"text": ["…"], "answer_start": [17]}, or as a text or a list of texts; where '
            'the context has no answer, {"text": [], "answer_start": []}.'
        )
    starts = [None] * len(texts) if starts is None else starts
    if not any(text.strip() for text in texts):
        return [], []
    numbers = all(start is None or isinstance(start, int) for start in starts)
    if len(starts) != len(texts) or not numbers or not all(text.strip() for text in texts):
        raise DataError(
            f"Row {row} of {name} has the answers {texts} with the starts {starts}: each needs "
            "one, a whole number, and none may be empty."
        )
    return texts, starts


def _list(value: Any) -> list | None:
    """A list of what may be one value, a list or an array; None for nothing."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return list(value) if isinstance(value, list | tuple) else None if value is None else [value]


def _where_it_should_stand(wrong: list[_Wrong], contexts: Sequence[str], name: str) -> str:
    row, answer, start = wrong[0]
    context = contexts[row]
    found = context.find(answer)
    if start is None or found < 0:
        what = f"does not stand in its context, which begins {_shortened(context)!r}"
    else:
        there = context[max(start, 0) : max(start, 0) + len(answer)]
        what = f"is said to start at character {start}, where {_shortened(there)!r} stands"
        what += f"; it stands at {found}"
    numbers = [(each.row, each.answer) for each in wrong]
    return (
        f"The answer {_shortened(answer)!r} of row {row} of {name} {what}. Answers are parts of "
        "the context, letter for letter, and their starts count characters from 0. Correct or "
        f"remove {rows_in_words(numbers, len(contexts))}."
    )


def _shortened(text: str) -> str:
    return text if len(text) <= _AROUND else text[: _AROUND - 1] + "…"
