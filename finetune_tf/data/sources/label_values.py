"""The values of label columns: which ones are valid, and one name for each class.

The same label differs between sources: a CSV file only has texts, a data frame converts whole
numbers to floats if a row is missing, and JSON has numbers and booleans. These functions give it
the same name from every source.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from finetune_tf.base.labels import (
    is_integer_text,
    label_text,
    number_in,
    similar_key,
    whole_number,
)
from finetune_tf.data.checks import has_lone_surrogate, invalid_rows, is_missing, offenders
from finetune_tf.data.places import Places, counted, shortened
from finetune_tf.errors import DataError, DataTypeError
from finetune_tf.messages import say, warn
from finetune_tf.tasks.entity_spans import other_spelling

IGNORED = -100  # as in `tasks.task`: marks a target that is ignored
_LONGEST_NUMBER = 18  # digits; a longer number is not a class number
_BOOLEANS = {"true": "True", "false": "False"}
# Texts that spreadsheets write for a missing value, but that may also be names of classes.
_PERHAPS_MISSING = {"None", "null", "NULL", "NA", "N/A", "#N/A", "n/a"}
FEW = 30  # up to this many distinct numbers are always taken for classes
_MANY = 100  # a message says that this many numbers or more are taken for classes
_ROWS_A_CLASS = 10  # with fewer on average, whole numbers are probably scores or ids
_CULPRITS = 3  # pairs of names that a warning shows


def plain(value: Any) -> Any:
    """Converts a value of NumPy, TensorFlow, PyTorch or pandas, or a list, to Python values."""
    if type(value) in (str, int, float, bool):
        return value
    if hasattr(value, "numpy") and not hasattr(value, "tolist"):
        value = value.numpy()
    if getattr(value, "ndim", 0) > 1:
        return value  # an image
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, set | frozenset):
        value = sorted(value, key=str)
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def class_name(value: Any, class_names: Sequence[str]) -> Any:
    """The name of a class number; any other value is unchanged, for the checks to find."""
    value = plain(value)
    if isinstance(value, list):
        return [class_name(item, class_names) for item in value]
    is_number = isinstance(value, int) and 0 <= value < len(class_names)
    return class_names[value] if is_number else value


def check_kinds(rows: Sequence[Any], source: str, places: Places) -> None:
    """Checks that each value may be a label: no object, no bytes, not the ignored number -100.

    Args:
        rows: A label or a list of labels for each row, after `plain`.
        source: Name of the data in messages.
        places: Where the rows are in the source.

    Raises:
        DataError: If a label is infinite, is -100, or contains half a surrogate pair.
        DataTypeError: If a value is neither a text nor a number, or a list holds a list.
    """
    kinds = set(map(type, rows))
    if kinds <= {str}:
        distinct = set(rows)
    else:
        distinct = None
        wrong = offenders(rows, lambda row: not all(map(_is_label, _items(row))))
        if wrong:
            raise invalid_rows(
                f"A label of {source} is a text or a number, or a list of such; found "
                f"{places.listed(wrong)}. {_instead_of_label(wrong[0][1])}",
                wrong,
                "with something else than a label",
                DataTypeError,
            )
    if distinct is None or distinct & {"-100", "-100.0"}:
        wrong = offenders(
            rows, lambda row: any(label_text(item) in ("-100", "-100.0") for item in _items(row))
        )
        if wrong:
            raise invalid_rows(
                f"{source} has the label -100, which marks a target that counts for nothing: "
                f"{places.listed(wrong)}. Leave such rows out; batches of "
                "rows that are tokenized already come from ft.data.tokenized_batches.",
                wrong,
                "with the label -100",
            )
    if distinct is None or any(not text.isascii() for text in distinct):
        wrong = offenders(
            rows, lambda row: any(isinstance(i, str) and has_lone_surrogate(i) for i in _items(row))
        )
        if wrong:
            raise invalid_rows(
                f"{source} has labels with half a surrogate pair, which no encoding can write: "
                f"{places.listed(wrong)}. Correct them.",
                wrong,
                "with half a surrogate pair",
            )


def _items(row: Any) -> Iterable[Any]:
    return row if isinstance(row, list) else (row,)


def _is_label(value: Any) -> bool:
    if isinstance(value, float):
        return not math.isinf(value)
    if isinstance(value, int):
        return abs(value) < 10**_LONGEST_NUMBER
    return isinstance(value, str) or is_missing(value)


def _instead_of_label(row: Any) -> str:
    value = next(item for item in _items(row) if not _is_label(item))
    if isinstance(value, dict):
        return 'Name the value inside by its path: label="answer.class".'
    if isinstance(value, list):
        return "Lists within lists are no labels: give one list of names a row."
    if isinstance(value, bytes):
        return "Decode them first: value.decode('utf-8')."
    if isinstance(value, int | float):
        return "A number has to be finite and is written with up to 18 digits."
    return "Write the name of the class: str(value)."


def same_spelling(values: Sequence[Any], source: str) -> list[Any]:
    """Gives labels the same spelling from every source.

    White space around names is stripped, with a message. If all labels are whole numbers, 1.0,
    "1.0" and "1e0" become 1; if all are true or false, they become True and False.

    Args:
        values: Labels that are not lists.
        source: Name of the data in messages.

    Returns:
        The labels in their order; those that need no change are the same objects.
    """
    texts = Counter(map(label_text, values))
    stripped = {text: text.strip() for text in texts}
    blanks = [text for text in texts if stripped[text] != text]
    if blanks:
        rows = sum(texts[text] for text in blanks)
        found = counted(rows, "label loses the blanks", "labels lose the blanks")
        say(f"{source}: {found} around the name, as in {shortened(blanks[0])}.")
    names = set(stripped.values())
    numbers = {name: whole_number(name) for name in names}
    if all(number is not None for number in numbers.values()):
        spelled = {text: numbers[name] for text, name in stripped.items()}
    elif all(name.lower() in _BOOLEANS for name in names):
        spelled = {text: _BOOLEANS[name.lower()] for text, name in stripped.items()}
    else:
        spelled = stripped
    changed = {text: name for text, name in spelled.items() if text != name}
    if not changed:
        return list(values)
    return [
        value
        if (name := changed.get(label_text(value))) is None
        else (name if isinstance(value, str) else int(name))
        for value in values
    ]


def warn_of_similar(counts: Counter[str], source: str) -> None:
    """Warns about names that are probably one class, and about names for missing values.

    Args:
        counts: Number of rows with each name.
        source: Name of the data in messages.
    """
    alike: dict[str, list[str]] = {}
    for name in counts:
        alike.setdefault(similar_key(name), []).append(name)
    pairs = [
        (rare, common)
        for names in alike.values()
        for common in [max(names, key=lambda name: counts[name])]
        for rare in names
        if rare != common
    ]
    if pairs:
        # A rare name is more likely a mistake than a frequent one.
        pairs.sort(key=lambda pair: counts[pair[0]])
        listed = ", ".join(
            f"{rare!r} ({_rows(counts[rare])}) and {common!r} ({_rows(counts[common])})"
            for rare, common in pairs[:_CULPRITS]
        )
        more = f" and {len(pairs) - _CULPRITS:,} more" if len(pairs) > _CULPRITS else ""
        warn(
            f"{source} has labels that differ by upper and lower case or blanks only and count as "
            f"classes of their own: {listed}{more}. Correct the spelling, or name all classes with "
            "labels=[…] if this is meant."
        )
    if missing := sorted(_PERHAPS_MISSING & counts.keys()):
        listed = ", ".join(f"{name!r} ({_rows(counts[name])})" for name in missing[:_CULPRITS])
        warn(
            f"{source} has the label {listed}, which often means a missing one. Correct or "
            "remove such rows, or name all classes with labels=[…] if this is a class."
        )


def warn_of_spelling(tags: Iterable[str], source: str) -> None:
    """Warns about tags of entities in a spelling that forms no entities; says if tags are numbers.

    Args:
        tags: The names of the tags.
        source: Name of the data in messages.
    """
    tags = list(tags)
    if all(map(is_integer_text, tags)):
        say(
            f"{source}: tags are numbers, so each word counts for itself and no entities are "
            'formed. Name them in the order of their numbers: labels=["O", "B-PER", "I-PER", …].'
        )
    meant = {tag: spelled for tag, spelled in other_spelling(tags).items() if tag != spelled}
    if meant:
        listed = ", ".join(f"{spelled!r} for {tag!r}" for tag, spelled in list(meant.items())[:3])
        warn(
            f"The tags of {source} look like those of entities, but in another spelling, so each "
            f"word counts for itself and no entities are formed. Write {listed}"
            f"{', …' if len(meant) > 3 else ''}."
        )


def _rows(count: int) -> str:
    return counted(count, "row", "rows")


def has_fraction(name: str) -> bool:
    """Whether a text is a number with a fraction."""
    number = number_in(name)
    return number is not None and not number.is_integer()


def is_decimal_comma(names: Collection[str]) -> bool:
    """Whether the texts are numbers with a decimal comma, such as "3,5", and whole numbers."""
    return any("," in name for name in names) and all(
        number_in(name.replace(",", ".", 1)) is not None for name in names
    )


def sorted_names(names: Iterable[str]) -> list[str]:
    """Names of classes in order; numerical order if all are whole numbers."""
    # Sorted as texts first: "1" and "01" are one number, and a set has another order each time.
    names = sorted(set(names))
    return sorted(names, key=int) if all(map(is_integer_text, names)) else names


def spelled_alike(rows: list[list], source: str) -> list[list]:
    """Gives lists of labels the same spelling; see `same_spelling`."""
    spelled = iter(same_spelling([value for row in rows for value in row], source))
    return [[next(spelled) for _ in row] for row in rows]


def check_numbers(counts: Counter[str], column: str, source: str, otherwise: str) -> None:
    """Says, warns or raises an error if many distinct whole numbers would become classes."""
    number, rows = len(counts), counts.total()
    if number <= FEW:
        return
    if not all(map(is_integer_text, counts)):
        if number > max(_MANY, rows / 2):
            warn(
                f"The column {column!r} of {source} has {number:,} different texts in {rows:,} "
                'rows, and each counts as a class. Is it the right column? label="…" names it.'
            )
        return
    least, most = min(map(int, counts)), max(map(int, counts))
    found = (
        f"The column {column!r} of {source} has {number:,} different whole numbers ({least} to "
        f"{most}) in {rows:,} rows"
    )
    advice = f"Give {otherwise}, or labels=[…] with the names of the classes."
    is_count = least in (0, 1) and most - least == number - 1
    if number > rows / 2:
        raise DataError(f"{found}, too many to be classes. {advice}")
    if not is_count or rows < _ROWS_A_CLASS * number:
        warn(f"{found}, and each counts as a class. {advice}")
    elif number >= _MANY:
        say(f"{found}, and each counts as a class. {advice}")
