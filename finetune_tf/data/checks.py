"""The checks of columns, which are the same for every source."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from finetune_tf.base.labels import Labels
from finetune_tf.data.places import Places, shortened
from finetune_tf.errors import DataError, DataTypeError
from finetune_tf.images import CheckedImages


class CheckedRows(Protocol):
    """The part of examples that the check of a column reads."""

    columns: dict[str, list]
    labels: Labels | None
    name: str
    places: Places


def is_missing(value: Any) -> bool:
    """Whether a value is missing: None, NaN, pandas' NA, or a blank text."""
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, float):
        return math.isnan(value)
    # By name, since pandas is no dependency and its NA cannot be compared.
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def offenders(values: Iterable[Any], is_wrong: Callable[[Any], bool]) -> list[tuple[int, Any]]:
    """Row number and value of each wrong value in a column."""
    return [(row, value) for row, value in enumerate(values) if is_wrong(value)]


def invalid_rows(
    message: str,
    wrong: Sequence[tuple[int, Any]],
    reason: str,
    error: type[DataError] | type[DataTypeError] = DataError,
) -> DataError | DataTypeError:
    """An error about single rows, which `on_invalid="drop"` leaves out.

    Args:
        message: What is wrong, and what to do.
        wrong: Row number and value of each.
        reason: What is wrong with these rows in few words, as in "2 rows with an empty text".
        error: Its class.
    """
    raised = error(message)
    raised.rows = [row for row, _ in wrong]
    raised.reason = reason
    return raised


def list_of(values: Any, argument: str, holds: str = "values") -> list:
    """The values of a column as a list.

    Args:
        values: A list, an array, a tensor or a column of a data frame.
        argument: The argument that it was given for.
        holds: What the values are, in the plural, for messages.

    Raises:
        DataTypeError: If it is no sequence of values.
    """
    if hasattr(values, "numpy") and not hasattr(values, "tolist"):
        values = values.numpy()
    if isinstance(values, CheckedImages):
        return values
    if isinstance(values, np.ndarray) and values.ndim > 2:  # images
        if values.ndim == 3 and values.shape[-1] in (1, 3, 4):
            raise DataTypeError(
                f"{argument}= takes a list of {holds}, found a single array of the shape "
                f"{values.shape}. Put it in a list."
            )
        return list(values)
    for method in ("tolist", "to_list", "to_pylist"):  # of NumPy and pandas, polars, pyarrow
        if hasattr(values, method):
            values = getattr(values, method)()
            break
    if isinstance(values, str):
        raise DataTypeError(
            f"{argument}= takes a list of {holds}, found the single text {values[:40]!r}. Put it "
            "in a list."
        )
    if isinstance(values, bytes | Mapping) or not isinstance(values, Iterable):
        raise DataTypeError(
            f"{argument}= takes a list with one value a row, found {shortened(values)}. Put a "
            "single value in a list."
        )
    return list(values)


