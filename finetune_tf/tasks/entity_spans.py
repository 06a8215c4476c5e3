"""Entities in sequences of tags, by the rules of conlleval and seqeval.

Tags state where an entity begins and its type: "B-person", "I-person", "O". The schemes IOB1, IOB2
(BIO), IOBES and BILOU, whose L and U mean E and S, are decoded by the same rules.

Ramshaw & Marcus, Text Chunking using Transformation-Based Learning, 1995; Tjong Kim Sang &
De Meulder, Introduction to the CoNLL-2003 Shared Task, 2003.
"""

import re
from collections.abc import Iterable, Sequence

#: The tag of words outside of any entity.
OUTSIDE = "O"

_TAG = re.compile(r"([BIESLU])(?:-(.*))?")
_SAME = {"L": "E", "U": "S"}
_NAMELESS = "_"  # the type of tags that are a bare "B" or "I", as seqeval calls it


def has_chunks(labels: Iterable[str]) -> bool:
    """Whether tags say where entities begin, or are a class of their own for each word."""
    names = set(labels) - {OUTSIDE}
    bare = {"B", "I"} <= names and all(len(name) == 1 and _TAG.fullmatch(name) for name in names)
    return bare or any(name.startswith(("B-", "I-")) for name in names)


def chunks(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """The entities in the tags of one sentence.

    B and S begin one, E and S end one. An I or E goes on with an entity of the same type, and
    begins one where there is none. A tag without such a letter counts as an I of its own type.

    Returns:
        Type, first word and the one past the last, of each entity in order.
    """
    found: list[tuple[str, int, int]] = []
    current, first, ended = None, 0, False
    for place, tag in enumerate([*tags, OUTSIDE]):
        letter, kind = _parts(tag)
        if current is not None and (ended or letter in "BSO" or kind != current):
            found.append((current, first, place))
            current = None
        if letter != OUTSIDE and current is None:
            current, first = kind, place
        ended = letter in "ES"
    return found


def _parts(tag: str) -> tuple[str, str]:
    """Letter and type of a tag."""
    if tag == OUTSIDE:
        return OUTSIDE, ""
    match = _TAG.fullmatch(tag)
    if match is None:
        return "I", tag
    return _SAME.get(match[1], match[1]), match[2] or _NAMELESS
