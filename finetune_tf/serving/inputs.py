"""Reads the JSON of a request, and checks everything that can be checked without the model."""

import base64
import binascii
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from finetune_tf.base.arguments import shown
from finetune_tf.base.spelling import meant_by
from finetune_tf.data.columns import COLUMNS
from finetune_tf.serving.forms import described_forms, forms_of, kind_of
from finetune_tf.serving.limits import Limits
from finetune_tf.serving.refusal import Refusal
from finetune_tf.tasks import Task

#: The key that permits texts to lose their end.
TRUNCATE = "truncate"
_MESSAGE_KEYS = {"role", "content"}
_FILES = ("image", "video")
_LONGEST_KEY = 100  # a similar name is not looked for beyond this, since that takes a while
_TYPES = {
    dict: "an object",
    list: "a list",
    str: "a text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
}


@dataclass(frozen=True)
class Asked:
    """What a request asks for.

    Attributes:
        columns: The values of each column, one for each row.
        options: The options of `ft.predict`.
        is_single: Whether one value was given, and not a list.
        may_truncate: Whether a text may lose its end.
    """

    columns: dict[str, list]
    options: dict[str, Any]
    is_single: bool
    may_truncate: bool = False

    def __len__(self) -> int:
        """The number of rows."""
        return len(next(iter(self.columns.values())))


def read_json(body: bytes) -> dict[str, Any]:
    """Returns the object that a body contains.

    Raises:
        Refusal: If the body is not a JSON object in UTF-8, a key occurs twice, or a number is NaN
            or infinite.

    Example:
        >>> from finetune_tf.serving.inputs import read_json
        >>> read_json(b'{"text": "a good film"}')
        {'text': 'a good film'}
    """
    try:
        content = json.loads(
            body.decode("utf-8"), object_pairs_hook=_object, parse_constant=_refuse_constant
        )
    except UnicodeDecodeError as error:
        _refuse(f"The body must be JSON in UTF-8; the byte {error.start:,} is not UTF-8.")
    except RecursionError:
        _refuse("The JSON of the body has too many levels. Texts are in a list at most.")
    except ValueError as error:  # a JSONDecodeError, or a number with thousands of digits
        _refuse(f'The body must be JSON, such as {{"text": "…"}}: {str(error)[:200]}.')
    if not isinstance(content, dict):
        _refuse(f"The body must be a JSON object, found {_type(content)}.")
    return content


def read_request(content: dict[str, Any], task: Task, limits: Limits) -> Asked:
    """Reads the columns and the options of a request.

    Args:
        content: From `read_json`.
        task: The task of the model.
        limits: The limits of the request.

    Raises:
        Refusal: If a key is unknown or missing, a value has another type, a text is empty, too
            long, or no valid text, or there are too many rows.
    """
    forms = forms_of(task)
    inputs = list(dict.fromkeys(name for form in forms for name in form))
    known = [*inputs, *task.options, TRUNCATE]
    for key in content:
        if key not in known:
            _refuse_key(key, known, task)
    given = {name: content[name] for name in inputs if name in content}
    if set(given) not in map(set, forms):
        found = ", ".join(f'"{name}"' for name in given) or "none of them"
        _refuse(f"The task {task.name} needs {described_forms(task)}; found {found}.")
    may_truncate = content.get(TRUNCATE, False)
    if not isinstance(may_truncate, bool):
        _refuse(f'"{TRUNCATE}" must be true or false, found {_type(may_truncate)}.')
    singles = {name: _is_single(name, value) for name, value in given.items()}
    if len(set(singles.values())) > 1:
        _refuse(
            f"{' and '.join(given)} belong together: give one value for each of them, or lists of "
            "equal length."
        )
    is_single = next(iter(singles.values()))
    columns = {name: [value] if is_single else value for name, value in given.items()}
    _check_number(columns, limits)
    for name, values in columns.items():
        for row, value in enumerate(values):
            _check_value(name, value, name if is_single else f"{name}[{row}]", limits)
    for name in _FILES:
        if name in columns:
            columns[name] = [
                _decoded(value, f"{name}[{row}]") for row, value in enumerate(columns[name])
            ]
    options = {name: content[name] for name in task.options if name in content}
    return Asked(columns, options, is_single, may_truncate)


