"""Formulas as MathML, which browsers draw without a script."""

import inspect

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

# docutils 0.22 renamed the argument.
_BLOCK = (
    {"as_block": True}
    if "as_block" in inspect.signature(tex2mathml).parameters
    else {"inline": False}
)


def setup(app: Sphinx) -> None:
    """Adds the renderer "mathml"."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))


def inline(writer: HTML5Translator, node: nodes.math) -> None:
    """Writes a formula within a line."""
    writer.body.append(str(tex2mathml(node.astext())))
    raise nodes.SkipNode


def block(writer: HTML5Translator, node: nodes.math_block) -> None:
    """Writes a formula on lines of its own."""
    writer.body.append(f'<div class="math">{tex2mathml(node.astext(), **_BLOCK)}</div>\n')
    raise nodes.SkipNode
