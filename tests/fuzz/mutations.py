"""Seeded damage: to values, to JSON documents, to texts and to bytes.

Each function takes a `random.Random`, so that a case is made again from its seed.
"""

import copy
import json
import random
from typing import Any


class Raw(str):
    """Text that stands in a JSON file as it is, valid or not: NaN, a deep nesting."""


#: Values of every type, at the ends of every range that somebody might believe.
ODD_VALUES: tuple = (
    *(None, True, False, 0, 1, -1, 2, 7, 3.0, 0.5, -0.0, 1e-40, 1e308, 2**31, 2**63, 10**8),
    *("", " ", "12", "gelu", "no", "../outside", "/etc/passwd", "x" * 5_000, "\ud800", "a\x00b"),
    *([], [1], ["a"], [[]], [None], list(range(40)), {}, {"a": 1}, {"0": "a"}, {"1": None}),
    *(Raw("NaN"), Raw("-Infinity"), Raw("1" * 5_000), Raw("[" * 20_000 + "]" * 20_000)),
)
#: The same for arguments of functions.
ODD_ARGUMENTS: tuple = (
    *(value for value in ODD_VALUES if not isinstance(value, Raw)),
    *(float("nan"), float("inf"), object(), (), (1, 2), b"bytes", print, 10**30),
)


def document(content: Any, draw: random.Random) -> str:
    """A JSON document with one to three things changed, as text."""
    content = copy.deepcopy(content)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        content = _changed(content, draw)
    text = _dumped(content)
    if draw.random() < 0.05:
        text = text[: draw.randrange(len(text))]
    return text


def _changed(content: Any, draw: random.Random) -> Any:
    """A document in which one value is replaced, removed, renamed or put in."""
    if draw.random() < 0.03 or not isinstance(content, dict | list) or not content:
        return draw.choice(ODD_VALUES)
    keys = list(content) if isinstance(content, dict) else list(range(len(content)))
    key = draw.choice(keys)
    if isinstance(content[key], dict | list) and content[key] and draw.random() < 0.7:
        content[key] = _changed(content[key], draw)
        return content
    action = draw.random()
    if action < 0.7:
        content[key] = draw.choice(ODD_VALUES)
    elif action < 0.85:
        del content[key]
    elif isinstance(content, dict):
        content[draw.choice(("", "x", "0", str(key).upper()))] = content.pop(key)
    else:
        content.insert(key, draw.choice(ODD_VALUES))
    return content


def _dumped(content: Any) -> str:
    """JSON, with `Raw` values as they are."""
    raw: list[str] = []

    def marked(value: Any) -> Any:
        if isinstance(value, Raw):
            raw.append(str(value))
            return f"@@{len(raw) - 1}@@"
        if isinstance(value, dict):
            return {key: marked(each) for key, each in value.items()}
        return [marked(each) for each in value] if isinstance(value, list) else value

    text = json.dumps(marked(content))
    for i, value in enumerate(raw):
        text = text.replace(f'"@@{i}@@"', value)
    return text


def damaged_bytes(content: bytes, draw: random.Random, within: int | None = None) -> bytes:
    """Bytes cut off, flipped, repeated or put in.

    Args:
        content: The bytes.
        draw: Decides.
        within: Only so many bytes at the beginning are touched; by default all.
    """
    limit = len(content) if within is None else min(within, len(content))
    action = draw.random()
    if action < 0.3 or not limit:
        return content[: draw.randrange(limit + 1)]
    start = draw.randrange(limit)
    if action < 0.7:
        changed = bytearray(content)
        for _ in range(draw.choice((1, 2, 8))):
            changed[draw.randrange(limit)] = draw.randrange(256)
        return bytes(changed)
    if action < 0.85:
        return content[:start] + content[start : start + draw.randrange(1, 64)] + content[start:]
    return content[:start] + draw.randbytes(draw.randrange(1, 64)) + content[start:]


_PIECES = ("\n", "\r", "\r\n", ",", ";", "\t", '"', '""', "\x00", "\ufeff", "é", "\u2028", "NaN")


def damaged_text(content: str, draw: random.Random) -> bytes:
    """Lines of a table or of JSON Lines with damage, in some encoding."""
    lines = content.splitlines()
    for _ in range(draw.choice((1, 1, 2, 4))):
        at = draw.randrange(len(lines)) if lines else 0
        action = draw.random()
        if action < 0.2 and lines:
            del lines[at]
        elif action < 0.35 and lines:
            lines.insert(at, draw.choice(lines))
        elif action < 0.8 and lines:
            line = lines[at]
            place = draw.randrange(len(line) + 1)
            lines[at] = line[:place] + draw.choice(_PIECES) + line[place:]
        else:
            lines.insert(at, draw.choice(("", " ", ",", "[]", "null", "3", "x" * 200_000)))
    text = draw.choice(("\n", "\n", "\n", "\r", "\r\n")).join(lines)
    encoding = draw.choice(("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1"))
    return text.encode(encoding, "replace")