def check_columns(columns: dict[str, list], name: str) -> None:
    """Checks that there are rows and that all columns have the same number of them.

    Raises:
        DataError: If there are no rows, or the columns differ in length.
    """
    lengths = {column: len(values) for column, values in columns.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{column} {length:,}" for column, length in lengths.items())
        raise DataError(f"The columns of {name} differ in length: {listed}. Each row needs all.")
    if not lengths or not next(iter(lengths.values())):
        raise DataError(f"{name} has no rows: at least one example is needed.")


def check_texts(values: list, column: str, rows: CheckedRows) -> list:
    """Checks that each value of a column is a text that is not blank.

    Args:
        values: One value for each row.
        column: Name of the column.
        rows: The examples.

    Returns:
        The same values.

    Raises:
        DataError: If a text is missing or blank, or contains half a surrogate pair.
        DataTypeError: If a value is not a text.
    """
    name, places = rows.name, rows.places
    suspects = [
        (row, value)
        for row, value in enumerate(values)
        if not isinstance(value, str) or not value.strip()
    ]
    no_text = [(row, value) for row, value in suspects if not is_missing(value)]
    if no_text:
        kind = type(no_text[0][1]).__name__
        raise invalid_rows(
            f"The column {column!r} of {name} must hold texts (str), found {kind}: "
            f"{places.listed(no_text)}. {_instead_of_text(no_text[0][1])}",
            no_text,
            "with something else than a text",
            DataTypeError,
        )
    if suspects:
        raise invalid_rows(
            f"The column {column!r} of {name} has empty texts: "
            f"{places.listed(suspects)}. Remove these rows or fill them in.",
            suspects,
            "with an empty text",
        )
    broken = [
        (row, text)
        for row, text in enumerate(values)
        if not text.isascii() and has_lone_surrogate(text)
    ]
    if broken:
        raise invalid_rows(
            f"The column {column!r} of {name} has texts with half a surrogate pair, which no "
            f"encoding can write: {places.listed(broken)}. An emoji was cut in two there; remove "
            "it: text.encode('utf-8', 'ignore').decode('utf-8').",
            broken,
            "with half a surrogate pair",
        )
    return values


def has_lone_surrogate(text: str) -> bool:
    """Whether a text holds half of a UTF-16 surrogate pair, such as a lone U+D83D."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def check_words(words: list, column: str, rows: CheckedRows) -> list:
    """Checks that each row is a list of words.

    Args:
        words: One list for each row.
        column: Name of the column.
        rows: The examples.

    Returns:
        The same values.

    Raises:
        DataError: If a row is empty or has an empty word.
        DataTypeError: If a row is not a list of texts.
    """
    name, places = rows.name, rows.places
    wrong = offenders(
        words,
        lambda row: not isinstance(row, list | tuple) or not all(isinstance(w, str) for w in row),
    )
    if wrong:
        raise invalid_rows(
            f"The column {column!r} of {name} must hold lists of words: found "
            f"{places.listed(wrong)}. Split texts into words first: text.split().",
            wrong,
            "without a list of words",
            DataTypeError,
        )
    empty = offenders(words, lambda row: not row or not all(word.strip() for word in row))
    if empty:
        raise invalid_rows(
            f"The column {column!r} of {name} has empty rows or words: "
            f"{places.listed(empty)}. Remove them.",
            empty,
            "with an empty word",
        )
    broken = offenders(
        words, lambda row: any(not word.isascii() and has_lone_surrogate(word) for word in row)
    )
    if broken:
        raise invalid_rows(
            f"The column {column!r} of {name} has words with half a surrogate pair, which no "
            f"encoding can write: {places.listed(broken)}. Remove it: "
            "word.encode('utf-8', 'ignore').decode('utf-8').",
            broken,
            "with half a surrogate pair",
        )
    return words


def check_tags(tags: list, column: str, rows: CheckedRows) -> list:
    """Checks that each row is a list with one tag for each of its words.

    Args:
        tags: One list for each row.
        column: Name of the column.
        rows: The examples, with their words.

    Returns:
        The same values.

    Raises:
        DataError: If a row has no list of tags, or another number of tags than words.
    """
    name, places, words = rows.name, rows.places, rows.columns.get("tokens")
    if words is None:
        return tags
    wrong = offenders(tags, lambda row: not isinstance(row, list | tuple | np.ndarray))
    if wrong:
        raise invalid_rows(
            f"The column {column!r} of {name} must hold lists of labels, one a word: found "
            f"{places.listed(wrong)}.",
            wrong,
            "without a list of tags",
        )
    uneven = [
        (row, some)
        for row, (some, theirs) in enumerate(zip(words, tags, strict=True))
        if len(some) != len(theirs)
    ]
    if uneven:
        row, some = uneven[0]
        more = f" So do {len(uneven) - 1:,} other rows." if len(uneven) > 1 else ""
        raise invalid_rows(
            f"{places.title(row)} of {name} has {len(some):,} words but "
            f"{len(tags[row]):,} tags; each word needs one. The words begin with "
            f"{list(some[:3])}.{more}",
            uneven,
            "with another number of tags than words",
        )
    return tags


def _instead_of_text(value: Any) -> str:
    if getattr(value, "ndim", 0) == 3 or hasattr(value, "convert"):
        return 'Images need a model of images, such as ft.load(checkpoint, "image-classification").'
    if isinstance(value, bytes):
        return "Decode them first: value.decode('utf-8')."
    if isinstance(value, list | tuple):
        return "Give one text a row; join words with ' '.join(words)."
    if isinstance(value, dict):
        return 'Name the text inside by its path: text="review.body".'
    return (
        "Give the texts themselves, not token ids or other numbers: the model's tokenizer "
        "encodes them. If the numbers are meant as text, use str(value)."
    )
