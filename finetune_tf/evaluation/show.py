"""Figures of the images that a model is trained on, with their labels."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from finetune_tf.architectures import PIXELS
from finetune_tf.base.arguments import check, shown
from finetune_tf.base.labels import Labels
from finetune_tf.base.spelling import names_checked
from finetune_tf.errors import DataTypeError
from finetune_tf.evaluation.document import require_matplotlib

if TYPE_CHECKING:
    import tensorflow as tf
    from matplotlib.figure import Figure

_LEAST_SHARE = 0.005  # shares below round to 0 %


@names_checked
def show(batches: "tf.data.Dataset", rows: int = 3, columns: int = 4) -> "Figure":
    """Draws the images of the next batch as a model gets them, with their labels.

    Of each video, the first frame, the one in the middle and the last one are drawn side by side.

    The images are prepared and, with `augment=`, changed at random. The batch is the one that a
    following fit begins with.

    Args:
        batches: Batches of images, from `Examples.batches`.
        rows: The most rows of images.
        columns: Images in a row.

    Returns:
        A matplotlib figure, which notebooks display.

    Raises:
        DataTypeError: If the batches have no images.
        MissingExtraError: If matplotlib is not installed.

    Example:
        >>> import tensorflow as tf
        >>> pixels = np.zeros((2, 32, 32, 3), "uint8")
        >>> batches = tf.data.Dataset.from_tensors(({"pixel_values": pixels}, [0, 1]))
        >>> [axes.get_title() for axes in ft.show(batches).axes]
        ['0', '1']
    """
    check(rows=rows, columns=columns)
    spec = getattr(batches, "element_spec", None)
    inputs = spec[0] if isinstance(spec, tuple) else spec
    if not isinstance(inputs, Mapping) or PIXELS not in inputs:
        found = f"batches of {', '.join(inputs)}" if isinstance(inputs, Mapping) else shown(batches)
        raise DataTypeError(
            f"show draws batches of images, such as train.batches(model, shuffle=True); found "
            f"{found}."
        )
    matplotlib = require_matplotlib()
    pixels, targets = _next_batch(batches)
    pixels = pixels[: rows * columns]
    if pixels.ndim == 5:
        frames = pixels.shape[1]
        pixels = np.concatenate([pixels[:, i] for i in (0, frames // 2, frames - 1)], axis=2)
    targets = [None] * len(pixels) if targets is None else targets[: len(pixels)]
    with matplotlib.rc_context({"text.parse_math": False}):  # names may contain dollar signs
        return _draw(pixels, targets, getattr(batches, "labels", None), columns)


def _next_batch(batches: "tf.data.Dataset") -> tuple[np.ndarray, np.ndarray | None]:
    """Pixels and targets of the next batch, which remains the next one."""
    cursor = getattr(batches, "cursor", None)
    place = (cursor.epoch, cursor.batch) if cursor else None
    batch = next(batches.as_numpy_iterator())
    if cursor:
        cursor.epoch, cursor.batch = place
    inputs, targets = batch[:2] if isinstance(batch, tuple) else (batch, None)
    return inputs[PIXELS], targets


def _draw(pixels: np.ndarray, targets: Sequence, labels: Labels | None, columns: int) -> "Figure":
    from finetune_tf.evaluation.figures import NotebookFigure, font_families, replace_undrawable

    lines = -(-len(pixels) // columns)
    figure = NotebookFigure(figsize=(2.2 * columns, 2.4 * lines), layout="constrained")
    has_names = labels is not None and labels.problem_type != "regression"
    names = replace_undrawable(labels, "class") if has_names else None
    for i, (image, target) in enumerate(zip(pixels, targets, strict=True)):
        axes = figure.add_subplot(lines, columns, i + 1)
        axes.imshow(image)
        axes.set_axis_off()
        axes.set_title(_title(target, names), fontsize=10, fontfamily=font_families())
    return figure


def _title(target: np.ndarray | None, names: list[str] | None) -> str:
    """A class index, a score, or a row of numbers for each label as text."""
    if target is None:
        return ""

    def name(index: int) -> str:
        return str(index) if names is None else names[index]

    if np.ndim(target) == 0:
        is_index = np.issubdtype(np.asarray(target).dtype, np.integer)
        return name(int(target)) if is_index else f"{float(target):g}"
    parts = [
        name(index) if share >= 1 - _LEAST_SHARE else f"{name(index)} {share:.0%}"
        for index, share in enumerate(target)
        if share >= _LEAST_SHARE
    ]
    return ", ".join(parts)
