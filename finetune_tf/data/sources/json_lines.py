"""Examples from JSON Lines files and from JSON arrays of objects."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finetune_tf.base.labels import ProblemType
from finetune_tf.base.spelling import names_checked
from finetune_tf.data.checks import invalid_rows
from finetune_tf.data.columns import synonyms_of_other_columns
from finetune_tf.data.examples import Examples
from finetune_tf.data.places import Places, shortened
from finetune_tf.data.sources.building import (
    GivenLabels,
    LabelColumns,
    OnInvalid,
    Wanted,
    build_examples,
)
from finetune_tf.data.sources.dropping import Dropped
from finetune_tf.data.sources.text_files import as_path, read_text
from finetune_tf.errors import DataError


@names_checked(also=synonyms_of_other_columns)
def from_jsonl(
    path: str | Path,
    text: str | None = None,
    text_pair: str | None = None,
    label: LabelColumns | None = "label",
    labels: GivenLabels | None = None,
    problem_type: ProblemType | None = None,
    encoding: str = "utf-8",
    on_invalid: OnInvalid = "raise",
    **columns: str,
) -> Examples:
    """Reads JSON Lines, with one object on each line, or a JSON array of objects.

    A path with dots names a key within another object: `text="review.body"` is the key "body" of
    the object at "review" (unless there is a key "review.body"), and "answers.0.text" goes through
    the first item of a list.

    Args:
        path: The file; a gzip file is unpacked.
        text: Key of the texts.
        text_pair: Key of the second texts.
        label: Key of the labels; or several keys of 0 and 1, one for each label; or None.
        labels: Names of the labels in the order of their numbers; by default they are inferred.
        problem_type: As in Hugging Face configs; by default it is inferred from the column.
        encoding: Encoding of the file. A byte order mark is skipped.
        on_invalid: What to do about lines that are not JSON objects, or in which a text or label
            is missing or wrong: "raise" an error that names them, or "drop" them and say how many
            there are.
        **columns: Other columns by their names in `data.columns.COLUMNS`, where further columns can
            be added: `image=` and `video=` (paths, relative to the folder of the file), `tokens=`
            and `tags=` (lists of words and of their labels), or `question=`, `context=` and
            `answers=`. These are read instead of the texts, and those with labels of their own
            instead of `label`.

    Raises:
        DataError: If the file is missing, empty, in another encoding or not JSON, a column
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
        advice = _advice_on_object(content) if not rows and array is None else ""
        dropped.refuse(
            invalid_rows(
                f"{path.name}, {unit} {number:,} {problem}. Each {unit} must be one complete JSON "
                f'object such as {{"text": "…", "label": "…"}}.{advice}',
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
        wanted=Wanted(
            text or "text", text_pair, label, columns, labels, problem_type, text is not None
        ),
        name=path.name,
        dropped=dropped,
        folder=path.parent,
        places=Places(numbers, unit, 1),
    )


def _array(content: str, name: str) -> list | None:
    """The items of a file that is a JSON array; None for a file with one value on each line."""
    if not content.lstrip().startswith("["):
        return None
    value = _parsed(content)
    if isinstance(value, list):
        return value
    # A file with a list on each line is not an array; its lines are refused one by one.
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
    """The JSON value, or the error that tells why the text is not JSON."""
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


def _advice_on_object(content: str) -> str:
    """Advice for a file that is a single JSON object over many lines; empty for other files."""
    value = _parsed(content)
    if not isinstance(value, dict):
        return ""
    lists = [key for key, rows in value.items() if isinstance(rows, list)]
    where = f" Its rows seem to stand at {lists[0]!r}: write that list to a file." if lists else ""
    return f" The file is one object over many lines.{where}"
