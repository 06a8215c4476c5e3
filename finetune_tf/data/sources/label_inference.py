"""Reads off a raw label column what kind of problem it poses and what the classes are called."""

import ast
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, get_args

from finetune_tf.base.labels import Labels, ProblemType, label_text, number_in, unseen_labels
from finetune_tf.data.checks import (
    check_labels,
    check_present,
    invalid_rows,
    offenders,
)
from finetune_tf.data.places import Places
from finetune_tf.data.sources.label_lists import check_items, label_lists
from finetune_tf.data.sources.label_values import (
    FEW,
    check_kinds,
    check_numbers,
    class_name,
    has_fraction,
    is_decimal_comma,
    plain,
    same_spelling,
    sorted_names,
    spelled_alike,
    warn_of_similar,
)
from finetune_tf.errors import DataError

_SEVERAL: ProblemType = "multi_label_classification"


def infer_labels(
    values: Iterable[Any],
    column: str,
    source: str,
    labels: Labels | int | Iterable[object] | None = None,
    problem_type: ProblemType | None = None,
    places: Places | None = None,
) -> tuple[list, Labels]:
    """Decides what a label column means.

    Texts and whole numbers are classes, named by `str(value)` and sorted (numerically where
    they are numbers). Numbers with a fraction, also written as text, are scores. Lists are
    several labels a row: of names, of class numbers, or of one 0 or 1 for each label.

    Args:
        values: One label a row, as the source has it.
        column: Name of the column; a regression's output is called so.
        source: Name of the data in messages.
        labels: What the labels are called, when it should not be inferred.
        problem_type: What kind of problem it is, when it should not be inferred.
        places: Where the rows stand in the source.

    Returns:
        The values (scores as float, names in one spelling, else as they were) and their labels.

    Raises:
        DataError: If a label is missing or not among `labels`, the column has one class only,
            whole numbers are no classes, or there is no such problem type.
        DataTypeError: If a value is no label at all.
    """
    if problem_type not in (None, *get_args(ProblemType)):
        raise DataError(
            f"Unknown problem type {problem_type!r}: choose one of {get_args(ProblemType)}."
        )
    values = [plain(value) for value in values]
    places = places or Places(range(len(values)))
    given = None if labels is None else Labels.of(labels)
    check_present(values, source, places, given)
    check_kinds(values, source, places)
    if isinstance(labels, Labels) and problem_type not in (None, labels.problem_type):
        raise DataError(
            f"labels= are for the problem type {labels.problem_type!r}, but "
            f"problem_type={problem_type!r} was asked for. Give one of the two."
        )
    if labels is not None and not isinstance(labels, Labels):
        if problem_type is None:
            has_lists = any(isinstance(value, list) for value in values)
            problem_type = _SEVERAL if has_lists else given.problem_type
        given = Labels(given, problem_type)
    problem_type = given.problem_type if given else problem_type
    problem_type = problem_type or _problem_type(values, column, source, places)

    if problem_type == "regression":
        values = [_as_score(value) for value in values]
        given = given or Labels([column], problem_type)
    elif problem_type == _SEVERAL:
        values, given = label_lists(values, given, source, places)
    elif given is None:
        values, given = _classes(values, column, source, places)
    check_labels(values, given, source, places)
    return values, given


