"""Baselines for image classification and regression, without a pretrained model.

- "colors": one-vs-rest logistic regression on colours and edges: histograms of colours (Swain and
  Ballard 1991), and histograms of oriented gradients (Dalal and Triggs 2005);
- "majority": the relative frequency of each label in the training examples;
- "ridge": ridge regression on the same features;
- "mean": the mean of the training targets.
"""

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from finetune_tf.base.labels import Labels, ProblemType
from finetune_tf.data import Examples
from finetune_tf.data.image_columns import image_key
from finetune_tf.evaluation.baselines.text import scorers
from finetune_tf.evaluation.evaluators.evaluator import BaselineFunction, Predicted
from finetune_tf.evaluation.metrics import decide
from finetune_tf.images import ImageProcessor

_EDGE = 64  # pixels of the small image that features are computed from
_LEVELS, _PARTS = 4, 2  # of each channel; of each side
_CELL, _ORIENTATIONS = 8, 9
_WORKERS = 4


def baselines_for_images(problem_type: ProblemType) -> dict[str, BaselineFunction]:
    """Returns the baselines of a problem type, as functions that return a `Predicted`."""
    found = scorers(image_features, "colors")[problem_type]
    return {name: with_scores(score) for name, score in found.items()}


def with_scores(score: Callable[..., np.ndarray]) -> BaselineFunction:
    """Converts a function that returns scores to one that returns a `Predicted`."""

    def predict(
        train: Examples, targets: np.ndarray, test: Examples, labels: Labels, seed: int
    ) -> Predicted:
        scores = score(train, targets, test, labels, seed)
        return Predicted(decide(scores, labels), scores)

    return predict


def image_features(train: Examples, test: Examples) -> tuple[np.ndarray, np.ndarray]:
    """Returns the features of training and of test images, standardized on the training images."""
    return standardized(
        *(features(each.columns["image"], features_of, image_key) for each in (train, test))
    )


def standardized(found: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns features of training and of test examples, standardized on the training examples.

    Args:
        found: Those of training examples, (examples, features).
        others: Those of test examples, (examples, features).
    """
    mean, stddev = found.mean(axis=0), found.std(axis=0) + 1e-6
    # Divided by the root of their number, as normalized texts have vectors of length 1.
    scale = stddev * np.sqrt(found.shape[1])
    return (found - mean) / scale, (others - mean) / scale


def features(
    values: Sequence[Any], function: Callable[[Any], np.ndarray], key: Callable[[Any], Hashable]
) -> np.ndarray:
    """Returns the features of images or videos, (values, features), from several threads.

    Args:
        values: The images or videos.
        function: Computes the features of one of them.
        key: Returns what is equal for values whose features are computed once.
    """
    keys = [key(value) for value in values]
    distinct = dict(zip(keys, values, strict=True))
    with ThreadPoolExecutor(_WORKERS) as pool:
        found = dict(zip(distinct, pool.map(function, distinct.values()), strict=True))
    return np.stack([found[key] for key in keys])


def features_of(image: Any) -> np.ndarray:
    """Returns colours and edges of an image, (features,).

    Args:
        image: As for `images.decode`.
    """
    size = {"height": _EDGE, "width": _EDGE}
    levels = ImageProcessor.from_config({"size": size}, "ViTImageProcessor")(image)
    return np.concatenate([color_histograms(levels), oriented_gradients(levels)])


def color_histograms(levels: np.ndarray) -> np.ndarray:
    """The shares of 64 colours in each quarter of an image, (256,).

    Args:
        levels: (H, W, 3) uint8.

    Example:
        >>> from finetune_tf.evaluation.baselines.images import color_histograms
        >>> histograms = color_histograms(np.zeros((4, 4, 3), "uint8"))
        >>> histograms.shape, histograms[:2].tolist()
        ((256,), [1.0, 0.0])
    """
    bins = levels.astype("int64") * _LEVELS // 256
    colors = (bins[:, :, 0] * _LEVELS + bins[:, :, 1]) * _LEVELS + bins[:, :, 2]
    parts = [
        part
        for rows in np.array_split(colors, _PARTS, axis=0)
        for part in np.array_split(rows, _PARTS, axis=1)
    ]
    counts = [np.bincount(part.ravel(), minlength=_LEVELS**3) / part.size for part in parts]
    return np.concatenate(counts)


def oriented_gradients(levels: np.ndarray) -> np.ndarray:
    """Histograms of the directions of edges in cells of 8 x 8 pixels, (cells x 9,).

    Each histogram is weighted by the strength of the edges and divided by its length.

    Args:
        levels: (H, W, 3) uint8.

    Example:
        >>> from finetune_tf.evaluation.baselines.images import oriented_gradients
        >>> image = np.zeros((16, 16, 3), "uint8")
        >>> image[:, 4:] = 255  # an upright edge
        >>> oriented_gradients(image).reshape(4, 9)[0].round(2).tolist()
        [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    """
    grey = levels.astype("float64").mean(axis=2)
    down, right = np.gradient(grey)
    angles = np.arctan2(down, right) % np.pi
    bins = np.minimum((angles / np.pi * _ORIENTATIONS).astype(int), _ORIENTATIONS - 1)
    strengths = np.hypot(down, right)
    rows, columns = grey.shape[0] // _CELL, grey.shape[1] // _CELL
    cells = np.zeros((rows, columns, _ORIENTATIONS))
    inside = (slice(rows * _CELL), slice(columns * _CELL))
    places = np.indices(grey.shape)[:, *inside] // _CELL
    np.add.at(cells, (places[0], places[1], bins[inside]), strengths[inside])
    lengths = np.linalg.norm(cells, axis=2, keepdims=True)
    return (cells / np.maximum(lengths, 1.0)).ravel()
