"""The most confident mistakes of a classifier of images, with their texts if there are any."""

import os
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np

from finetune_tf.architectures import PIXELS
from finetune_tf.base.labels import Labels
from finetune_tf.data import Examples
from finetune_tf.errors import DataError
from finetune_tf.tasks import Encoded

_MOST = 12  # mistakes of a report
_EDGE = 160  # pixels of the longer side of a thumbnail


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
        text: The text that belongs to the image; empty if there is none.
    """

    image: str
    target: str
    prediction: str
    score: float
    pixels: np.ndarray | None = None
    text: str = ""

    @property
    def short_name(self) -> str:
        """The last two parts of a path, or the place of the image."""
        return "/".join(PurePath(self.image).parts[-2:])

    def to_dict(self) -> dict[str, Any]:
        """Returns the mistake as values that JSON can represent, without the pixels."""
        names = ("image", *(("text",) if self.text else ()), "target", "prediction", "score")
        return {name: getattr(self, name) for name in names}


def find_mistakes(
    test: Examples,
    encoded: Encoded,
    targets: np.ndarray,
    predictions: np.ndarray,
    scores: np.ndarray,
    labels: Labels,
) -> list[Mistake]:
    """Returns the wrong predictions with the highest probabilities, the highest one first.

    Args:
        test: The test examples, with images.
        encoded: The same, prepared for the model.
        targets: Class indices (n,).
        predictions: The predicted class indices (n,), which thresholds may have decided.
        scores: The predicted probabilities (n, num_labels).
        labels: The labels in index order.
    """
    wrong = np.flatnonzero(predictions != targets)
    texts = test.columns.get("text")
    confidence = scores[wrong, predictions[wrong]]
    found = wrong[np.argsort(-confidence, kind="stable")][:_MOST]
    return [
        Mistake(
            image=_name(test, row),
            target=labels[targets[row]],
            prediction=labels[predictions[row]],
            score=float(scores[row, predictions[row]]),
            pixels=_thumbnail(encoded, row),
            text=texts[row] if texts else "",
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
