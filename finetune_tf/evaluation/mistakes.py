"""The most confident mistakes of a classifier of images, as text, HTML and a figure."""

import base64
import html
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_tf.architectures import PIXELS
from finetune_tf.base.labels import Labels
from finetune_tf.data import Examples
from finetune_tf.errors import DataError
from finetune_tf.evaluation.document import Table
from finetune_tf.messages import one_line
from finetune_tf.tasks import Encoded

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST = 12  # mistakes of a report
_LISTED = 5  # of these in the text; the figure and report.json have all
_EDGE = 160  # pixels of the longer side of a thumbnail
_COLUMNS = 6


@dataclass(frozen=True, eq=False)
class Mistake:
    """An image with a wrong predicted class.

    Attributes:
        image: The path of the image, or its place in the data, such as "row 3".
        target: The true label.
        prediction: The predicted label.
        score: The predicted probability of that label.
        pixels: A thumbnail of the prepared image, (height, width, 3) uint8; None if the image
            could not be read again.
    """

    image: str
    target: str
    prediction: str
    score: float
    pixels: np.ndarray | None = None

    @property
    def short_name(self) -> str:
        """The last two parts of a path, or the place of the image."""
        return "/".join(PurePath(self.image).parts[-2:])

    def to_dict(self) -> dict[str, Any]:
        """Returns the mistake as values that JSON can represent, without the pixels."""
        names = ("image", "target", "prediction", "score")
        return {name: getattr(self, name) for name in names}


def find_mistakes(
    test: Examples,
    encoded: Encoded,
    targets: np.ndarray,
    scores: np.ndarray,
    labels: Labels,
) -> list[Mistake]:
    """Returns the wrong predictions with the highest probabilities, the highest one first.

    Args:
        test: The test examples, with images.
        encoded: The same, prepared for the model.
        targets: Class indices (n,).
        scores: The predicted probabilities (n, num_labels).
        labels: The labels in index order.
    """
    predictions = scores.argmax(axis=1)
    wrong = np.flatnonzero(predictions != targets)
    confidence = scores[wrong, predictions[wrong]]
    found = wrong[np.argsort(-confidence, kind="stable")][:_MOST]
    return [
        Mistake(
            image=_name(test, row),
            target=labels[targets[row]],
            prediction=labels[predictions[row]],
            score=float(scores[row, predictions[row]]),
            pixels=_thumbnail(encoded, row),
        )
        for row in found.tolist()
    ]


def _name(test: Examples, row: int) -> str:
    image = test.columns["image"][row]
    is_path = isinstance(image, str | os.PathLike)
    return os.fspath(image) if is_path else test.places.name(row)


def _thumbnail(encoded: Encoded, row: int) -> np.ndarray | None:
    """A small copy of a prepared image, so that a report does not hold the images of the test."""
    from PIL import Image

    try:
        pixels = np.array(encoded.inputs[PIXELS].rows[row])
    except DataError:  # it was not stored, and its file has changed since the predictions
        return None
    image = Image.fromarray(pixels)
    image.thumbnail((_EDGE, _EDGE))
    return np.asarray(image)


def mistakes_table(mistakes: Sequence[Mistake]) -> list[str | Table]:
    """Returns the first mistakes as a table under a line; nothing if there are none."""
    if not mistakes:
        return []
    rows = [
        [each.short_name, each.target, each.prediction, f"{each.score:.3f}"]
        for each in mistakes[:_LISTED]
    ]
    header = ["image", "label", "predicted", "probability"]
    return ["The most confident mistakes:", Table(header, rows, has_numbers=False)]


def mistakes_html(mistakes: Sequence[Mistake]) -> str:
    """Returns the thumbnails with their labels as HTML; "" if there are none."""
    return "".join(
        '<figure style="display:inline-block;margin:4px;text-align:center;font-size:small">'
        f"{_image_tag(each)}<figcaption>{_escaped(each.prediction)} {each.score:.0%}<br>"
        f"label: {_escaped(each.target)}</figcaption></figure>"
        for each in mistakes
    )


def _image_tag(mistake: Mistake) -> str:
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
        axes.set_title(f"{prediction} {mistake.score:.0%}\nlabel: {target}", fontsize=9, **fonts)
    return figure
