"""The table of contents, from the lists of links in docs/index.md, and the generated reference.

A page without Sphinx's directives is as good to read in a checkout as in the site, so the contents
are not written a second time: each heading of the index is a caption, and each link below it an
entry.
"""

import os
import re
from pathlib import Path

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

from sphinx_site.reference import write_pages

REDIRECT = """<!doctype html>
<meta charset="utf-8">
<meta http-equiv="refresh" content="0; url=docs/index.html">
<title>finetune_tf</title>
<a href="docs/index.html">finetune_tf</a>
"""


def setup(app: Sphinx) -> None:
    """Writes the reference before pages are read, and completes the index."""
    app.connect("config-inited", lambda app, config: write_pages(reference_folder(app)))
    app.connect("source-read", add_contents)
    app.connect("build-finished", write_start_page)
    app.add_lexer("mermaid", TextLexer)


def reference_folder(app: Sphinx) -> Path:
    """Returns the folder of the generated pages."""
    return Path(app.confdir) / "reference"


def add_contents(app: Sphinx, page: str, source: list[str]) -> None:
    """Adds tables of contents to the index, which the sidebar shows."""
    if page != app.config.root_doc:
        return
    tables, listed = [], set()
    for caption, text in re.findall(r"^## (.+)\n([^#]*)", source[0], re.MULTILINE):
        entries = re.findall(r"\]\(([^):#]+\.(?:md|ipynb))\)", text)
        tables.append(table_of_contents(caption, entries))
        listed |= {(Path(app.confdir) / entry).resolve() for entry in entries}
    found = {*Path(app.confdir).glob("*.md"), *Path(app.confdir).glob("../notebooks/*.ipynb")}
    others = {path.resolve() for path in found} - listed - {Path(app.confdir, "index.md").resolve()}
    if others:  # a page that the index does not list yet
        names = [os.path.relpath(path, app.confdir) for path in sorted(others)]
        tables.append(table_of_contents("More", names))
    tables.append(table_of_contents("Reference", ["reference/index"]))
    source[0] += "\n\n" + "\n".join(tables)


def table_of_contents(caption: str, entries: list[str]) -> str:
    """Returns the directive for a hidden table of contents."""
    names = "\n".join(entry.removesuffix(".md").removesuffix(".ipynb") for entry in entries)
    return f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{names}\n```\n"


def write_start_page(app: Sphinx, error: Exception | None) -> None:
    """Writes an index.html that leads to the index of docs/."""
    if error is None and app.builder.format == "html":
        (Path(app.outdir) / "index.html").write_text(REDIRECT, encoding="utf-8")
