"""Infers the problem type and the names of the classes from a column of labels."""

import ast
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, get_args

from finetune_tf.base.labels import Labels, ProblemType, label_text, number_in, unseen_labels
from finetune_tf.data.checks import invalid_rows, offenders
from finetune_tf.data.label_checks import check_labels, check_present
from finetune_tf.data.places import Places
from finetune_tf.data.sources.label_lists import (
    check_items,
    label_lists,
    labels_of_columns,
    say_if_one_each,
)
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
    warn_of_spelling,
)
from finetune_tf.errors import DataError

_SEVERAL: ProblemType = "multi_label_classification"


class KnownLabels(NamedTuple):
    """What is known of the labels of a source before they are read.

    Attributes:
        source: Name of the data in messages.
        places: Where the rows are in the source.
        labels: The names of the labels, if the user gave them.
        problem_type: The problem type, if the user gave it.
        class_names: What the source itself calls its class numbers 0, 1, ….
        is_list: Whether the user named a list of columns, of 0 and 1 for each label.
    """

    source: str
    places: Places
    labels: Labels | int | Iterable[object] | None = None
    problem_type: ProblemType | None = None
    class_names: Sequence[str] | None = None
    is_list: bool = False


def labels_of_texts(columns: Mapping[str, list], known: KnownLabels) -> tuple[list, Labels]:
    """Reads the labels of whole texts, from one column or from several of 0 and 1.

    Args:
        columns: The values of each column by its name in the source.
        known: What is known of the labels.

    Returns:
        As `infer_labels`.

    Raises:
        DataError: As `infer_labels`.
        DataTypeError: As `infer_labels`.
    """
    given, problem_type = known.labels, known.problem_type
    if known.is_list:
        values = labels_of_columns(columns, known.source, known.places)
        given = list(columns) if given is None else given
        problem_type = problem_type or _SEVERAL
    else:
        (values,) = columns.values()
    if known.class_names and problem_type != "regression":
        values = [class_name(value, known.class_names) for value in values]
        given = known.class_names if given is None else given
    title = ", ".join(columns)
    values, labels = infer_labels(values, title, known.source, given, problem_type, known.places)
    if known.problem_type is None and not isinstance(known.labels, Labels):
        say_if_one_each(values, labels, known.source)
    return values, labels


def tags_of_words(columns: Mapping[str, list], known: KnownLabels) -> tuple[list, Labels]:
    """Reads the tags of words.

    Args:
        columns: The one column by its name in the source.
        known: What is known of the labels.

    Returns:
        As `infer_tags`.

    Raises:
        DataError: As `infer_tags`.
        DataTypeError: As `infer_tags`.
    """
    (rows,) = columns.values()
    return infer_tags(rows, known.source, known.labels, known.class_names, known.places)


def infer_labels(
    values: Iterable[Any],
    column: str,
    source: str,
    labels: Labels | int | Iterable[object] | None = None,
    problem_type: ProblemType | None = None,
    places: Places | None = None,
) -> tuple[list, Labels]:
    """Infers what a column of labels means.

    Texts and whole numbers are classes. Their names are `str(value)`, sorted, numerically if they
    are numbers. Numbers with a fraction, also written as text, are scores. A list has several
    labels for one row: names, class numbers, or one 0 or 1 for each label.

    Args:
        values: One label for each row, as the source has it.
        column: Name of the column; it becomes the name of a regression's output.
        source: Name of the data in messages.
        labels: The names of the labels; by default they are inferred.
        problem_type: The problem type; by default it is inferred.
        places: Where the rows are in the source.

    Returns:
        The values and their labels. Scores become floats and names get one spelling; other values
        are unchanged.

    Raises:
        DataError: If a label is missing or not among `labels`, the column has a single class,
            whole numbers cannot be classes, or there is no such problem type.
        DataTypeError: If a value is not a label.

    Example:
        >>> from finetune_tf.data.sources.label_inference import infer_labels
        >>> infer_labels([2, 1, 2], "stars", "reviews")[1]
        Labels(['1', '2'], problem_type='single_label_classification')
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
    """Infers the names of the tags of words.

    Args:
        rows: One list of tags for each row: names, or numbers of `class_names`.
        source: Name of the data in messages.
        labels: The names of the tags; by default they are inferred.
        class_names: What the source itself calls its numbers 0, 1, ….
        places: Where the rows are in the source.

    Returns:
        The tags and their names: those given, else those of the source, else all that occur,
        "O" (outside of any entity) first and the others sorted.

    Raises:
        DataError: If a row has no list of tags, or a tag is missing or not among the labels.
        DataTypeError: If a tag is neither a text nor a number.
    """
    rows = [plain(row) for row in rows]
    places = places or Places(range(len(rows)))
    wrong = offenders(rows, lambda row: not isinstance(row, list) or not row)
    if wrong:
        raise invalid_rows(
            f"Each row of {source} needs a list of tags, one a word; found {places.listed(wrong)}.",
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
    warn_of_spelling(labels, source)
    unknown = {tag for row in rows for tag in row if labels.index_of(tag) is None}
    if unknown:
        wrong = offenders(rows, lambda row: not unknown.isdisjoint(row))
        names = sorted(map(label_text, unknown))
        raise invalid_rows(
            f"{source} has the tags {names[:5]}, which are none of the labels {labels.listed()}: "
            f"{places.listed(wrong)}.{unseen_labels(set(names), labels)}",
            wrong,
            "with an unknown tag",
        )
    return rows, labels


def _problem_type(values: list, column: str, source: str, places: Places) -> ProblemType:
    lists = [(row, value) for row, value in enumerate(values) if isinstance(value, list)]
    if 0 < len(lists) < len(values) / 2:
        raise invalid_rows(
            f"The labels of {source} are one a row but for lists in {places.listed(lists)}. "
            "Correct or remove these rows, or give a list in each row.",
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
                f"{places.listed(wrong)}. Correct or remove these rows, or name all classes with "
                "labels=[…].",
                wrong,
                "with a label that is no number",
            )
    return "regression" if fraction and numbers == names else "single_label_classification"


def _as_score(value: Any) -> Any:
    """A number, or a text that writes one, as a float; any other value unchanged."""
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
            f"The labels of {source} are lists or objects written as text: {places.listed(lists)}. "
            "Several labels per text are given in columns of 0 and 1 (label=[…] names them), or as "
            "lists in JSON Lines.",
            lists,
            "with a list written as text",
        )
    check_numbers(counts, column, source, 'problem_type="regression" if they are scores')
    warn_of_similar(counts, source)
    return values, Labels(names, "single_label_classification")


def _writes_list(value: Any) -> bool:
    """Whether a text is a Python list or dict, as data frames write them into files."""
    if not isinstance(value, str) or value[:1] + value[-1:] not in ("[]", "{}"):
        return False
    try:
        return isinstance(ast.literal_eval(value), list | dict | set)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return True
