"""The common part of reports: text, HTML for notebooks, JSON and figures."""

import abc
import html
import json
import math
import os
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from finetune_tf.base.files import unfinished, write_text
from finetune_tf.base.paths import absolute
from finetune_tf.errors import DataError, MissingExtraError
from finetune_tf.messages import one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Table(NamedTuple):
    """A header and rows of cells; the first column has text, the others numbers by default."""

    header: list[str]
    rows: list[list[str]]
    has_numbers: bool = True


class Document(abc.ABC):
    """A result that can be printed, drawn and saved.

    A subclass defines its content (`blocks`), the same as plain values (`to_dict`), and the name
    of the function of `figures` that draws it (`_drawing`), or how it is drawn (`_draw`). One that
    defines neither has no figure.
    """

    _drawing = ""
    _has_page = False

    @abc.abstractmethod
    def blocks(self) -> list[str | Table]:
        """The lines and tables in reading order."""

    @abc.abstractmethod
    def to_dict(self) -> dict:
        """The content as plain Python values for `json.dumps`."""

    def plot(self) -> "Figure":
        """Draws the result as a matplotlib figure.

        Raises:
            DataError: If there is no figure of such a result.
            MissingExtraError: If matplotlib is not installed.
        """
        if not self._has_figure:
            raise DataError(f"{type(self).__name__} has no figure; print it instead.")
        matplotlib = require_matplotlib()
        with matplotlib.rc_context({"text.parse_math": False}):  # names may contain dollar signs
            return self._draw()

    def _draw(self) -> "Figure":
        from finetune_tf.evaluation import figures

        return getattr(figures, self._drawing)(self)

    def save(self, folder: str | os.PathLike) -> Path:
        """Writes report.json and report.txt, and the figures if matplotlib is installed.

        The figure is report.png. A report on images with mistakes also writes mistakes.png.

        Args:
            folder: The folder, created if it does not exist. Files of these names are replaced.

        Returns:
            The folder.

        Raises:
            DataError: If a file cannot be written; an earlier file is then unchanged.
        """
        folder = absolute(folder, DataError)
        as_json = json.dumps(_finite(self.to_dict()), indent=2, ensure_ascii=False, allow_nan=False)
        write_text(folder / "report.json", as_json + "\n", DataError)
        write_text(folder / "report.txt", f"{self}\n", DataError)
        for name, draw in self._figures().items():
            try:
                figure = draw and draw()
            except MissingExtraError:
                figure = None
            if figure is None:
                (folder / name).unlink(missing_ok=True)  # it would show an earlier report
                continue
            with unfinished(folder / name, DataError) as path:
                figure.savefig(path, format="png", dpi=150)
        if not self._has_page:
            (folder / "report.html").unlink(missing_ok=True)  # it would show an earlier report
        return folder

    def _figures(self) -> "dict[str, Callable[[], Figure] | None]":
        """What draws each file of figures; None for a file that this result does not have."""
        return {"report.png": self.plot if self._has_figure else None}

    @property
    def _has_figure(self) -> bool:
        return bool(self._drawing) or type(self)._draw is not Document._draw

    def __str__(self) -> str:
        return "\n\n".join(
            _as_text(block) if isinstance(block, Table) else one_line(block)
            for block in self.blocks()
        )

    def _repr_html_(self) -> str:
        return "\n".join(
            _as_html(block) if isinstance(block, Table) else f"<p>{_escaped(block)}</p>"
            for block in self.blocks()
        )


class DataDocument(Document):
    """A document that is a dataclass: its fields are its values, and `repr` prints it."""

    def to_dict(self) -> dict:
        """Returns the fields as values that JSON can represent."""
        return asdict(self)

    def __repr__(self) -> str:
        return str(self)


def require_matplotlib() -> ModuleType:
    """Imports matplotlib, or explains how to install it.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtraError(
            "Drawing needs matplotlib, which is not installed. "
            "Install it with: pip install 'finetune-tf[report]'"
        ) from error
    return matplotlib


def _finite(value: Any) -> Any:
    """Replaces NaN and infinite values by None, because JSON has no such numbers."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _as_text(table: Table) -> str:
    rows = [[one_line(cell) for cell in row] for row in (table.header, *table.rows)]
    columns = list(zip(*rows, strict=True))
    widths = [max(map(_width, column)) for column in columns]
    lines = []
    for first, *others in rows:
        cells = [first + " " * (widths[0] - _width(first))]
        for cell, width in zip(others, widths[1:], strict=True):
            space = " " * (width - _width(cell))
            cells.append(space + cell if table.has_numbers else cell + space)
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _as_html(table: Table) -> str:
    def row(cells: Iterable[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{_escaped(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(row(cells, "td") for cells in table.rows)
    return f"<table><thead>{row(table.header, 'th')}</thead><tbody>{body}</tbody></table>"


def _escaped(text: str) -> str:
    """Escapes a text for HTML, because names in it come from data."""
    return html.escape(one_line(text))


def _width(text: str) -> int:
    """The width of a text in columns of a terminal; Chinese characters have two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)
