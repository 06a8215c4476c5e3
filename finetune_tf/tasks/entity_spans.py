"""Entities in sequences of tags, by the rules of conlleval and seqeval.

Tags state where an entity begins and its type: "B-person", "I-person", "O". The schemes IOB1, IOB2
(BIO), IOBES, BILOU (whose L and U mean E and S) and BMES (whose M means I, and W, where it occurs,
S) are decoded by the same rules.

Ramshaw & Marcus, Text Chunking using Transformation-Based Learning, 1995; Tjong Kim Sang &
De Meulder, Introduction to the CoNLL-2003 Shared Task, 2003.
"""

import re
from collections.abc import Iterable, Sequence

#: The tag of words outside of any entity.
OUTSIDE = "O"

_TAG = re.compile(r"([BIESLUMW])(?:-(.*))?")
_SAME = {"L": "E", "U": "S", "M": "I", "W": "S"}
# Tags of entities as other programs write them: "B_person" or "b-person", and "person-B".
_LETTER_FIRST = re.compile(r"(?i)(?P<letter>[BIESLUMW])[-_:](?P<kind>.+)")
_LETTER_LAST = re.compile(r"(?P<kind>.+)[-_:](?P<letter>[BIESLUMW])")
_NAMELESS = "_"  # the type of tags that are a bare "B" or "I", as seqeval calls it


def has_chunks(labels: Iterable[str]) -> bool:
    """Whether tags say where entities begin, or are a class of their own for each word."""
    names = set(labels) - {OUTSIDE}
    bare = {"B", "I"} <= names and all(len(name) == 1 and _TAG.fullmatch(name) for name in names)
    return bare or any(name.startswith(("B-", "I-")) for name in names)


def other_spelling(labels: Iterable[str]) -> dict[str, str]:
    """Returns how tags have to be written to form entities, if they have another spelling.

    Returns:
        The right spelling by tag; empty if tags form entities, or are no tags of entities at all.

    Example:
        >>> from finetune_tf.tasks.entity_spans import other_spelling
        >>> other_spelling(["O", "B_PER", "I_PER"])
        {'O': 'O', 'B_PER': 'B-PER', 'I_PER': 'I-PER'}
        >>> other_spelling(["O", "B-PER", "I-PER"]), other_spelling(["NN", "VB"])
        ({}, {})
    """
    names = list(labels)
    for pattern in () if has_chunks(names) else (_LETTER_FIRST, _LETTER_LAST):
        matches = {name: pattern.fullmatch(name) for name in names if name.upper() != OUTSIDE}
        if matches and all(matches.values()):
            parts = {name: (m["letter"].upper(), m["kind"]) for name, m in matches.items()}
            if "B" in {letter for letter, _ in parts.values()} and len(set(parts.values())) > 1:
                return {name: "-".join(parts.get(name, (OUTSIDE,))) for name in names}
    return {}


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
