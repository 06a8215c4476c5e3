"""Examples from JSON Lines files and from JSON arrays of objects."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finetune_tf.base.labels import ProblemType
from finetune_tf.base.spelling import names_checked
from finetune_tf.data.checks import invalid_rows
from finetune_tf.data.examples import Examples
from finetune_tf.data.places import Places, shortened
from finetune_tf.data.sources.columns import (
    OTHER_COLUMNS,
    GivenLabels,
    LabelColumns,
    OnInvalid,
    build_examples,
)
from finetune_tf.data.sources.dropping import Dropped
from finetune_tf.data.sources.text_files import as_path, read_text
from finetune_tf.errors import DataError


@names_checked(also=OTHER_COLUMNS)
def from_jsonl(
    path: str | Path,
    text: str = "text",
    text_pair: str | None = None,
    label: LabelColumns | None = "label",
    labels: GivenLabels | None = None,
    problem_type: ProblemType | None = None,
    encoding: str = "utf-8",
    on_invalid: OnInvalid = "raise",
    **columns: str,
) -> Examples:
    """Reads JSON Lines, one object a line, or a JSON array of objects.

    Keys of objects within objects are named by their path: `text="review.body"` is the key "body"
    of the object at "review" (unless a key is called "review.body"), and "answers.0.text" goes
    through the first item of a list.

    Args:
        path: The file; a gzip file is unpacked.
        text: Key of the texts.
        text_pair: Key of the second texts.
        label: Key of the labels; several keys of 0 and 1, one a label; None without labels.
        labels: Names of the labels in the order of their numbers; by default read off the column.
        problem_type: As in Hugging Face configs; by default read off the column.
        encoding: Of the file. A byte order mark is skipped.
        on_invalid: What happens with rows that cannot be used, because a line is no JSON object
            or a text or label is missing or wrong: "raise" for an error that names their lines,
            "drop" to leave them out and say how many there are.
        **columns: Columns of tasks that are not about whole texts, instead of those above:
            `tokens=` and `tags=` (lists of words and of their labels), or `question=`, `context=`
            and `answers=`.

    Raises:
        DataError: If the file is missing, empty, in another encoding or no JSON, a column
            is missing, or a text or label is missing or wrong.
        UnknownArgumentError: If there is no such argument.
    """
    path = as_path(path)
    dropped = Dropped(path.name, on_invalid)
    content = read_text(path, encoding)
    array = _array(content, path.name)
    unit = "line" if array is None else "item"
    rows, numbers = [], []
    for number, row in _parsed_lines(content) if array is None else enumerate(array, start=1):
        problem = None
        if isinstance(row, ValueError | RecursionError):
            problem = f"is not JSON: {_syntax(row)}"
        elif not isinstance(row, dict):
            problem = f"is a JSON {type(row).__name__}, {shortened(row)}"
        if problem is None:
            rows.append(row)
            numbers.append(number)
            continue
        whole = _whole_object(content) if not rows and array is None else ""
        dropped.refuse(
            invalid_rows(
                f"{path.name}, {unit} {number:,} {problem}. Each {unit} must be one complete JSON "
                f'object such as {{"text": "…", "label": "…"}}.{whole}',
                [(len(rows), row)],
                "without a JSON object",
            ),
            [f"{unit} {number:,}"],
        )
    if not rows:
        raise DataError(f"{path.name} has no JSON objects: at least one example is needed.")
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
        dropped=dropped,
        places=Places(numbers, unit, 1),
    )


def _array(content: str, name: str) -> list | None:
    """The items of a file that is one JSON array; None for one that has a value a line."""
    if not content.lstrip().startswith("["):
        return None
    value = _parsed(content)
    if isinstance(value, list):
        return value
    # Lists line by line are no array, and are refused as such.
    first = _parsed(content.strip().partition("\n")[0])
    if isinstance(first, list) and "\n" in content.strip():
        return None
    raise DataError(
        f"{name} begins as a JSON array but is none: {_syntax(value)}. Get the file again, or "
        "write one object a line."
    )


def _parsed_lines(content: str) -> Iterator[tuple[int, Any]]:
    # Not splitlines(): a JSON text may contain the other line ends of Unicode.
    if "\n" not in content:
        content = content.replace("\r", "\n")
    for number, line in enumerate(content.split("\n"), start=1):
        if line.strip():
            yield number, _parsed(line)


def _parsed(text: str) -> Any:
    """A JSON value, or the error that says why it is none."""
    try:
        return json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:  # of syntax, of long numbers, of deep nesting
        return error


def _object(pairs: list[tuple[str, Any]]) -> dict:
    row = dict(pairs)
    if len(row) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(k for k in keys if keys.count(k) > 1)!r} stands twice")
    return row


def _syntax(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        line = f"line {error.lineno:,}, " if error.lineno > 1 else ""
        return f"{error.msg} at {line}character {error.colno}"
    return "its values are nested too deeply" if isinstance(error, RecursionError) else str(error)


def _whole_object(content: str) -> str:
    """What to do with a file that is one JSON object over many lines."""
    value = _parsed(content)
    if not isinstance(value, dict):
        return ""
    lists = [key for key, rows in value.items() if isinstance(rows, list)]
    where = f" Its rows seem to stand at {lists[0]!r}: write that list to a file." if lists else ""
    return f" The file is one object over many lines.{where}"
