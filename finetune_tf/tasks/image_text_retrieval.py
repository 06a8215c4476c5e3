"""Image-text retrieval: the texts of an image, and the images of a text, among all others."""

from typing import Any

import numpy as np

from finetune_tf.architectures import PIXELS
from finetune_tf.errors import DataError
from finetune_tf.tasks.encoded import Encoded
from finetune_tf.tasks.image_pairs import (
    PairTask,
    Processor,
    logits_of,
    matching_groups,
    pairs_encoded,
)
from finetune_tf.tasks.interfaces import Columns
from finetune_tf.tasks.usage import make_usage

#: The ranks up to which a match counts as found.
RANKS = (1, 5)


class ImageTextRetrieval(PairTask):
    """Trains on pairs of an image and a text with a contrastive loss, and finds one by the other.

    Rows with the same image or the same text belong together: in a batch they count as matches of
    each other, and a search is successful if it finds any of them.
    """

    name = "image-text-retrieval"
    columns = ("image", "text")
    input_forms = (("image",), ("text",), ("image", "text"))
    target_column = "text"
    reduces_with_targets = True
    has_old_classes = True
    usage = make_usage(predict='ft.predict(model, ["a dog on a beach"], image=["photo.jpg"])')

    def encode(self, examples: Columns, processor: Processor, max_length: int) -> Encoded:
        """Prepares images and texts; the target of a pair is the number of its group."""
        inputs, truncated = self.inputs_of(examples, processor, max_length)
        return pairs_encoded(inputs, truncated, self._groups(examples))

    def targets(self, examples: Columns) -> np.ndarray:
        """The number of the group of each pair (pairs,).

        Raises:
            DataError: If there are no images or no texts.
        """
        groups = self._groups(examples)
        if groups is None:
            raise DataError(
                f"image-text-retrieval is measured on images with texts, but {examples.name} has "
                f"{', '.join(examples.columns)}. Name both columns when reading it."
            )
        return groups

    def _groups(self, examples: Columns) -> np.ndarray | None:
        if not {"image", "text"} <= examples.columns.keys():
            return None
        return matching_groups(examples.columns["image"], examples.columns["text"])

    def require(self, examples: Columns) -> None:
        """Accepts images without texts and texts without images, which have vectors as well."""
        if not {"image", "text"} & examples.columns.keys():
            super().require(examples)

    def predict_rows(
        self, model: Any, encoded: Encoded, batch_size: int, forward: Any
    ) -> list[np.ndarray]:
        """The rows (2, features) of each pair, or the row (features,) of each image or text."""
        if PIXELS not in encoded.inputs:
            return forward(encoded, part=model.tower_rows("text"))
        if len(encoded.inputs) == 1:
            return forward(encoded, part=model.tower_rows("image"))
        return forward(encoded)

    def decide(self, rows: list[np.ndarray], encoded: Encoded, examples: Columns) -> np.ndarray:
        """Whether each pair is found, by its image and by its text, among all pairs.

        Returns:
            0 or 1 (pairs, 2 x ranks): first the texts of the image, then the images of the text;
            in each direction for every rank of `RANKS`.
        """
        distinct = (matching_groups(examples.columns[name]) for name in ("image", "text"))
        return found_within(np.stack(rows), self.targets(examples), *distinct)

    def describe(self, rows: list[np.ndarray], encoded: Encoded, examples: Columns) -> Any:
        """The logit of each pair (pairs,); the row of each image or text (rows, features)."""
        stacked = np.stack(rows)
        return (stacked[:, 0] * stacked[:, 1]).sum(axis=-1) if stacked.ndim == 3 else stacked

    def as_json(self, described: Any) -> dict[str, Any]:
        """The logit of a pair, or the row of an image or text."""
        return {"vector" if np.ndim(described) else "logit": described.tolist()}


def found_within(
    rows: np.ndarray, groups: np.ndarray, images: np.ndarray, texts: np.ndarray
) -> np.ndarray:
    """Whether a match of each pair is among the best ones, in both directions; see `decide`.

    An image is one candidate among all images, and a text among all texts, however many pairs have
    it. Its vectors would not tell, because they differ in their last digits between batches of
    different sizes. Among equal logits, a wrong candidate counts as better.

    Args:
        rows: (pairs, 2, features), the rows of images and texts.
        groups: The number of the group of each pair (pairs,).
        images: The number of the image of each pair (pairs,).
        texts: The number of the text of each pair (pairs,).

    Returns:
        (pairs, 2 x ranks), float64.
    """
    found = []
    for (queries, candidates), numbers in zip(
        ((rows[:, 0], rows[:, 1]), (rows[:, 1], rows[:, 0])), (texts, images), strict=True
    ):
        _, kept = np.unique(numbers, return_index=True)
        logits = logits_of(queries, candidates[kept])
        is_match = groups[:, None] == groups[kept][None]
        best = np.where(is_match, logits, -np.inf).max(axis=1, keepdims=True)
        before = (~is_match & (logits >= best)).sum(axis=1)
        found += [before < rank for rank in RANKS]
    return np.stack(found, axis=1).astype("float64")
