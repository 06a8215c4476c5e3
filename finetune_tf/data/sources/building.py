"""From the columns of a source to `Examples`; every source uses this."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from finetune_tf.base.labels import Labels, ProblemType
from finetune_tf.data.checks import check_columns, check_texts, list_of
from finetune_tf.data.columns import COLUMNS, values_of
from finetune_tf.data.copies import contradictions, target_of
from finetune_tf.data.examples import Examples
from finetune_tf.data.image_columns import shown_image
from finetune_tf.data.places import Places, counted, shortened
from finetune_tf.data.sources.dropping import Dropped
from finetune_tf.data.sources.label_inference import KnownLabels
from finetune_tf.data.sources.label_values import plain
from finetune_tf.data.sources.paths import ColumnPath, column_at
from finetune_tf.errors import DataError
from finetune_tf.messages import say

LabelColumns = str | Sequence[str]
GivenLabels = Labels | int | Iterable[object]
OnInvalid = Literal["raise", "drop"]
_PERHAPS_MISSING = ("nan", "<NA>")  # as texts; for labels see `label_checks`


@dataclass
class Wanted:
    """The columns of a source that a user asks for, and what is known of their labels.

    Attributes:
        text: Column of the texts.
        text_pair: Column of the second texts.
        label: Column of the labels, several columns of 0 and 1, or None.
        others: Further columns of the source by their names in `data.columns.COLUMNS`.
        labels: The names of the labels; by default they are inferred.
        problem_type: The problem type; by default it is inferred.
        names_text: Whether the user has named the column of the texts, which is then read beside
            images as well.
    """

    text: str | None
    text_pair: str | None
    label: LabelColumns | None
    others: Mapping[str, str]
    labels: GivenLabels | None = None
    problem_type: ProblemType | None = None
    names_text: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.labels, Iterator):
            self.labels = list(self.labels)

    @property
    def has_label_list(self) -> bool:
        """Whether the labels are several columns of 0 and 1."""
        return isinstance(self.label, list | tuple)

    @property
    def arguments(self) -> list[tuple[str, Any]]:
        """Each name in `COLUMNS` that is read, with the column of the source that holds it.

        With several columns of labels, "label" occurs once for each. A column among `others` may
        replace those about whole texts, which are not read then. Labels come after the inputs.
        """
        texts = [("text", self.text)]
        if self.text_pair:
            texts.append(("text_pair", self.text_pair))
        labels = []
        if self.has_label_list:
            labels = [("label", column) for column in self.label]
        elif self.label not in (None, ""):
            labels = [("label", self.label)]
        found = [*texts, *self.others.items(), *labels]
        return [pair for pair in found if pair[0] in self.others or self.reads(pair[0])]

    def reads(self, column: str) -> bool:
        """Whether a column about whole texts is not replaced by another one."""
        replacing = [name for name in self.others if column in COLUMNS[name].replaces]
        if self.names_text and all(COLUMNS[name].joins_texts for name in replacing):
            return True
        return not replacing

    @property
    def label_column(self) -> Any:
        """The only column of the source that holds labels; None if there is no such column."""
        if self.has_label_list and self.reads("label"):
            return None
        targets = {name: column for name, column in self.arguments if COLUMNS[name].target}
        found = [c for name, c in targets.items() if COLUMNS[name].target.read_labels]
        return found[0] if len(found) == 1 else None


def build_examples(
    available: Iterable[Any],
    read: Callable[[str], Sequence[Any]],
    wanted: Wanted,
    name: str,
    class_names: Sequence[str] | None = None,
    dropped: Dropped | None = None,
    places: Places | None = None,
    folder: Path | None = None,
) -> Examples:
    """Reads the wanted columns of a source and gives them their names in `COLUMNS`.

    Args:
        available: All columns of the source.
        read: Returns the values of one column.
        wanted: The columns to read.
        name: Name of the source in messages.
        class_names: What the source itself calls its class numbers 0, 1, ….
        dropped: Decides about rows that cannot be used; by default they are an error.
        places: Where the rows are in the source; by default they are counted from 0.
        folder: The folder of a source that is a file. Relative paths in it are relative to that
            folder; those in other sources are relative to the current folder.

    Raises:
        DataError: If a column is missing, or its values are wrong.
    """
    dropped = dropped or Dropped(name)
    available = [str(column) for column in available]
    found = [column_at(argument, column, available, name) for argument, column in wanted.arguments]
    raw = [_values(column, read, available, name, folder) for column in found]
    check_columns(dict(zip(map(str, range(len(raw))), raw, strict=True)), name)
    if places is None:
        places = Places(range(len(raw[0])))

    def make(raw: list[list], places: Places) -> Examples:
        by_argument: dict[str, dict[str, list]] = {}
        for column, values in zip(found, raw, strict=True):
            by_argument.setdefault(column.argument, {})[column.name] = values
        if dropped.drops:
            # Wrong inputs are found first, so that messages about labels are written once, and
            # only about the rows that remain.
            inputs = {
                argument: next(iter(values.values()))
                for argument, values in by_argument.items()
                if not COLUMNS[argument].needs_labels
            }
            Examples(inputs, None, name, places)
        known = KnownLabels(
            name, places, wanted.labels, wanted.problem_type, class_names, wanted.has_label_list
        )
        columns: dict[str, list] = {}
        labels = None
        for argument, values in by_argument.items():
            target = COLUMNS[argument].target
            if target is not None and target.read_labels is not None:
                columns[argument], labels = target.read_labels(values, known)
            else:
                (columns[argument],) = values.values()
        if labels is None and wanted.labels is not None:
            labels = Labels.of(wanted.labels)
        return Examples(columns, labels, name, places)

    examples = dropped.without_invalid(make, raw, places)
    _say_missing(examples)
    _say_contradictions(examples)
    return examples


def _values(
    column: ColumnPath, read: Callable, available: list[str], name: str, folder: Path | None
) -> list:
    """The values of a column as a list of Python values, with paths that can be opened."""
    if available.count(column.base) > 1:
        raise DataError(f"{name} has columns of the same name: {[column.base]}. Rename them.")
    values = list_of(read(column.base), column.argument, values_of(column.argument))
    if column.path:
        values = column.inside(values, name)
    values = [value if isinstance(value, str) else plain(value) for value in values]
    in_folder = COLUMNS[column.argument].in_folder
    return values if folder is None or in_folder is None else [in_folder(v, folder) for v in values]


def _say_missing(examples: Examples) -> None:
    """Says which texts are probably missing values that a program has made a text of."""
    texts = [name for name in examples.columns if COLUMNS[name].check is check_texts]
    for column in texts:
        values = examples.columns[column]
        if rows := [row for row, value in enumerate(values) if value in _PERHAPS_MISSING]:
            number = counted(len(rows), "text is", "texts are")
            say(
                f"{examples.name}: {number} {values[rows[0]]!r} in the column {column!r}, which "
                f"str() makes of a missing value: {examples.places.names(rows)}. Remove such rows "
                "before they become texts: frame.dropna()."
            )


def _say_contradictions(examples: Examples) -> None:
    found = contradictions(examples)
    if not found:
        return
    first, target = found[0], target_of(examples.columns)
    values, shown = examples.columns[target], COLUMNS[target].target.shown
    column, inputs = next(iter(examples.columns.items()))
    one = column if column in ("image", "video") else "text"
    many = f"{one}s"
    shown_input = (shortened if one == "text" else shown_image)(inputs[first[0]])
    rows = sum(map(len, found))
    targets = ", ".join(
        f"{shortened(shown(values[row]))} in {examples.places.name(row)}"
        for row in _first_two_different(first, values)
    )
    say(
        f"{examples.name}: {counted(len(found), f'{one} stands', f'{many} stand')} there with "
        f"different labels ({rows:,} rows), for example {shown_input}: {targets}. "
        "A model cannot learn both: correct them, or keep one row of each."
    )


def _first_two_different(rows: list[int], values: list) -> list[int]:
    """The first of the rows, and the first one after it with another value."""
    return [rows[0], next(row for row in rows if str(values[row]) != str(values[rows[0]]))]
