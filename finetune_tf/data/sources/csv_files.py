"""Examples from CSV and TSV files."""

import contextlib
import csv
import io
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finetune_tf.base.labels import ProblemType
from finetune_tf.base.spelling import names_checked
from finetune_tf.data.checks import invalid_rows
from finetune_tf.data.columns import synonyms_of_other_columns
from finetune_tf.data.examples import Examples
from finetune_tf.data.places import Places, counted, shortened
from finetune_tf.data.sources.building import (
    GivenLabels,
    LabelColumns,
    OnInvalid,
    Wanted,
    build_examples,
)
from finetune_tf.data.sources.dropping import Dropped
from finetune_tf.data.sources.text_files import as_path, read_text, suffix_of
from finetune_tf.errors import DataError
from finetune_tf.messages import warn

# Characters of a field. Complete documents exceed Python's own limit of 131,072.
_LONGEST = 2**31 - 1
_limit = threading.Lock()  # the limit is a setting of the process


@names_checked(also=synonyms_of_other_columns)
def from_csv(
    path: str | Path,
    text: str | None = None,
    text_pair: str | None = None,
    label: LabelColumns | None = "label",
    labels: GivenLabels | None = None,
    problem_type: ProblemType | None = None,
    delimiter: str | None = None,
    encoding: str = "utf-8",
    quotechar: str | None = None,
    on_invalid: OnInvalid = "raise",
    **columns: str,
) -> Examples:
    """Reads a CSV or TSV file whose first row names the columns.

    Args:
        path: The file; a gzip file is unpacked.
        text: Column of the texts.
        text_pair: Column of the second texts.
        label: Column of the labels; or several columns of 0 and 1, one for each label; or None.
        labels: Names of the labels in the order of their numbers; by default they are inferred.
        problem_type: As in Hugging Face configs; by default it is inferred from the column. Scores
            that are whole numbers need "regression" here; otherwise they are taken for classes.
        delimiter: The character between columns; by default a tab in .tsv files, and otherwise
            whichever of comma, semicolon, tab and bar separates the header.
        encoding: Encoding of the file. A byte order mark is skipped.
        quotechar: The character around texts that contain a delimiter; by default '"', and none if
            tabs separate the columns, because such files usually quote nothing.
        on_invalid: What to do about rows in which a text or label is missing or wrong, or that
            have too many or too few values: "raise" an error that names their lines, or "drop"
            them and say how many there are.
        **columns: Other columns by their names in `data.columns.COLUMNS`, where further columns can
            be added: `image=` and `video=` (paths, relative to the folder of the file), `tokens=`
            and `tags=` (lists of words and of their labels), or `question=`, `context=` and
            `answers=`. These are read instead of the texts, and those with labels of their own
            instead of `label`.

    Raises:
        DataError: If the file is missing, empty, in another encoding or ragged, a column is
            missing, or a text or label is missing or wrong.
        UnknownArgumentError: If there is no such argument.
    """
    path = as_path(path)
    wanted = Wanted(
        text or "text", text_pair, label, columns, labels, problem_type, text is not None
    )
    dropped = Dropped(path.name, on_invalid)
    for argument, character in {"delimiter": delimiter, "quotechar": quotechar or None}.items():
        _check_character(argument, character)
    content = read_text(path, encoding)
    if delimiter is None:
        is_tsv = suffix_of(path) in (".tsv", ".tab")
        names = [column for _, column in wanted.arguments]
        delimiter = "\t" if is_tsv else _infer_delimiter(content, names)
    takes_quotes_as_text = quotechar is None and delimiter == "\t"
    if quotechar is None and not takes_quotes_as_text:
        quotechar = '"'
    if delimiter == quotechar:
        raise DataError(f"delimiter and quotechar are both {delimiter!r}; one of them is wrong.")
    header, rows, lines = _parse(content, delimiter, quotechar or None, path.name, dropped)
    if takes_quotes_as_text:
        _warn_of_quotes(rows, lines, path.name)
    values = dict(zip(header, zip(*rows, strict=True), strict=False))
    return build_examples(
        available=header,
        read=values.__getitem__,
        wanted=wanted,
        name=path.name,
        dropped=dropped,
        folder=path.parent,
        places=Places(lines, "line", 1),
    )


