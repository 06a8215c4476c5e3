"""An explanation as HTML: self-contained, and legible without telling red from green.

Blue speaks for the target and orange against it (Okabe and Ito 2008); words also have a solid or a
dashed line below them, so that colors are not needed.
"""

import base64
import html
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from finetune_tf.explanations import pictures
from finetune_tf.explanations.text_view import headline, remarks
from finetune_tf.messages import printable

if TYPE_CHECKING:
    from finetune_tf.explanations.explanation import Explanation, WordScore

FOR, AGAINST = (0, 114, 178), (213, 94, 0)
_STRONGEST = 0.6  # opacity of the color behind the word with the largest score
_FAINT = 0.05  # of the largest score: words below it have no line
_BOX = (
    "font-family:system-ui,sans-serif;color:#111;background:#fff;border:1px solid #ccc;"
    "border-radius:4px;padding:10px 12px;margin:8px 0;line-height:1.7;text-align:start"
)
_SMALL = "font-size:85%;color:#444;margin:4px 0"


def as_html(explanation: "Explanation") -> str:
    """Returns the explanation as one element of a page."""
    parts = [
        f'<div style="margin:0 0 6px"><strong>{_escaped(headline(explanation))}</strong></div>'
    ]
    scale = _largest(explanation)
    for column in explanation.texts:
        parts.append(_text(explanation, column, scale))
    if explanation.patches is not None:
        parts.append(_picture(explanation))
    if explanation.neighbors:
        parts.append(_neighbors(explanation))
    if scale:
        parts.append(_legend(explanation, scale))
    parts += [f'<div style="{_SMALL}">{_escaped(line)}</div>' for line in remarks(explanation)]
    return f'<div style="{_BOX}">{"".join(parts)}</div>'


def page(explanations: Iterable["Explanation"]) -> str:
    """Returns a complete page with explanations."""
    body = "".join(map(as_html, explanations))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Explanations</title>'
        '<meta name="viewport" content="width=device-width"></head>'
        f'<body style="max-width:50em;margin:1em auto;padding:0 1em">{body}</body></html>\n'
    )


def _text(explanation: "Explanation", column: str, scale: float) -> str:
    """A text as it is written, with its words marked."""
    text, at, parts = explanation.texts[column], 0, []
    words = sorted(
        (word for word in explanation.words if word.column == column), key=lambda word: word.start
    )
    for word in words:
        parts += [_between(text[at : word.start]), _word(word, scale)]
        at = word.end
    parts.append(_between(text[at:]) if words else _escaped(text[at:]))
    name = f'<span style="color:#444;font-size:85%">{_escaped(column)}: </span>'
    label = name if len(explanation.texts) > 1 else ""
    return f'<div dir="auto" style="white-space:pre-wrap">{label}{"".join(parts)}</div>'


def _between(text: str) -> str:
    """What stands between two words: spaces, or a part that the model did not read."""
    if not text.strip():
        return _escaped(text)
    return f'<span style="color:#767676" title="not read by the model">{_escaped(text)}</span>'


def _word(word: "WordScore", scale: float) -> str:
    share = abs(word.score) / scale if scale else 0.0
    color = FOR if word.score >= 0 else AGAINST
    line = "solid" if word.score >= 0 else "dashed"
    style = f"background:{_rgba(color, _STRONGEST * share)};border-radius:2px"
    if share >= _FAINT:
        style += f";border-bottom:2px {line} rgb{color}"
    return f'<span style="{style}" title="{word.score:+.3g}">{_escaped(word.text)}</span>'


def _picture(explanation: "Explanation") -> str:
    images = [(explanation.pixels, "the picture"), (pictures.overlay(explanation), "its scores")]
    return "".join(
        '<figure style="display:inline-block;margin:4px 8px 4px 0;text-align:center">'
        f'<img alt="{name}" style="width:{max(224, image.shape[1])}px;max-width:100%;'
        f'image-rendering:pixelated" src="data:image/png;base64,'
        f'{base64.b64encode(pictures.png(image)).decode("ascii")}">'
        f'<figcaption style="{_SMALL}">{name}</figcaption></figure>'
        for image, name in images
    )


def _neighbors(explanation: "Explanation") -> str:
    has_pictures = any(neighbor.pixels is not None for neighbor in explanation.neighbors)
    rows = []
    for neighbor in explanation.neighbors:
        cells = [f"{neighbor.similarity:.3f}", _escaped(neighbor.label), _escaped(neighbor.text)]
        if has_pictures:
            content = base64.b64encode(pictures.png(neighbor.pixels)).decode("ascii")
            cells[2] = (
                f'<img alt="{cells[2]}" title="{cells[2]}" style="height:96px" '
                f'src="data:image/png;base64,{content}">'
            )
        rows.append("".join(f'<td style="{_CELL}">{cell}</td>' for cell in cells))
    header = "".join(
        f'<th style="{_CELL}">{name}</th>' for name in ("cosine", "label", "training example")
    )
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f'<table style="border-collapse:collapse"><tr>{header}</tr>{body}</table>'


_CELL = "text-align:start;padding:2px 12px 2px 0;vertical-align:top"


def _legend(explanation: "Explanation", scale: float) -> str:
    target = _escaped(explanation.target)
    marks = [(FOR, "solid", f"speaks for {target}" if explanation.is_signed else "important")]
    if explanation.is_signed:
        marks.append((AGAINST, "dashed", f"speaks against {target}"))
    entries = [
        f'<span style="background:{_rgba(color, _STRONGEST)};border-bottom:2px {line} rgb{color};'
        f'padding:0 6px;margin-inline-end:4px">&nbsp;</span>{text}&emsp;'
        for color, line, text in marks
    ]
    return f'<div style="{_SMALL}">{"".join(entries)}strongest score {scale:.3g}</div>'


def _largest(explanation: "Explanation") -> float:
    scores = [abs(word.score) for word in explanation.words]
    if explanation.patches is not None:
        scores.append(float(np.abs(explanation.patches).max()))
    return max(scores, default=0.0)


def _rgba(color: tuple[int, int, int], opacity: float) -> str:
    return f"rgba({color[0]},{color[1]},{color[2]},{opacity:.2f})"


def _escaped(text: str) -> str:
    return html.escape(printable(text))
