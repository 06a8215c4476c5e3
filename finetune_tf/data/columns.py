"""The columns that examples may have: one row for each in `COLUMNS`.

The sources, the checks of `Examples`, the search for copies and contradictions, the splits and the
options of the command line all read this table. A new column is one row here; the task that reads
it lists its name in `Task.columns`.
"""

import operator
import unicodedata
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_tf.base.labels import Labels, label_text
from finetune_tf.data.answer_columns import check_answers
from finetune_tf.data.checks import (
    CheckedRows,
    check_tags,
    check_texts,
    check_words,
)
from finetune_tf.data.conversations import check_conversations, conversation_key
from finetune_tf.data.image_columns import check_images, image_in_folder, image_key
from finetune_tf.data.label_checks import check_labels
from finetune_tf.data.sources.label_inference import KnownLabels, labels_of_texts, tags_of_words
from finetune_tf.data.target_columns import check_targets
from finetune_tf.data.video_columns import check_videos, video_in_folder, video_key
from finetune_tf.errors import DataError
from finetune_tf.tasks.target_texts import references_of

#: The columns about whole texts, which have an argument of their own in every source.
TEXT_COLUMNS = ("text", "text_pair", "label")

#: For a split: the class of each row as text, by which rows are stratified, and for each row the
#: labels of which it is an example.
Classes = tuple[list[str], list[Collection[Hashable]]]


@dataclass(frozen=True)
class Target:
    """How the values of a column are understood that holds the ground truth.

    Attributes:
        meaning: (value, labels) to what the value means, in a form that can be compared.
        agree: Whether two meanings may both be true of the same inputs.
        shown: A value as messages show it.
        classes: (values, labels) to the classes that a split has to keep; None where the values
            are not classes.
        read_labels: Reads values and the names of the labels off the column or columns of a
            source; None where the values have no labels.
    """

    meaning: Callable[[Any, Labels | None], Hashable]
    agree: Callable[[Hashable, Hashable], bool] = operator.eq
    shown: Callable[[Any], Any] = lambda value: value
    classes: Callable[[list, Labels], Classes] | None = None
    read_labels: Callable[[dict[str, list], KnownLabels], tuple[list, Labels]] | None = None


@dataclass(frozen=True)
class Column:
    """A column that examples may have.

    Attributes:
        name: Its name in `Examples.columns`, which is also the argument of the sources.
        values: What its values are, in the plural, for messages and help texts.
        check: (values, name, examples) to the values in their canonical form. Raises a `DataError`
            or `DataTypeError` if a value is wrong.
        identity: A value to what is equal for values that count as the same, by which copies of a
            row are found; None if the column plays no part in that.
        target: How the ground truth is understood; None for a column of inputs.
        replaces: The columns of `TEXT_COLUMNS` that a source does not read if it reads this one.
        joins_texts: Whether texts that the user names are read beside it, in spite of `replaces`.
        needs_labels: Whether the check needs the names of the labels.
        in_folder: (value, folder) to a value whose relative paths are relative to a folder; None
            where values have no paths.
        stays_together: Whether a split keeps rows with the same value in one part even if their
            other values differ: a model that has learned an image knows it under another caption.
        is_option_of_predict: Whether a value can be typed as an option of `finetune-tf predict`.
        synonyms: What the column is called elsewhere, separated by spaces. An unknown argument of
            one of these names is answered with the right name.
    """

    name: str
    values: str
    check: Callable[[list, str, CheckedRows], list]
    identity: Callable[[Any], Hashable] | None = None
    target: Target | None = None
    replaces: tuple[str, ...] = ()
    joins_texts: bool = False
    needs_labels: bool = False
    in_folder: Callable[[Any, Path], Any] | None = None
    stays_together: bool = False
    is_option_of_predict: bool = False
    synonyms: str = ""


def normalized(text: str | list[str]) -> str:
    """A text, or a list of words, without what does not make it a different text.

    Texts count as equal when they differ in upper and lower case, white space or Unicode
    compatibility forms (NFKC) only.

    Example:
        >>> from finetune_tf.data.columns import normalized
        >>> normalized("A  Good film") == normalized(["a", "good", "FILM"])
        True
    """
    text = text if isinstance(text, str) else " ".join(text)
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.casefold().split())


def _check_label(values: list, column: str, rows: CheckedRows) -> list:
    if rows.labels is None:
        raise DataError(
            f"{rows.name} has a column {column!r} but no labels= that name them. Build it with "
            "from_arrays(text, label), which reads them off."
        )
    check_labels(values, rows.labels, rows.name, rows.places)
    return values


