"""A feature: one array for each row, the axis along which rows differ in length, and a dtype.

The inputs of a model, its targets and the cached outputs of frozen stages are all features, so
batching pads, stores and reads each of them in the same way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from finetune_tf.errors import DataError

TOKENS = "tokens"
TARGET_TOKENS = "target_tokens"  # of the text that a decoder generates

#: The axes along which rows differ in length, and the attention mask of each of them.
MASKS = {TOKENS: "attention_mask", TARGET_TOKENS: "decoder_attention_mask"}

#: The input that says where each token stands in its text, for rows of several texts.
POSITIONS = "position_ids"

#: The input that says where texts begin in such rows, for models with one output for each text.
STARTS = "text_starts"

IGNORED = -100  # the target of a position that the loss leaves out; PyTorch's value for it


def ignored_in(dtype: str) -> float:
    """Returns the target of an entry that does not count: -100 for class numbers, else NaN.

    A number such as -100 could be the target of a regression. NaN cannot, and a loss that does not
    leave it out shows it.

    Args:
        dtype: The dtype of the targets.

    Example:
        >>> from finetune_tf.tasks.feature import ignored_in
        >>> ignored_in("int32"), ignored_in("float32")
        (-100, nan)
    """
    return IGNORED if "int" in dtype else np.nan


@dataclass(frozen=True, eq=False)
class Feature(Sequence):
    """One array for each row of the data.

        Feature(token_ids, padding=tokenizer.pad_token_id)   # batches (batch, length) int32
        Feature(pixels, axis=None, dtype="uint8")            # batches (batch, height, width, 3)

    Attributes:
        rows: The arrays: a list, an array (rows, …), or a `data.rows.StoredRows` that reads them
            from a file. With an axis, the first axis of a row may differ in length.
        axis: "tokens", "target_tokens", or None where all rows have one shape. The features of
            one axis have the same lengths and are padded to the same length in a batch.
        padding: Fills a row up to the length of its batch.
        dtype: Of batches.
    """

    rows: Sequence[np.ndarray]
    axis: str | None = TOKENS
    padding: float = 0
    dtype: str = "int32"

    def __post_init__(self) -> None:
        if self.axis is not None and self.axis not in MASKS:
            raise DataError(
                f"The axis of a feature is {', '.join(map(repr, MASKS))} or None, found "
                f"{self.axis!r}."
            )

    @classmethod
    def of_array(cls, array: np.ndarray) -> Self:
        """A feature without an axis: one entry of an array (rows, …) for each row, in its dtype."""
        return cls(array, axis=None, dtype=array.dtype.name)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> np.ndarray:
        return self.rows[row]

    @property
    def lengths(self) -> np.ndarray:
        """The length of each row along the axis, (rows,) int64."""
        stored = getattr(self.rows, "lengths", None)  # rows of a file know their lengths
        if stored is not None:
            return stored
        return np.fromiter((len(row) for row in self.rows), dtype="int64", count=len(self.rows))


def lengths_by_axis(features: Mapping[str, Feature]) -> dict[str, np.ndarray]:
    """The lengths (rows,) of rows along each axis that some feature has, in the order of `MASKS`.

    Raises:
        DataError: If two features of one axis differ in their lengths.

    Example:
        >>> from finetune_tf.tasks.feature import Feature, lengths_by_axis
        >>> texts = Feature([np.array([2, 7, 3]), np.array([2, 3])])
        >>> summaries = Feature([np.array([2]), np.array([8, 3])], axis="target_tokens")
        >>> {a: n.tolist() for a, n in lengths_by_axis({"x": texts, "y": summaries}).items()}
        {'tokens': [3, 2], 'target_tokens': [1, 2]}
    """
    found: dict[str, tuple[str, np.ndarray]] = {}
    for name, feature in features.items():
        if feature.axis is None:
            continue
        lengths = feature.lengths
        first, expected = found.setdefault(feature.axis, (name, lengths))
        if not np.array_equal(lengths, expected):
            raise DataError(f"{first!r} and {name!r} differ in the lengths of their rows.")
    return {axis: found[axis][1] for axis in MASKS if axis in found}
