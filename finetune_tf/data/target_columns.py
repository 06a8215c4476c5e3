"""Target texts: one for each source, or several references of which each is right."""

from typing import Any

from finetune_tf.data.checks import CheckedRows, check_texts


def check_targets(values: list, column: str, rows: CheckedRows) -> list[str | list[str]]:
    """Checks that each row has a text, or a list of texts with at least one.

    Args:
        values: The column.
        column: Its name.
        rows: The examples.

    Returns:
        A text or a list of texts for each row.

    Raises:
        DataError: If a text is missing or blank, or contains half a surrogate pair.
        DataTypeError: If a value is neither a text nor a list of texts.
    """
    values = [list(value) if isinstance(value, tuple) else value for value in values]
    texts = [_suspect(value) for value in values]
    check_texts(texts, column, rows)
    for place in range(max((len(v) for v in values if isinstance(v, list)), default=0)):
        others = [
            value[place] if isinstance(value, list) and place < len(value) else text
            for value, text in zip(values, texts, strict=True)
        ]
        check_texts(others, column, rows)
    return values


def _suspect(value: Any) -> Any:
    """Returns the first reference of a list; a missing value for an empty list."""
    if isinstance(value, list):
        return value[0] if value else None
    return value
