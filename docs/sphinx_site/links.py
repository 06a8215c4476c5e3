"""Links from code in sentences to the reference, and a check that the names in it exist.

Pages and docstrings name things in backticks: `ft.load`, `Examples.batches`. Where the name is
public, it becomes a link. A name that begins with `ft.` and does not exist is a warning, and
warnings are errors.
"""

import re
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

import finetune_tf as ft
from sphinx_site.reference import public_names

logger = logging.getLogger(__name__)
_NAME = re.compile(r"ft\.([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)")


def setup(app: Sphinx) -> None:
    """Links names in pages, in docstrings, and in type hints."""
    app.connect("doctree-read", link_names)
    app.connect("missing-reference", resolve)
    app.connect("builder-inited", lambda app: _names.update(_find_names()))


_names: dict[str, str] = {}  # other names of public things -> their names in the reference


def _find_names() -> dict[str, str]:
    found = {}
    for name, value in public_names().items():
        target = f"finetune_tf.{name}"
        found[name.rpartition(".")[2]] = target
        found[name] = found[f"ft.{name}"] = target
        if hasattr(value, "__qualname__"):
            found[f"{value.__module__}.{value.__qualname__}"] = target
    return found


def exists(name: str) -> bool:
    """Whether `ft` has a name, such as "data.Examples.batches"."""
    value: Any = ft
    for part in name.split("."):
        fields = getattr(value, "__dataclass_fields__", {})
        if part in fields:
            return True
        if not hasattr(value, part):
            return part in getattr(value, "__annotations__", {})
        value = getattr(value, part)
    return True


def link_names(app: Sphinx, page: nodes.document) -> None:
    """Links the names in the sentences of a page."""
    for literal in list(page.findall(nodes.literal)):
        match = _NAME.match(literal.astext())
        if not match or isinstance(literal.parent, (nodes.reference, addnodes.pending_xref)):
            continue
        if not exists(match[1]):
            logger.warning("there is no ft.%s", match[1], location=literal)
            continue
        if any(isinstance(parent, nodes.title) for parent in _parents(literal)):
            continue
        link = addnodes.pending_xref(
            "",
            literal.deepcopy(),
            refdomain="py",
            reftype="obj",
            reftarget=f"finetune_tf.{match[1]}",
            refwarn=False,
        )
        literal.replace_self(link)


def _parents(node: nodes.Node) -> list[nodes.Node]:
    found = []
    while node.parent is not None:
        node = node.parent
        found.append(node)
    return found


def role(text: str) -> str:
    """Returns what backticks in a docstring are in reStructuredText: a link or a literal."""
    named = _NAME.match(text)
    if named and not exists(named[1]):
        logger.warning("a docstring names ft.%s, which does not exist", named[1])
    called = re.match(r"[\w.]+", text)
    target = _names.get(called[0]) if called else None
    # A name of one word may be an argument, so only classes and calls are linked by it.
    if target and ("." in called[0] or text[0].isupper() or text.endswith(")")) and "<" not in text:
        return f":py:obj:`{text} <{target}>`"
    return f"``{text}``"


def resolve(
    app: Sphinx, environment: BuildEnvironment, node: addnodes.pending_xref, content: nodes.Element
) -> nodes.Node | None:
    """Finds things by the modules that define them; other types of hints are not linked."""
    if node.get("refdomain") != "py":
        return None
    target = _names.get(node["reftarget"])
    if target and target != node["reftarget"]:
        domain = environment.get_domain("py")
        source = node.get("refdoc", app.config.root_doc)
        found = domain.resolve_xref(environment, source, app.builder, "obj", target, node, content)
        if found is not None:
            return found
    return content
