"""Notebooks as pages. They are stored without outputs, so that their cells are all there is."""

import json

from docutils import nodes
from myst_parser.parsers.sphinx_ import MystParser
from sphinx.application import Sphinx


class NotebookParser(MystParser):
    """Reads the cells of a notebook as one page of Markdown."""

    supported = ("ipynb",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        """Parses the text of an .ipynb file."""
        super().parse(as_markdown(inputstring), document)


def as_markdown(notebook: str) -> str:
    """Returns the cells of a notebook as Markdown, its code in fences."""
    parts = []
    for cell in json.loads(notebook)["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```ipython3\n{text}\n```")
    return "\n\n".join(parts) + "\n"


def setup(app: Sphinx) -> None:
    """Makes .ipynb files sources of pages."""
    app.add_source_suffix(".ipynb", "ipynb")
    app.add_source_parser(NotebookParser)
