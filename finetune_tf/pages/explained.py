"""Explanations of single predictions as HTML in the language and the colors of the page.

Blue speaks for the prediction and orange against it (Okabe and Ito 2008); words also have a solid
or a dashed line below them, so that colors are not needed.
"""

import base64
import io
from typing import Any

import numpy as np

from finetune_tf.diagnosis.features import text_of
from finetune_tf.diagnosis.results import LossRow
from finetune_tf.errors import FinetuneError
from finetune_tf.explanations import Explanation, WordScore, explain
from finetune_tf.explanations.pictures import overlay
from finetune_tf.messages import quiet
from finetune_tf.pages.content import Content
from finetune_tf.pages.elements import LONGEST_TEXT, Html, join, tag
from finetune_tf.pages.numbers import signed
from finetune_tf.pages.words import Words

_STRONGEST = 0.5  # opacity of the color behind the word with the largest score
_FAINT = 0.05  # of the largest score: words below it are not marked
_EDGE = 224  # pixels of the longer side of a picture
_COLORS = {"for": "0,114,178", "against": "213,94,0"}


def explained(content: Content, rows: list[LossRow], size: int) -> tuple[list[Html], Html | None]:
    """Explains some rows of the test set.

    Args:
        content: The content of the page.
        rows: The rows, as `top_losses` found them among the test examples or others.
        size: The number of examples among which they were found.

    Returns:
        The explanation of each row, and a sentence that says why there are none, if so.
    """
    words, model = content.words, content.model
    if not rows:
        return [], None
    if model is None:
        return [], words.html("worst.needs_model")
    if size != len(content.report.targets):
        return [], words.html("worst.other_data")
    test = content.report.test
    if test is None:
        return [], words.html("left_out.no_test")
    if any(each.text != text_of(test, each.row) for each in rows):  # others of the same number
        return [], words.html("worst.other_data")
    try:
        with quiet():
            found = explain(model, test[[each.row for each in rows]])
    except FinetuneError as error:  # such as a task without explanations
        message = tag("code", error, lang="en")
        return [], words.html("worst.not_explained", message=message)
    return [shown(each, words) for each in found], None


def shown(explanation: Explanation, words: Words) -> Html:
    """Returns an explanation as one element.

    Args:
        explanation: The explanation.
        words: The words of the page.
    """
    scale = max((abs(word.score) for word in explanation.words), default=0.0)
    parts = [_text(explanation, column, scale) for column in explanation.texts]
    if explanation.patches is not None:
        images = [(explanation.pixels, "picture"), (overlay(explanation), "scores")]
        parts += [_picture(image, words(f"explained.{key}")) for image, key in images]
    return tag("div", *parts, _remarks(explanation, words), class_="explanation")


def _text(explanation: Explanation, column: str, scale: float) -> Html:
    """A text as it is written, with its words marked."""
    text, at, parts = explanation.texts[column], 0, []
    marked = [word for word in explanation.words if word.column == column]
    for word in sorted(marked, key=lambda word: word.start):
        parts += [text[at : word.start], _word(word, scale)]
        at = word.end
    rest = text[at : max(at, LONGEST_TEXT)]
    left_out = len(text) - at - len(rest)
    more = tag("span", f" […+{left_out:,}]", class_="faint", dir="ltr") if left_out else None
    name = tag("span", f"{column}: ", class_="faint") if len(explanation.texts) > 1 else None
    return tag("div", name, join(parts), rest, more, dir="auto", class_="passage")


def _word(word: WordScore, scale: float) -> Any:
    share = abs(word.score) / scale if scale else 0.0
    if share < _FAINT:
        return word.text
    side = "for" if word.score >= 0 else "against"
    return tag(
        "span",
        word.text,
        class_=side,
        style=f"background:rgba({_COLORS[side]},{_STRONGEST * share:.2f})",
        title=f"{word.score:+.3g}",
    )


def _picture(pixels: np.ndarray, title: str) -> Html:
    """A picture as JPEG, which is a tenth of a PNG of a photograph."""
    from PIL import Image

    image, buffer = Image.fromarray(pixels), io.BytesIO()
    image.thumbnail((_EDGE, _EDGE))
    image.save(buffer, "JPEG", quality=85)
    source = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
    return tag("img", src=source, alt=title, title=title)


def _remarks(explanation: Explanation, words: Words) -> Html:
    """The colors, and how far the scores add up."""
    keys = [
        tag("span", tag("span", "\u00a0\u00a0", class_=side), " ", words(f"explained.{side}"))
        for side in (("for", "against") if explanation.is_signed else ("for",))
    ]
    target = words.html("explained.target", target=explanation.target)
    facts = [target, *keys]
    if explanation.completeness_error is not None:
        facts.append(
            words.html(
                "explained.complete",
                score=signed(explanation.score),
                error=f"{explanation.completeness_error:.1%}",
            )
        )
    return tag("p", join(facts, " · "), class_="faint")
