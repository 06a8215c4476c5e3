"""Answers that occur in a context: the forms in which sources hold them, and their checks."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from finetune_tf.data.checks import CheckedRows, invalid_rows
from finetune_tf.data.places import Places, shortened
from finetune_tf.errors import DataError, DataTypeError
from finetune_tf.messages import say

_AROUND = 40  # characters of a context that messages show


class _Wrong(NamedTuple):
    row: int
    answer: str
    start: int | None


def check_answers(values: list, column: str, rows: CheckedRows) -> list[dict[str, list]]:
    """Converts answers to the form of SQuAD and checks that each occurs in its context.

    A row may be `{"text": [...], "answer_start": [...]}` as in SQuAD (Rajpurkar et al. 2016), a
    list of `{"text": …, "answer_start": …}`, a text, or a list of texts. Starts that are given
    are checked. Where a start is missing, it becomes the first place at which the answer occurs,
    and a message says if there are several. A row without an answer means that the context does
    not answer the question (SQuAD 2, Rajpurkar et al. 2018).

    Args:
        values: The column of answers.
        column: Its name.
        rows: The examples, with their contexts.

    Returns:
        `{"text": [...], "answer_start": [...]}` for each row, with as many starts as texts.

    Raises:
        DataError: If an answer does not occur in its context, or not at its start.
        DataTypeError: If a row has none of these forms.
    """
    name, places, contexts = rows.name, rows.places, rows.columns.get("context")
    if contexts is None:
        raise DataError(f"{name} has {column} but no contexts to find them in: give context= too.")
    forms = [_parts(value) for value in values]
    if no_form := [(row, values[row]) for row, form in enumerate(forms) if form is None]:
        raise invalid_rows(
            f"The answers of {places.name(no_form[0][0])} of {name} are "
            f"{shortened(no_form[0][1])}. Give them as in SQuAD, "
            '{"text": ["…"], "answer_start": [17]}, or as a text or a list of texts; where '
            'the context has no answer, {"text": [], "answer_start": []}.'
            f" Found in {places.listed(no_form)}.",
            no_form,
            "without answers in a known form",
            DataTypeError,
        )
    if uneven := [(row, form) for row, form in enumerate(forms) if not _has_a_start_each(*form)]:
        row, (texts, starts) = uneven[0]
        raise invalid_rows(
            f"{places.title(row)} of {name} has the answers {shortened(texts)} with "
            f"the starts {shortened(starts)}: each needs one, a whole number, and none may be "
            f"empty. Correct or remove {places.names([row for row, _ in uneven])}.",
            uneven,
            "with answers that do not fit their starts",
        )
    canonical: list[dict[str, list]] = []
    wrong: list[_Wrong] = []
    ambiguous = 0
    for row, ((texts, starts), context) in enumerate(zip(forms, contexts, strict=True)):
        for i, (text, start) in enumerate(zip(texts, starts, strict=True)):
            if start is None:
                starts[i] = context.find(text)
                ambiguous += context.find(text, starts[i] + 1) >= 0
            if starts[i] < 0 or not context.startswith(text, starts[i]):
                wrong.append(_Wrong(row, text, start))
        canonical.append({"text": texts, "answer_start": starts})
    if wrong:
        raise invalid_rows(
            _describe_misplaced(wrong, contexts, name, places),
            [(each.row, each.answer) for each in wrong],
            "with an answer that does not occur in its context",
        )
    if ambiguous:
        say(
            f"{name}: {ambiguous:,} answers have no start and occur in several places "
            "of their context; the first one counts."
        )
    return canonical


def _parts(value: Any) -> tuple[list[str], list[int | None]] | None:
    """The texts and starts of one row; a start that is not given is None.

    Returns:
        Two empty lists if there is no answer; None if the value has no known form.
    """
    given = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(given, Mapping):
        texts, starts = _list(given.get("text")), _list(given.get("answer_start"))
    elif isinstance(given, list | tuple) and given and isinstance(given[0], Mapping):
        if not all(isinstance(answer, Mapping) for answer in given):
            return None
        texts = [answer.get("text") for answer in given]
        starts = [answer.get("answer_start") for answer in given]
    else:
        texts, starts = _list(given), None
    if texts is None or not all(isinstance(text, str) for text in texts):
        return None
    if not any(text.strip() for text in texts):
        return [], []
    return texts, [None] * len(texts) if starts is None else starts


def _has_a_start_each(texts: list[str], starts: list[int | None]) -> bool:
    return (
        len(starts) == len(texts)
        and all(start is None or type(start) is int for start in starts)
        and all(text.strip() for text in texts)
    )


def _list(value: Any) -> list | None:
    """A single value, a list or an array as a list; None if there is no value."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return list(value) if isinstance(value, list | tuple) else None if value is None else [value]


def _describe_misplaced(
    wrong: list[_Wrong], contexts: Sequence[str], name: str, places: Places
) -> str:
    row, answer, start = wrong[0]
    context = contexts[row]
    found = context.find(answer)
    if start is None or found < 0:
        what = f"does not occur in its context, which begins {_shortened(context)!r}"
    else:
        there = context[max(start, 0) : max(start, 0) + len(answer)]
        what = f"is said to start at character {start}, where {_shortened(there)!r} stands"
        what += f"; it stands at {found}"
    numbers = [(each.row, each.answer) for each in wrong]
    return (
        f"The answer {_shortened(answer)!r} of {places.name(row)} of {name} {what}. "
        "Answers are parts of the context, letter for letter, and their starts count characters "
        f"from 0. Correct or remove {places.listed(numbers)}."
    )


def _shortened(text: str) -> str:
    return text if len(text) <= _AROUND else text[: _AROUND - 1] + "…"
