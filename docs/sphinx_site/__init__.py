"""The parts of the documentation site that are not Sphinx's own, as one Sphinx extension."""

from typing import Any

from sphinx.application import Sphinx

from sphinx_site import contents, docstrings, formulas, links, notebooks, searching


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    for part in (contents, docstrings, formulas, links, notebooks, searching):
        part.setup(app)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