def _is_single(name: str, value: Any) -> bool:
    """Whether a value of JSON is one row, and not a list of rows."""
    if name == "tokens":
        return isinstance(value, list) and any(isinstance(item, str) for item in value)
    if name == "messages":
        return isinstance(value, list) and any(isinstance(item, dict) for item in value)
    if not isinstance(value, str | list):
        _refuse(f'"{name}" must be {kind_of(name)} or a list of them, found {_type(value)}.')
    return isinstance(value, str)


def _check_number(columns: dict[str, list], limits: Limits) -> None:
    for name, values in columns.items():
        if not isinstance(values, list):
            _refuse(f'"{name}" must be {kind_of(name)}, or a list of them; found {_type(values)}.')
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} has {length:,}" for name, length in lengths.items())
        _refuse(f"All lists must have the same length: {listed}.")
    (length,) = set(lengths.values())
    if not length:
        _refuse(f"{' and '.join(columns)}: the list is empty; give at least one value.")
    if length > limits.max_texts:
        raise Refusal(
            413,
            f"A request may have {limits.max_texts:,} texts, found {length:,}. Send several "
            "requests, or start the server with a larger --max-texts.",
        )


def _check_value(name: str, value: Any, where: str, limits: Limits) -> None:
    """Checks a row: its type, and the texts in it."""
    if name == "tokens":
        is_right = isinstance(value, list) and value and all(isinstance(w, str) for w in value)
    elif name == "messages":
        is_right = isinstance(value, list) and value and all(map(_is_message, value))
    else:
        is_right = isinstance(value, str)
    if not is_right:
        _refuse(f"{where} must be {kind_of(name)}, found {_type(value)}: {shown(value)}.")
    if name in _FILES:
        return
    size = 0
    for text in _texts(value):
        size += len(text)
        if "\0" in text:
            _refuse(f"{where} has a NUL character at position {text.index(chr(0)):,}. Remove it.")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            _refuse(
                f"{where} has half a surrogate pair at position {error.start:,}, which is no "
                "character. An emoji was cut in two there; remove it."
            )
        if not text.strip():
            _refuse(f"{where} is empty. Leave it out, or fill it in.")
    if size > limits.max_characters:
        raise Refusal(
            413,
            f"A text may have {limits.max_characters:,} characters, found {size:,} in {where}. "
            "Shorten it, or start the server with a larger --max-characters.",
        )


def _is_message(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == _MESSAGE_KEYS
        and all(isinstance(part, str) for part in value.values())
    )


def _texts(value: Any) -> Iterator[str]:
    """Yields the texts of a row: of a text, a list of words, or a conversation."""
    if isinstance(value, str):
        yield value
    else:
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _decoded(value: str, where: str) -> bytes:
    """Returns the bytes of a file; a text is never taken for a path on the server."""
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        _refuse(f"{where} must be the bytes of a file in base64, found {shown(value, 40)}.")


def _refuse_key(key: str, known: list[str], task: Task) -> NoReturn:
    synonyms = {name: COLUMNS[name].synonyms for name in known if name in COLUMNS}
    meant = meant_by(key, known, synonyms) if len(key) <= _LONGEST_KEY else None
    advice = f'Did you mean "{meant}"?' if meant else f"Known are {', '.join(known)}."
    _refuse(f"A request for {task.name} has no key {shown(key)}. {advice}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, n in Counter(key for key, _ in pairs).items() if n > 1)
        raise ValueError(f"the key {shown(twice)} occurs twice")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def _type(value: Any) -> str:
    return _TYPES[type(value)]


def _refuse(message: str) -> NoReturn:
    raise Refusal(400, message)
