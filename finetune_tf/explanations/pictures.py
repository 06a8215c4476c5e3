"""Scores drawn on a picture, and figures of explanations."""

import io
from typing import TYPE_CHECKING

import numpy as np

from finetune_tf.errors import MissingExtraError
from finetune_tf.evaluation.document import require_matplotlib
from finetune_tf.explanations.subject import resized
from finetune_tf.messages import one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from finetune_tf.explanations.explanation import Explanation

_FOR, _AGAINST = np.array([0.0, 114.0, 178.0]), np.array([213.0, 94.0, 0.0])
_STRONGEST = 0.8  # opacity of the color over the patch with the largest score
_LEAST = 224  # pixels that the shorter side of a drawn picture has
_BARS = 20  # words in a figure


def overlay(explanation: "Explanation") -> np.ndarray:
    """Returns the picture in gray with its scores as colors, (height, width, 3) uint8.

    Blue speaks for the target and orange against it. Scores of a convolutional network are drawn
    without steps between its cells, those of patches with them.
    """
    pixels, scores = explanation.pixels, explanation.patches
    factor = max(1, -(-_LEAST // min(pixels.shape[:2])))
    pixels = pixels.repeat(factor, axis=0).repeat(factor, axis=1)
    if explanation.patch_size is None:
        field = resized(scores, pixels.shape[:2])
    else:
        field = _in_steps(scores, pixels.shape[:2], explanation.patch_size, factor)
    share = field / (np.abs(scores).max() or 1.0)
    gray = (pixels @ np.array([0.299, 0.587, 0.114]))[..., None].repeat(3, axis=2)
    color = np.where(share[..., None] >= 0, _FOR, _AGAINST)
    opacity = _STRONGEST * np.abs(share)[..., None]
    return (gray * (1 - opacity) + color * opacity).clip(0, 255).astype("uint8")


def _in_steps(
    scores: np.ndarray, shape: tuple[int, ...], patch_size: tuple[int, int], factor: int
) -> np.ndarray:
    """Repeats the score of each patch; patches at the lower and right border may be cut off."""
    for axis in (0, 1):
        places = np.arange(shape[axis]) // (patch_size[axis] * factor)
        # Pixels that the model does not read have the score of the patch beside them.
        scores = scores.take(np.minimum(places, scores.shape[axis] - 1), axis)
    return scores


def png(pixels: np.ndarray) -> bytes:
    """Returns a picture (height, width, 3) uint8 as the bytes of a PNG file.

    Raises:
        MissingExtraError: If Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError(
            "Pictures need Pillow, which is not installed. Install it with: "
            "pip install 'finetune-tf[images]'"
        ) from error
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def figure(explanation: "Explanation") -> "Figure":
    """Draws the picture beside its scores, or the strongest words as bars."""
    matplotlib = require_matplotlib()
    with matplotlib.rc_context({"text.parse_math": False}):  # names may contain dollar signs
        from finetune_tf.evaluation import figures

        columns = [explanation.patches is not None] * 2 + [bool(explanation.words)]
        drawn = figures.NotebookFigure(
            figsize=(3.6 * sum(columns) + 1.2, 3.8), layout="constrained"
        )
        axes = list(drawn.subplots(1, sum(columns), squeeze=False)[0])
        if explanation.patches is not None:
            for image, title in ((explanation.pixels, "picture"), (overlay(explanation), "scores")):
                place = axes.pop(0)
                place.imshow(image)
                place.set(xticks=[], yticks=[])
                place.set_title(title, loc="left", fontsize=10)
        if explanation.words:
            _draw_words(axes.pop(0), explanation)
        (name,) = figures.replace_undrawable([one_line(explanation.target)], "target")
        drawn.suptitle(
            f"{explanation.title} for {name}",
            x=0.012,
            ha="left",
            fontsize=11,
            fontfamily=figures.font_families(),
        )
    return drawn


def _draw_words(axes: object, explanation: "Explanation") -> None:
    from finetune_tf.evaluation import figures

    words = explanation.strongest(_BARS)[::-1]
    names = figures.replace_undrawable([one_line(word.text) for word in words], "word")
    scores = [word.score for word in words]
    colors = [tuple((_FOR if score >= 0 else _AGAINST) / 255) for score in scores]
    hatches = ["" if score >= 0 else "///" for score in scores]
    axes.barh(range(len(words)), scores, color=colors, hatch=hatches, edgecolor="white")
    axes.set_yticks(range(len(words)), names, fontfamily=figures.font_families())
    axes.axvline(0.0, color=figures.INK, linewidth=0.8)
    figures.style_axes(axes, "words (hatched: against)" if min(scores) < 0 else "words")
