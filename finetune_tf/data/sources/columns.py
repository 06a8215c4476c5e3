"""The way from a source's columns to `Examples`, shared by all sources."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from finetune_tf.base.labels import Labels, ProblemType
from finetune_tf.data.checks import check_columns, list_of
from finetune_tf.data.copies import contradictions, target_of
from finetune_tf.data.examples import Examples
from finetune_tf.data.places import Places, counted, shortened
from finetune_tf.data.sources.dropping import Dropped
from finetune_tf.data.sources.label_inference import infer_labels, infer_tags
from finetune_tf.data.sources.label_lists import labels_of_columns
from finetune_tf.data.sources.label_values import class_name, plain
from finetune_tf.data.sources.paths import Column, column_at
from finetune_tf.errors import DataError
from finetune_tf.messages import say

#: Columns of tasks that are not about whole texts, with what each row of them holds.
OTHER_COLUMNS = {
    "tokens": "a list of words",
    "tags": "a list of labels, one a word",
    "question": "a text",
    "context": "a text",
    "answers": "the texts that answer and where they start, as in SQuAD",
}

LabelColumns = str | Sequence[str]
GivenLabels = Labels | int | Iterable[object]
OnInvalid = Literal["raise", "drop"]


def build_examples(
    available: Iterable[Any],
    read: Callable[[str], Sequence[Any]],
    text: str,
    text_pair: str | None,
    label: LabelColumns | None,
    labels: GivenLabels | None,
    problem_type: ProblemType | None,
    name: str,
    class_names: Sequence[str] | None = None,
    more: Mapping[str, str] | None = None,
    dropped: Dropped | None = None,
    places: Places | None = None,
) -> Examples:
    """Reads the wanted columns of a source and gives them their canonical names.

    Args:
        available: All columns of the source.
        read: Gives the values of one column.
        text: Column of the texts.
        text_pair: Column of the second texts.
        label: Column of the labels, several columns of 0 and 1, or None.
        labels: What the labels are called, when it should not be inferred.
        problem_type: What kind of problem it is, when it should not be inferred.
        name: What messages call the source.
        class_names: What the source itself calls its class numbers 0, 1, ….
        more: Columns of tasks that are not about whole texts, by their canonical names; given
            any, the arguments about texts and labels are not read.
        dropped: Decides about rows that cannot be used; by default they are an error.
        places: Where the rows stand in the source; by default they are counted from 0.

    Raises:
        DataError: If a column is missing, or its values are wrong.
    """
    dropped = dropped or Dropped(name)
    if isinstance(labels, Iterator):
        labels = list(labels)
    of_labels = label_columns(label)
    wanted = wanted_columns(text, text_pair, label, more)
    available = [str(column) for column in available]
    found = [column_at(argument, column, available, name) for argument, column in wanted]
    raw = [_values(column, read, available, name) for column in found]
    check_columns(dict(zip(map(str, range(len(raw))), raw, strict=True)), name)
    if places is None:
        places = Places(range(len(raw[0])))

    def make(raw: list[list], places: Places) -> Examples:
        texts = len(wanted) - len(of_labels)
        if dropped.drops:
            # First, so that what is said about labels is said once, of the rows that remain.
            first = found if more else found[:texts]
            inputs = {c.argument: values for c, values in zip(first, raw, strict=False)}
            Examples(inputs, None, name, places)
        if more:
            columns = {column.argument: values for column, values in zip(found, raw, strict=True)}
            named = labels and Labels.of(labels)
            if "tags" in columns:
                columns["tags"], named = infer_tags(
                    columns["tags"], name, labels, class_names, places
                )
            return Examples(columns, named, name, places)
        columns = dict(zip(("text", "text_pair"), raw[:texts], strict=False))
        if not of_labels:
            return Examples(columns, None if labels is None else Labels.of(labels), name, places)
        values, given, kind = raw[texts:], labels, problem_type
        if not isinstance(label, list | tuple):
            values = values[0]
        else:
            named = dict(zip(of_labels, values, strict=True))
            values = labels_of_columns(named, name, places)
            given = of_labels if labels is None else labels
            kind = problem_type or "multi_label_classification"
        if class_names and kind != "regression":
            values = [class_name(value, class_names) for value in values]
            given = class_names if given is None else given
        columns["label"], given = infer_labels(
            values, ", ".join(of_labels), name, given, kind, places
        )
        return Examples(columns, given, name, places)

    examples = dropped.without_invalid(make, raw, places)
    _say_contradictions(examples)
    return examples


def label_columns(label: LabelColumns | None) -> list[Any]:
    """The argument `label` as a list of columns; empty without labels."""
    if isinstance(label, list | tuple):
        return list(label)
    return [] if label is None or label == "" else [label]


def wanted_columns(
    text: str | None,
    text_pair: str | None,
    label: LabelColumns | None,
    more: Mapping[str, str] | None,
) -> list[tuple[str, Any]]:
    """Argument and column of all that is read; see `build_examples`."""
    if more:
        return list(more.items())
    pairs = [("text_pair", text_pair)] if text_pair else []
    return [("text", text), *pairs, *(("label", column) for column in label_columns(label))]


def _values(column: Column, read: Callable, available: list[str], name: str) -> list:
    """The values of a column as a list; words of data frames, which are arrays, too."""
    if available.count(column.base) > 1:
        raise DataError(f"{name} has columns of the same name: {[column.base]}. Rename them.")
    values = list_of(read(column.base), column.argument)
    if column.path:
        values = column.inside(values, name)
    return [plain(value) for value in values] if column.argument == "tokens" else values


def _say_contradictions(examples: Examples) -> None:
    found = contradictions(examples)
    if not found:
        return
    first, target = found[0], target_of(examples.columns)
    texts = next(iter(examples.columns.values()))
    rows = sum(map(len, found))
    told = ", ".join(
        f"{shortened(_plainly(examples.columns[target][row]))} in {examples.places.name(row)}"
        for row in _different(first, examples.columns[target])
    )
    say(
        f"{examples.name}: {counted(len(found), 'text stands', 'texts stand')} there with "
        f"different labels ({rows:,} rows), for example {shortened(texts[first[0]])}: {told}. "
        "A model cannot learn both: correct them, or keep one row of each."
    )


def _plainly(target: Any) -> Any:
    """A target as it is told: of answers their texts alone."""
    return target["text"] if isinstance(target, Mapping) else target


def _different(rows: list[int], values: list) -> list[int]:
    """The first of the rows, and the first with another value."""
    return [rows[0], next(row for row in rows if str(values[row]) != str(values[rows[0]]))]
