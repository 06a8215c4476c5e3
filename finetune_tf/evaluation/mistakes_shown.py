"""The most confident mistakes of a classifier of images as a table, HTML and a figure."""

import base64
import html
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from finetune_tf.base.labels import Labels
from finetune_tf.evaluation.document import Table
from finetune_tf.evaluation.mistakes import Mistake
from finetune_tf.messages import one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LISTED = 5  # mistakes in the text of a report; the figure and report.json have all
_COLUMNS = 6
_LONGEST_TEXT = 60  # characters


def mistakes_table(mistakes: Sequence[Mistake]) -> list[str | Table]:
    """Returns the first mistakes as a table under a line; nothing if there are none."""
    if not mistakes:
        return []
    has_texts = any(each.text for each in mistakes)
    rows = [
        [
            each.short_name,
            *([_shortened(each.text)] if has_texts else ()),
            each.target,
            each.prediction,
            f"{each.score:.3f}",
        ]
        for each in mistakes[:_LISTED]
    ]
    header = ["image", *(["text"] if has_texts else ()), "label", "predicted", "probability"]
    return ["The most confident mistakes:", Table(header, rows, has_numbers=False)]


def mistakes_html(mistakes: Sequence[Mistake]) -> str:
    """Returns the thumbnails with their labels as HTML; "" if there are none."""
    return "".join(
        '<figure style="display:inline-block;margin:4px;text-align:center;font-size:small">'
        f"{picture_tag(each)}<figcaption>{_text_line(each)}"
        f"predicted: {_escaped(each.prediction)} {each.score:.0%}<br>"
        f"label: {_escaped(each.target)}</figcaption></figure>"
        for each in mistakes
    )


def _text_line(mistake: Mistake) -> str:
    return f"{_escaped(_shortened(mistake.text))}<br>" if mistake.text else ""


def _shortened(text: str) -> str:
    text = one_line(text)
    return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1]}…"


def picture_tag(mistake: Mistake) -> str:
    """Returns the thumbnail as an HTML element that contains its pixels."""
    name = _escaped(mistake.short_name)
    if mistake.pixels is None:
        return f"<div>{name} cannot be read</div>"
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(mistake.pixels).save(buffer, "PNG")
    content = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img src="data:image/png;base64,{content}" alt="{name}" title="{name}">'


def _escaped(text: str) -> str:
    return html.escape(one_line(text))


def draw_mistakes(mistakes: Sequence[Mistake], labels: Labels, title: str) -> "Figure":
    """Draws the thumbnails with their labels in a figure; this needs matplotlib."""
    from finetune_tf.evaluation.figures import (
        NotebookFigure,
        font_families,
        replace_undrawable,
        truncate_name,
    )

    columns = min(_COLUMNS, len(mistakes))
    lines = -(-len(mistakes) // columns)
    figure = NotebookFigure(
        figsize=(2.2 * max(columns, 3), 2.6 * lines + 0.5), layout="constrained"
    )
    fonts = {"fontfamily": font_families()}
    (name,) = replace_undrawable([title], "test")
    figure.suptitle(f"{name}: the most confident mistakes", x=0.012, ha="left", **fonts)
    names = dict(zip(labels, replace_undrawable(labels, "class"), strict=True))
    for i, mistake in enumerate(mistakes):
        axes = figure.add_subplot(lines, columns, i + 1)
        axes.set(xticks=[], yticks=[])
        if mistake.pixels is None:
            axes.text(0.5, 0.5, "cannot be read", ha="center", va="center", fontsize=9)
        else:
            axes.imshow(mistake.pixels)
            axes.spines[:].set_visible(False)
        prediction, target = (truncate_name(names[n]) for n in (mistake.prediction, mistake.target))
        (text,) = replace_undrawable([mistake.text], "text")
        line = f"{truncate_name(one_line(text))}\n" if mistake.text else ""
        axes.set_title(
            f"{line}predicted: {prediction} {mistake.score:.0%}\nlabel: {target}",
            fontsize=9,
            **fonts,
        )
    return figure