def infer_tags(
    rows: Iterable[Any],
    source: str,
    labels: Labels | int | Iterable[object] | None = None,
    class_names: Sequence[str] | None = None,
    places: Places | None = None,
) -> tuple[list[list], Labels]:
    """Decides what the tags of words are called.

    Args:
        rows: One list of tags a row: names, or numbers of `class_names`.
        source: Name of the data in messages.
        labels: What the tags are called, when it should not be inferred.
        class_names: What the source itself calls its numbers 0, 1, ….
        places: Where the rows stand in the source.

    Returns:
        The tags, and their names: those given, else those of the source, else all that occur,
        "O" (outside of any entity) first and the others sorted.

    Raises:
        DataError: If a row has no list of tags, or a tag is missing or none of the labels.
        DataTypeError: If a tag is neither a text nor a number.
    """
    rows = [plain(row) for row in rows]
    places = places or Places(range(len(rows)))
    wrong = offenders(rows, lambda row: not isinstance(row, list) or not row)
    if wrong:
        raise invalid_rows(
            f"Each row of {source} needs a list of tags, one a word; found {places.told(wrong)}.",
            wrong,
            "without a list of tags",
        )
    check_kinds(rows, source, places)
    check_items(rows, source, places, "tags")
    if class_names:
        rows = [[class_name(tag, class_names) for tag in row] for row in rows]
    if labels is None and class_names is None:
        rows = spelled_alike(rows, source)
        counts = Counter(label_text(tag) for row in rows for tag in row)
        check_numbers(counts, "tags", source, "a name for each tag")
        warn_of_similar(counts, source)
        labels = sorted(sorted_names(counts), key=lambda name: name != "O")
    labels = Labels.of(class_names if labels is None else labels)
    unknown = {tag for row in rows for tag in row if labels.index_of(tag) is None}
    if unknown:
        wrong = offenders(rows, lambda row: not unknown.isdisjoint(row))
        names = sorted(map(label_text, unknown))
        raise invalid_rows(
            f"{source} has the tags {names[:5]}, which are none of the labels {labels.told()}: "
            f"{places.told(wrong)}.{unseen_labels(set(names), labels)}",
            wrong,
            "with an unknown tag",
        )
    return rows, labels


def _problem_type(values: list, column: str, source: str, places: Places) -> ProblemType:
    lists = [(row, value) for row, value in enumerate(values) if isinstance(value, list)]
    if 0 < len(lists) < len(values) / 2:
        raise invalid_rows(
            f"The labels of {source} are one a row but for lists in {places.told(lists)}. Correct "
            "or remove these rows, or give a list in each row.",
            lists,
            "with a list of labels",
        )
    if lists:
        return _SEVERAL
    names = {label_text(value) for value in values}
    numbers = {name for name in names if number_in(name) is not None}
    if is_decimal_comma(names):
        raise DataError(
            f"The labels of {source} are numbers with a decimal comma, such as "
            f"{next(name for name in names if ',' in name)!r}. Write them with a point for scores, "
            f"or name the classes with labels=[…]."
        )
    fraction = next(filter(has_fraction, sorted(numbers)), None)
    if numbers < names and (fraction or len(numbers) > FEW):
        wrong = offenders(values, lambda value: label_text(value) not in numbers)
        if len(wrong) <= len(values) / 2:
            raise invalid_rows(
                f"The labels of {source} in column {column!r} are numbers but for "
                f"{places.told(wrong)}. Correct or remove these rows, or name all classes with "
                "labels=[…].",
                wrong,
                "with a label that is no number",
            )
    return "regression" if fraction and numbers == names else "single_label_classification"


def _as_score(value: Any) -> Any:
    """The number a value is or writes; the value itself if it is none."""
    if isinstance(value, str):
        number = number_in(value)
        return value if number is None else number
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return value


def _classes(values: list, column: str, source: str, places: Places) -> tuple[list[Any], Labels]:
    values = same_spelling(values, source)
    counts = Counter(map(label_text, values))
    names = sorted_names(counts)
    if len(names) == 1:
        raise DataError(
            f"The label column {column!r} of {source} has one class only, {names[0]!r}: a "
            "classifier needs two or more. Name them all with labels=[…], for example "
            "labels=train.labels."
        )
    lists = [(row, value) for row, value in enumerate(values) if _writes_list(value)]
    if lists:
        raise invalid_rows(
            f"The labels of {source} are lists or objects written as text: {places.told(lists)}. "
            "Several labels a text stand in columns of 0 and 1 (label=[…] names them), or as "
            "lists in JSON Lines.",
            lists,
            "with a list written as text",
        )
    check_numbers(counts, column, source, 'problem_type="regression" if they are scores')
    warn_of_similar(counts, source)
    return values, Labels(names, "single_label_classification")


def _writes_list(value: Any) -> bool:
    """Whether a text is the list or dict of a programming language, as data frames write it."""
    if not isinstance(value, str) or value[:1] + value[-1:] not in ("[]", "{}"):
        return False
    try:
        return isinstance(ast.literal_eval(value), list | dict | set)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return True
