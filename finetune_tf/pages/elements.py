"""HTML as a type: everything that is not `Html` is escaped when it enters a page.

Names, texts and paths come from data and may contain markup, control characters, or text that is
written from right to left. `tag` escapes them, so a section of a page cannot forget to.
"""

import html
from collections.abc import Iterable, Sequence
from typing import Any

from finetune_tf.messages import one_line, printable

#: Characters of a text that a page shows.
LONGEST_TEXT = 600
#: Characters of a name in a table.
LONGEST_NAME = 80
_VOID = {"img", "meta", "br"}


class Html(str):
    """Text that is markup already; `tag` does not escape it."""

    __slots__ = ()

    def __add__(self, other: str) -> "Html":
        return Html(str.__add__(self, escaped(other)))


def escaped(content: Any) -> Html:
    """Returns `Html` as it is, and everything else as escaped text without control characters."""
    if isinstance(content, Html):
        return content
    return Html(html.escape(printable(str(content)), quote=True))


def join(parts: Iterable[Any], between: str = "") -> Html:
    """Concatenates parts, each escaped unless it is `Html`; None is left out."""
    return Html(escaped(between).join(escaped(part) for part in parts if part is not None))


def tag(name: str, *children: Any, **attributes: Any) -> Html:
    """Returns an element.

    Args:
        name: The name of the element.
        *children: Its content; everything that is not `Html` is escaped, None is left out.
        **attributes: Its attributes. A trailing underscore is removed (`class_`), other underscores
            become hyphens; True writes the name only, and None or False leaves the attribute out.

    Example:
        >>> from finetune_tf.pages.elements import tag
        >>> tag("p", "1 < 2 ", tag("b", "yes"), class_="note")
        '<p class="note">1 &lt; 2 <b>yes</b></p>'
    """
    written = ""
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        written += f" {key}" if value is True else f' {key}="{escaped(one_line(str(value)))}"'
    start = Html(f"<{name}{written}>")
    return start if name in _VOID else Html(f"{start}{join(children)}</{name}>")


def shortened(text: str, limit: int) -> str:
    """Cuts a text to a number of characters and marks the cut with an ellipsis."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def name(text: Any, limit: int = LONGEST_NAME) -> Html:
    """A name from data within a line: a class, a column, a file.

    `bdi` isolates its writing direction from the text around it.
    """
    text = one_line(str(text))
    is_cut = len(text) > limit
    return tag("bdi", shortened(text, limit), title=shortened(text, 500) if is_cut else None)


def place(text: str) -> Html:
    """Where a row is in its source, such as "line 12", on one line."""
    return tag("span", name(text), class_="place")


def passage(text: Any, limit: int = LONGEST_TEXT) -> Html:
    """A text from data as a block with its own writing direction and its line breaks.

    The number of characters that are left out follows a text that is cut.
    """
    text = str(text)
    left_out = tag("span", f" […+{len(text) - limit:,}]", class_="faint", dir="ltr")
    more = left_out if len(text) > limit else None
    return tag("div", text[:limit], more, dir="auto", class_="passage")


def table(
    header: Sequence[Any],
    rows: Iterable[Sequence[Any]],
    numeric: Sequence[int] = (),
    caption: Any = None,
) -> Html:
    """A table that scrolls by itself where the page is too narrow for it.

    Args:
        header: The titles of the columns.
        rows: The cells of each row.
        numeric: The columns with numbers, which are aligned to the right.
        caption: What the table shows.
    """

    def line(cells: Sequence[Any], cell: str) -> Html:
        return tag(
            "tr",
            *(
                tag(
                    cell,
                    content,
                    class_="number" if i in numeric else None,
                    scope="col" if cell == "th" else None,
                )
                for i, content in enumerate(cells)
            ),
        )

    body = join(line(row, "td") for row in rows)
    title = None if caption is None else tag("caption", caption)
    return tag(
        "div",
        tag("table", title, tag("thead", line(header, "th")), tag("tbody", body)),
        class_="scrolls",
        tabindex="0",
    )


def code(text: str) -> Html:
    """A block of code that can be selected and copied as a whole."""
    return tag("pre", tag("code", text), class_="code", dir="ltr", tabindex="0")
