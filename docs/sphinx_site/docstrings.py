"""Docstrings, which are written as Markdown with Google's sections, as reStructuredText."""

import re

from sphinx.application import Sphinx

from sphinx_site.links import role

_BACKTICKS = re.compile(r"(?<![`:\w])`([^`\n]+)`(?!`)")
_FORMULA = re.compile(r"(?<![\w$])\$([^$\n]+)\$(?![\w$])")


def setup(app: Sphinx) -> None:
    """Converts docstrings before napoleon reads their sections."""
    app.connect("autodoc-process-docstring", convert, priority=100)


def convert(
    app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]
) -> None:
    """Converts backticks, formulas, tables, and the indented code of modules."""
    converted = [
        line
        if line.lstrip().startswith((">>>", "..."))
        else _FORMULA.sub(r":math:`\1`", _BACKTICKS.sub(lambda match: role(match[1]), line))
        for line in lines
    ]
    converted = tables(converted)
    lines[:] = code_of_modules(converted) if what == "module" else converted


def tables(lines: list[str]) -> list[str]:
    """Returns the lines with tables of Markdown as those of reStructuredText."""
    found, inside = [], False
    for line in lines:
        if not line.strip().startswith("|"):
            found, inside = [*found, *([""] if inside else []), line], False
            continue
        indent = line[: len(line) - len(line.lstrip())]
        if not inside:
            found += [f"{indent}.. list-table::", f"{indent}   :header-rows: 1", ""]
        inside = True
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if not set(line) <= set("|- "):
            found += [
                f"{indent}   {'  ' if number else '* '}- {cell.strip('| ')}"
                for number, cell in enumerate(cells)
            ]
    return found


def code_of_modules(lines: list[str]) -> list[str]:
    """Returns the lines with a directive before indented code, which is no section."""
    found = []
    for number, line in enumerate(lines):
        indented = line.startswith("    ") and number and not lines[number - 1].strip()
        before = next((each for each in reversed(lines[:number]) if each.strip()), "    ")
        if indented and not before.startswith("    "):
            found += [".. code-block:: python", ""]
        found.append(line)
    return found