def _label_meaning(value: Any, labels: Labels | None) -> Hashable:
    """The number of a label, or of each in a list; a score itself."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_label_meaning(item, labels) for item in value)
    if isinstance(value, float):
        return value
    number = None if labels is None else labels.index_of(value)
    return label_text(value) if number is None else number


def _label_classes(values: list, labels: Labels) -> Classes:
    if labels.problem_type == "regression":
        return [""] * len(values), [()] * len(values)
    if labels.problem_type == "single_label_classification":
        names = {value: (labels[labels.index_of(value)],) for value in set(values)}
        return [names[value][0] for value in values], [names[value] for value in values]
    rows = [[labels[labels.index_of(value)] for value in row] for row in values]
    return list(map(str, rows)), rows


def _tag_classes(values: list, labels: Labels) -> Classes:
    return [""] * len(values), [set(map(label_text, row)) for row in values]


def _accepted(answers: Mapping[str, list], labels: Labels | None) -> Hashable:
    return frozenset(map(normalized, answers["text"]))


def _references(value: str | list[str], labels: Labels | None) -> Hashable:
    return frozenset(map(normalized, references_of(value)))


def _share_an_answer(one: frozenset, other: frozenset) -> bool:
    """Accepted answers only contradict each other if they have none in common."""
    return one == other or not one.isdisjoint(other)


#: Every column by its name, in the order in which columns are checked.
COLUMNS: dict[str, Column] = {
    column.name: column
    for column in (
        Column("text", "texts", check_texts, normalized),
        Column("text_pair", "texts", check_texts, normalized),
        Column(
            "label",
            "labels",
            _check_label,
            target=Target(_label_meaning, classes=_label_classes, read_labels=labels_of_texts),
            needs_labels=True,
        ),
        Column(
            "tokens",
            "lists of words",
            check_words,
            normalized,
            replaces=TEXT_COLUMNS,
            synonyms="words word tokens_column",
        ),
        Column(
            "tags",
            "lists of labels, one for each word",
            check_tags,
            target=Target(_label_meaning, classes=_tag_classes, read_labels=tags_of_words),
            replaces=TEXT_COLUMNS,
            synonyms="ner_tags pos_tags tag labels_per_word",
        ),
        Column(
            "prompt",
            "texts to continue",
            check_texts,
            normalized,
            replaces=TEXT_COLUMNS,
            synonyms="prompts instruction",
        ),
        Column(
            "completion",
            "texts that follow the prompts",
            check_texts,
            # A prompt may have many completions, none of which contradicts the others.
            target=Target(lambda value, labels: normalized(value), agree=lambda one, two: True),
            replaces=TEXT_COLUMNS,
            synonyms="completions response output",
        ),
        Column(
            "source",
            "texts to rewrite",
            check_texts,
            normalized,
            replaces=TEXT_COLUMNS,
            synonyms="sources src source_text input_text document article dialogue dialog",
        ),
        Column(
            "target",
            "texts that the sources become",
            check_targets,
            # A text has many translations and summaries, none of which contradicts the others.
            target=Target(_references, agree=lambda one, two: True),
            replaces=TEXT_COLUMNS,
            synonyms="targets tgt target_text summary highlights translation reference references",
        ),
        Column(
            "messages",
            "conversations",
            check_conversations,
            conversation_key,
            replaces=TEXT_COLUMNS,
            synonyms="conversations conversation chat dialog dialogue",
        ),
        Column(
            "question",
            "questions",
            check_texts,
            normalized,
            replaces=TEXT_COLUMNS,
            is_option_of_predict=True,
            synonyms="questions query",
        ),
        Column(
            "context",
            "texts that contain the answers",
            check_texts,
            normalized,
            replaces=TEXT_COLUMNS,
            is_option_of_predict=True,
            synonyms="contexts passage passages paragraph",
        ),
        Column(
            "answers",
            "answers, as in SQuAD",
            check_answers,
            target=Target(_accepted, agree=_share_an_answer, shown=operator.itemgetter("text")),
            replaces=TEXT_COLUMNS,
            synonyms="answer",
        ),
        Column(
            "image",
            "images",
            check_images,
            image_key,
            replaces=("text", "text_pair"),
            joins_texts=True,
            in_folder=image_in_folder,
            stays_together=True,
            is_option_of_predict=True,
            synonyms="images picture pictures photo photos img image_path image_file pixel_values",
        ),
        Column(
            "video",
            "videos",
            check_videos,
            video_key,
            replaces=("text", "text_pair"),
            in_folder=video_in_folder,
            stays_together=True,
            is_option_of_predict=True,
            synonyms="videos clip clips video_path video_file",
        ),
    )
}


def synonyms_of_other_columns() -> dict[str, str]:
    """The columns besides `TEXT_COLUMNS`, which sources take by name, with their synonyms."""
    return {name: c.synonyms for name, c in COLUMNS.items() if name not in TEXT_COLUMNS}


def values_of(column: str) -> str:
    """What the values of a column are, for messages; also of a column that is in no row."""
    return COLUMNS[column].values if column in COLUMNS else "values"
