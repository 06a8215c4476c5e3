"""Examples from text files: CSV, TSV and JSON Lines."""

import csv
import io
import json
import sys
from pathlib import Path

from finetune_tf.data.building import GivenLabels, LabelColumns, build_examples
from finetune_tf.data.examples import Examples
from finetune_tf.errors import DataError
from finetune_tf.labels import ProblemType


def from_csv(
    path: str | Path,
    text: str = "text",
    text_pair: str | None = None,
    label: LabelColumns | None = "label",
    labels: GivenLabels | None = None,
    problem_type: ProblemType | None = None,
    delimiter: str | None = None,
    encoding: str = "utf-8",
    quotechar: str | None = None,
    **columns: str,
) -> Examples:
    """Reads a CSV or TSV file whose first row names the columns.

    Args:
        path: The file.
        text: Column of the texts.
        text_pair: Column of the second texts.
        label: Column of the labels; several columns of 0 and 1, one a label; None without labels.
        labels: Names of the labels in the order of their numbers; by default read off the column.
        problem_type: As in Hugging Face configs; by default read off the column. Scores that are
            whole numbers need "regression" here, or else count as classes.
        delimiter: What stands between columns; by default a tab in .tsv files, else the one of
            comma, semicolon, tab and bar that the header shows.
        encoding: Of the file. A byte order mark is skipped.
        quotechar: What encloses texts with a delimiter inside; by default '"', and nothing
            between tabs, where texts usually stand as they are.
        **columns: Columns of tasks that are not about whole texts, instead of those above:
            `tokens=` and `tags=` (lists of words and of their labels), or `question=`, `context=`
            and `answers=`.

    Raises:
        DataError: If the file is missing, empty, in another encoding or ragged, a column is
            missing, or a text or label is missing or wrong.
    """
    path = Path(path)
    content = _read(path, encoding)
    label_columns = [label] if isinstance(label, str) else list(label or ())
    if delimiter is None:
        wanted = {text, text_pair, *label_columns}
        delimiter = "\t" if path.suffix.lower() in (".tsv", ".tab") else _sniff(content, wanted)
    if quotechar is None and delimiter != "\t":
        quotechar = '"'
    header, rows = _parse_csv(content, delimiter, quotechar, path)
    return build_examples(
        available=header,
        read=dict(zip(header, zip(*rows, strict=True), strict=True)).__getitem__,
        text=text,
        text_pair=text_pair,
        label=label,
        labels=labels,
        problem_type=problem_type,
        name=path.name,
        more=columns,
    )


def from_jsonl(
    path: str | Path,
    text: str = "text",
    text_pair: str | None = None,
    label: LabelColumns | None = "label",
    labels: GivenLabels | None = None,
    problem_type: ProblemType | None = None,
    encoding: str = "utf-8",
    **columns: str,
) -> Examples:
    """Reads a JSON Lines file: one JSON object a line, with the columns as keys.

    Args:
        path: The file.
        text: Key of the texts.
        text_pair: Key of the second texts.
        label: Key of the labels; several keys of 0 and 1, one a label; None without labels.
        labels: Names of the labels in the order of their numbers; by default read off the column.
        problem_type: As in Hugging Face configs; by default read off the column.
        encoding: Of the file. A byte order mark is skipped.
        **columns: Columns of tasks that are not about whole texts, instead of those above:
            `tokens=` and `tags=` (lists of words and of their labels), or `question=`, `context=`
            and `answers=`.

    Raises:
        DataError: If the file is missing, empty, in another encoding or no JSON Lines, a column
            is missing, or a text or label is missing or wrong.
    """
    path = Path(path)
    rows = []
    # Not splitlines(): a JSON text may contain the other line ends of Unicode.
    for number, line in enumerate(_read(path, encoding).split("\n"), start=1):
        if line.strip():
            rows.append(_parse_json(line, number, path))
    return build_examples(
        available=dict.fromkeys(key for row in rows for key in row),
        read=lambda column: [row.get(column) for row in rows],
        text=text,
        text_pair=text_pair,
        label=label,
        labels=labels,
        problem_type=problem_type,
        name=path.name,
        more=columns,
    )


def _read(path: Path, encoding: str) -> str:
    if not path.is_file():
        raise DataError(f"There is no file {path}. Check the path and the working directory.")
    content = path.read_bytes()
    try:
        decoded = content.decode(encoding)
    except LookupError:
        raise DataError(f"Unknown encoding {encoding!r}; try 'utf-8' or 'cp1252'.") from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path.name} is not {encoding}: byte 0x{content[error.start]:02x} at offset "
            f"{error.start:,} (line {line:,}) does not fit. Say which encoding it has, for "
            "example encoding='cp1252', 'latin-1' or 'utf-16'."
        ) from None
    decoded = decoded.removeprefix("\ufeff")
    if not decoded.strip():
        raise DataError(f"{path.name} is empty: at least one example is needed.")
    return decoded


def _sniff(content: str, wanted: set[str | None]) -> str:
    """The delimiter that finds most of the wanted columns in the header, else most columns."""
    first_line = content.lstrip().partition("\n")[0].rstrip("\r")

    def found(delimiter: str) -> tuple[int, int]:
        header = next(csv.reader([first_line], delimiter=delimiter))
        return len(wanted.intersection(header)), len(header)

    return max(",;\t|", key=found)


def _parse_csv(
    content: str, delimiter: str, quotechar: str | None, path: Path
) -> tuple[list[str], list[list[str]]]:
    reader = csv.reader(
        io.StringIO(content, newline=""),
        delimiter=delimiter,
        quotechar=quotechar,
        quoting=csv.QUOTE_MINIMAL if quotechar else csv.QUOTE_NONE,
        strict=True,
    )
    rows: list[list[str]] = []
    # Python's limit of 131,072 characters a field is met by whole documents.
    limit = csv.field_size_limit(sys.maxsize)
    try:
        for row in reader:
            if row and rows and len(row) != len(rows[0]):
                raise DataError(
                    f"{path.name}, line {reader.line_num:,}: found {len(row)} values where the "
                    f"header has {len(rows[0])} columns. Texts that contain a {delimiter!r} or "
                    "a line end must stand in quotes (quotechar='\"')."
                )
            if row:
                rows.append(row)
    except csv.Error as error:
        raise DataError(
            f"{path.name}, line {reader.line_num:,}: {error}. Check the quotes before it, or "
            "pass delimiter= and quotechar= as the file has them."
        ) from None
    finally:
        csv.field_size_limit(limit)
    header = rows.pop(0)
    repeated = sorted({column for column in header if header.count(column) > 1})
    if repeated:
        raise DataError(f"{path.name} has columns of the same name: {repeated}. Rename them.")
    if not rows:
        raise DataError(f"{path.name} has a header but no rows: at least one example is needed.")
    return header, rows


def _parse_json(line: str, number: int, path: Path) -> dict:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path.name}, line {number:,} is not JSON: {error.msg} at character {error.colno}. "
            "Each line must be one complete JSON object."
        ) from None
    if not isinstance(row, dict):
        raise DataError(
            f"{path.name}, line {number:,} is a JSON {type(row).__name__}; each line must be an "
            'object such as {"text": "…", "label": "…"}.'
        )
    return row
