"""The page: a title, links to its sections, the sections, and what was left out and why."""

from finetune_tf._version import __version__
from finetune_tf.errors import FinetuneError
from finetune_tf.pages.content import Content, NeedsError
from finetune_tf.pages.elements import Html, join, tag
from finetune_tf.pages.sections import SECTIONS
from finetune_tf.pages.style import STYLE

# Nothing is loaded and no script runs, even if markup of data were not escaped somewhere.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page(content: Content) -> str:
    """Returns the complete HTML of a page.

    Args:
        content: What it shows.
    """
    words, report = content.words, content.report
    sections, left_out = _sections(content)
    links = [tag("li", tag("a", words(f"title.{key}"), href=f"#{key}")) for key in sections]
    title = words("title", name=report.name)
    body = [
        tag("header", tag("h1", words.html("title", name=report.name)), _lead(content)),
        tag("nav", tag("ul", *links), aria_label=words("contents")),
        tag(
            "main",
            *(
                tag("section", tag("h2", words(f"title.{key}")), body, id=key)
                for key, body in sections.items()
            ),
            _left_out(content, left_out),
        ),
        tag(
            "footer",
            tag("p", words.html("footer", version=__version__), " ", words("cut"), class_="faint"),
        ),
    ]
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Html(STYLE)),
    ]
    root = tag("html", tag("head", *head), tag("body", *body), lang=words.language_tag)
    return f"<!doctype html>\n{root}\n"


def _sections(content: Content) -> tuple[dict[str, Html], dict[str, Html]]:
    """The sections by key, and for those that could not be made the reason."""
    words, sections, left_out = content.words, {}, {}
    for key, build in SECTIONS.items():
        try:
            body = build(content)
        except NeedsError as error:
            left_out[key] = words.html(
                "left_out.needs", names=join((tag("code", f"{n}=") for n in error.names), ", ")
            )
        except FinetuneError as error:  # such as a task without losses, or too few rows
            left_out[key] = words.html("left_out.failed", why=tag("code", error, lang="en"))
        else:
            if body is not None:
                sections[key] = body
    return sections, left_out


def _lead(content: Content) -> Html:
    report, words = content.report, content.words
    size = f"{len(report.targets):,}"
    unit = tag("span", words(f"unit.{report.unit}"))
    written = words.html("written", when=content.written) if content.written else None
    return tag("p", words.html("lead", n=size, unit=unit), " ", written, class_="faint")


def _left_out(content: Content, reasons: dict[str, Html]) -> Html | None:
    """One line for each section that other inputs would provide."""
    if not reasons:
        return None
    words = content.words
    lines = [
        tag("li", words(f"title.{key}"), words("colon"), reason) for key, reason in reasons.items()
    ]
    heading = tag("h2", words("title.left_out"))
    return tag("section", heading, tag("ul", *lines), id="left_out")