def _check_character(argument: str, character: str | None) -> None:
    if character is None:
        return
    if not isinstance(character, str) or len(character) != 1 or character in "\r\n\0":
        raise DataError(
            f"{argument}= is one character, such as {',' if argument == 'delimiter' else chr(34)!r}"
            f", found {character!r}. Files with more of them between columns are read by "
            "pandas.read_csv(path, sep=…, engine='python') and ft.data.from_pandas."
        )


def _warn_of_quotes(rows: list[list[str]], lines: list[int], name: str) -> None:
    """Warns about values that were written with quotes around them, and read with these."""
    found = [
        (line, value)
        for line, row in zip(lines, rows, strict=True)
        for value in row
        if value[:1] == value[-1:] == '"' and '""' in value[1:-1]
        if '"' not in value[1:-1].replace('""', "")
    ]
    if found:
        line, value = found[0]
        warn(
            f"{name}: {counted(len(found), 'value stands', 'values stand')} in quotes with doubled "
            f"quotes inside, such as {shortened(value)} in line {line:,}. Quotes are read as "
            "they are, because files with tabs usually quote nothing. Pass quotechar='\"' if a "
            "program has added these quotes, and quotechar='' if they belong to the texts."
        )


@contextlib.contextmanager
def _fields_of_any_length() -> Iterator[None]:
    with _limit:
        before = csv.field_size_limit(_LONGEST)
        try:
            yield
        finally:
            csv.field_size_limit(before)


def _infer_delimiter(content: str, names: list[Any]) -> str:
    """The delimiter by which the header has most of these names, or else most columns."""
    first_line = re.split(r"[\r\n]", content.lstrip(), maxsplit=1)[0]

    def found(delimiter: str) -> tuple[int, int]:
        header = next(csv.reader([first_line], delimiter=delimiter))
        return sum(name in header for name in names), len(header)

    with _fields_of_any_length():
        return max(",;\t|", key=found)


def _parse(
    content: str, delimiter: str, quotechar: str | None, name: str, dropped: Dropped
) -> tuple[list[str], list[list[str]], list[int]]:
    """Returns the header, the rows, and the line on which each row begins."""
    reader = csv.reader(
        io.StringIO(content, newline=""),
        delimiter=delimiter,
        quotechar=quotechar,
        quoting=csv.QUOTE_MINIMAL if quotechar else csv.QUOTE_NONE,
        strict=True,
    )
    header: list[str] = []
    rows: list[list[str]] = []
    lines: list[int] = []
    ended = 0
    with _fields_of_any_length():
        try:
            for row in reader:
                begun, ended = ended + 1, reader.line_num
                if not row:
                    continue
                if not header:
                    header = row
                elif len(row) == len(header):
                    rows.append(row)
                    lines.append(begun)
                else:
                    dropped.refuse(
                        invalid_rows(
                            f"{name}, line {begun:,}: found {len(row)} values where the header "
                            f"has {len(header)} columns. Texts that contain a {delimiter!r} or a "
                            "line end must be in quotes (quotechar='\"').",
                            [(len(rows), row)],
                            "with another number of values than columns",
                        ),
                        [f"line {begun:,}"],
                    )
        except csv.Error as error:
            raise DataError(
                f"{name}, line {reader.line_num:,}: {error}. Check the quotes from line "
                f"{ended + 1:,} on, or pass delimiter= and quotechar= as the file has them."
            ) from None
    if not rows:
        found = "no rows that can be used" if dropped.count else "no rows"
        raise DataError(f"{name} has a header but {found}: at least one example is needed.")
    return header, rows, lines
