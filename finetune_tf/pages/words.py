"""The words of a page in each language.

A text of the catalogue may contain `{name}` for values and `` `code` `` in backticks. Values come
from data, so they are escaped and isolated; see `elements`.
"""

import re
from collections.abc import Mapping
from typing import Any

from finetune_tf.errors import ArgumentError
from finetune_tf.pages.elements import Html, escaped, join, name, tag
from finetune_tf.pages.words_en import ENGLISH
from finetune_tf.pages.words_zh import CHINESE

#: The catalogues by the code of the language.
CATALOGUES: dict[str, Mapping[str, str]] = {"en": ENGLISH, "zh": CHINESE}
_LANGUAGE_TAGS = {"en": "en", "zh": "zh-Hans"}
_PARTS = re.compile(r"(\{\w+\}|`[^`]*`)")
# How `diagnosis.slices` describes numbers: "12 to 20".
_RANGE = re.compile(r"(?P<low>-?[\d.e+-]+) to (?P<high>-?[\d.e+-]+)")


class Words:
    """The words of one language.

    Args:
        lang: "en" or "zh".

    Raises:
        ArgumentError: If there is no catalogue of that language.

    Example:
        >>> from finetune_tf.pages.words import Words
        >>> Words("en").html("pictures.unreadable", file="<b>.png")
        '<bdi>&lt;b&gt;.png</bdi> cannot be read.'
    """

    def __init__(self, lang: str) -> None:
        if not isinstance(lang, str) or lang not in CATALOGUES:
            raise ArgumentError(
                f"lang={lang!r}: a report can be written in {' and '.join(map(repr, CATALOGUES))}, "
                "English and Chinese."
            )
        self.lang, self.language_tag = lang, _LANGUAGE_TAGS[lang]
        self._texts = CATALOGUES[lang]

    def has(self, key: str) -> bool:
        """Whether the catalogue has a text of that key."""
        return key in self._texts

    def __call__(self, key: str, **values: Any) -> str:
        """Returns a text without markup, for titles and attributes; it still has to be escaped."""
        return self._texts[key].replace("`", "").format(**values)

    def html(self, key: str, **values: Any) -> Html:
        """Returns a text with its values, which are escaped unless they are `Html`."""
        return join(self._part(part, values) for part in _PARTS.split(self._texts[key]) if part)

    def named(self, group: str, key: str) -> Html:
        """Returns what something is called, such as a metric, or its own name if there is none.

        Args:
            group: The group of the catalogue, such as "metric".
            key: The name in the library, such as "macro_f1".
        """
        found = self._texts.get(f"{group}.{key}")
        return tag("code", key) if found is None else escaped(found)

    def title_of(self, group: str, key: str) -> str:
        """Returns what something is called as plain text, for charts."""
        return self._texts.get(f"{group}.{key}", key)

    def range_of(self, value: str) -> str:
        """Returns a range of numbers, such as "12 to 20", in this language; other texts unchanged.

        Args:
            value: The value of a slice.
        """
        found = _RANGE.fullmatch(value)
        return self("range", **found.groupdict()) if found else value

    @staticmethod
    def _part(part: str, values: Mapping[str, Any]) -> Any:
        if part.startswith("`"):
            return tag("code", part[1:-1])
        if part.startswith("{"):
            value = values[part[1:-1]]
            return name(value, 300) if isinstance(value, str) and type(value) is str else value
        return part
