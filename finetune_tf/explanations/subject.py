"""One row that is explained: its words or patches, its values at the cut, and a baseline."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from finetune_tf.architectures.towers import IMAGE, TEXT
from finetune_tf.errors import ModelError
from finetune_tf.explanations.cut import Arrays, Cut, inputs_of
from finetune_tf.tasks.explained import Aim, Word

Baseline = Literal["padding", "mask", "zeros"]
BASELINES = ("padding", "mask", "zeros")
_MOST_CELLS = 14  # patches along the side of a picture whose model has no patches of its own


@dataclass(frozen=True, eq=False)
class Subject:
    """A row, and the explained number as a function of its words and patches.

    Attributes:
        cut: The model.
        inputs: The inputs of the row, (1, …) each.
        aim: What is explained.
        words: Its words; empty for a picture.
        grid: The rows and columns of its patches; None for a text.
        values: The values (…) at each place of the cut.
        baseline: The values of a row that says nothing, of the same shapes.
        units: For each place the number of the word or patch at each position, -1 for none:
            (length,) for texts and (height, width) for pictures.
        batch_size: Rows that the model gets at a time.
    """

    cut: Cut
    inputs: dict[str, np.ndarray]
    aim: Aim
    words: list[Word]
    grid: tuple[int, int] | None
    values: Arrays
    baseline: Arrays
    units: Arrays
    batch_size: int = field(default=32)

    @property
    def names(self) -> list[str]:
        """The names of the places of the cut."""
        return list(self.cut.tensors)

    @property
    def patch_size(self) -> tuple[int, int] | None:
        """The height and width of a patch in pixels; None for a text."""
        if self.grid is None:
            return None
        unit = self.units[self.names.index(IMAGE)]
        return int((unit[:, 0] < self.grid[1]).sum()), int((unit[0] == 0).sum())

    @property
    def counts(self) -> list[int]:
        """The number of words or patches at each place of the cut."""
        cells = 0 if self.grid is None else self.grid[0] * self.grid[1]
        return [len(self.words) if name == TEXT else cells for name in self.names]

    @property
    def is_coarse(self) -> bool:
        """Whether the model computes in a precision below float32."""
        return any("16" in str(tensor.dtype) for tensor in self.cut.tensors.values())

    def scores(self, values: Arrays) -> np.ndarray:
        """The explained number (n,) for other values (n, …) at the cut."""
        parts = [
            self.cut.scores(self.inputs, [v[at] for v in values], self.aim.index)
            for at in self._batches(len(values[0]))
        ]
        return np.concatenate(parts)

    def score(self) -> float:
        """The explained number of the row itself."""
        return float(self.scores([value[None] for value in self.values])[0])

    def mean_gradients(self, count: int, values_at: Callable[[np.ndarray], Arrays]) -> Arrays:
        """The mean gradient with respect to the values at the cut, over several points.

        Args:
            count: The number of points.
            values_at: From the numbers of points (n,) to their values (n, …).
        """
        totals = [np.zeros(value.shape, "float64") for value in self.values]
        for at in self._batches(count):
            values = values_at(np.arange(count)[at])
            _, gradients = self.cut.gradients(self.inputs, values, self.aim.index)
            for total, gradient in zip(totals, gradients, strict=True):
                total += gradient.sum(axis=0, dtype="float64")
        return [total / count for total in totals]

    def replaced(self, masks: Sequence[np.ndarray]) -> Arrays:
        """The values of copies of the row in which some words or patches are those of the baseline.

        Args:
            masks: For each place (n, units), true for what is replaced.
        """
        copies = []
        for value, base, unit, mask in zip(
            self.values, self.baseline, self.units, masks, strict=True
        ):
            padded = np.concatenate([mask, np.zeros((len(mask), 1), bool)], axis=1)
            chosen = padded[:, unit][..., None]  # -1 is the last one, which is never replaced
            copies.append(np.where(chosen, base[None], value[None]))
        return copies

    def scores_without(self, masks: np.ndarray) -> np.ndarray:
        """The explained number (n,) of copies in which units (n, all units) are replaced."""
        borders = np.cumsum(self.counts)[:-1]
        parts = [
            self.scores(self.replaced(np.split(masks[at], borders, axis=1)))
            for at in self._batches(len(masks))
        ]
        return np.concatenate(parts)

    def by_unit(self, positions: Arrays) -> tuple[Arrays, list[float], float]:
        """Sums scores of positions over words and patches.

        Args:
            positions: For each place the score of each position, of the shape of `units`.

        Returns:
            The scores (units,) of each place; the scores of the positions that belong to no unit,
            such as special tokens; and the sum of all.
        """
        scores, others = [], []
        for of_place, unit, count in zip(positions, self.units, self.counts, strict=True):
            inside = unit >= 0
            scores.append(np.bincount(unit[inside], of_place[inside], minlength=count))
            others += of_place[~inside].tolist()
        return scores, others, float(sum(map(np.sum, positions)))

    def _batches(self, count: int) -> list[slice]:
        return [slice(i, i + self.batch_size) for i in range(0, count, self.batch_size)]


def subject_of(
    cut: Cut,
    encoded: Any,
    examples: Any,
    aim: Aim,
    baseline: str,
    patch: int | None,
    batch_size: int,
) -> Subject:
    """Prepares a row for explanations.

    Args:
        cut: The model.
        encoded: The encoded examples.
        examples: The examples.
        aim: What is explained of which row.
        baseline: As for `explain`.
        patch: As for `explain`.
        batch_size: Rows that the model gets at a time.
    """
    model = cut.model
    inputs = inputs_of(model, encoded, aim.row)
    values = [value[0] for value in cut.values(inputs)]
    words: list[Word] = []
    grid, units, bases = None, [], []
    for name, value in zip(cut.tensors, values, strict=True):
        if name == TEXT:
            words = model.task.explained_words(encoded, aim.row, examples, model.tokenizer)
            unit = np.full(value.shape[0], -1)
            for number, word in enumerate(words):
                unit[list(word.tokens)] = number
            bases.append(_text_baseline(cut, inputs, unit, value, baseline))
        else:
            grid, unit = _patches(model, value.shape, patch)
            bases.append(np.zeros_like(value))  # normalized pixels: the mean color
        units.append(unit)
    return Subject(cut, inputs, aim, words, grid, values, bases, units, batch_size)


def _text_baseline(
    cut: Cut, inputs: dict[str, np.ndarray], unit: np.ndarray, value: np.ndarray, kind: str
) -> np.ndarray:
    if kind == "zeros":
        return np.zeros_like(value)
    tokenizer = cut.model.tokenizer
    token = tokenizer.mask_token_id if kind == "mask" else tokenizer.pad_token_id
    if token is None:
        raise ModelError(
            f"baseline={kind!r} needs a token that the tokenizer does not have. Choose another one "
            f"of {', '.join(map(repr, BASELINES))}."
        )
    ids = np.where(unit >= 0, token, inputs["input_ids"][0])[None].astype("int32")
    return cut.embedded(inputs, ids)[0]


def _patches(
    model: Any, shape: tuple[int, ...], patch: int | None
) -> tuple[tuple[int, int], np.ndarray]:
    """The rows and columns of the patches of a picture, and the patch of each pixel."""
    height, width = shape[:2]
    sizes = (patch, patch) if patch is not None else own_patch_size(model)
    if sizes is None:
        sizes = (max(-(-max(height, width) // _MOST_CELLS), min(4, height, width)),) * 2
    if max(sizes) > max(height, width):
        raise ModelError(
            f"patch={patch} is larger than the pictures of the model, {height} x {width} pixels."
        )
    grid = (-(-height // sizes[0]), -(-width // sizes[1]))
    rows, columns = np.arange(height) // sizes[0], np.arange(width) // sizes[1]
    return grid, rows[:, None] * grid[1] + columns[None]


def own_patch_size(model: Any) -> tuple[int, int] | None:
    """The (height, width) of the patches that a model divides pictures into; None without any."""
    layers = [layer for stage in model.stages for layer in stage.layers]
    sizes = [layer.patch_size for layer in layers if hasattr(layer, "patch_size")]
    return tuple(sizes[0]) if sizes and len(sizes[0]) == 2 else None


def resized(scores: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Scales a map of scores (rows, columns) to (height, width), linearly in both directions."""
    for axis, new in enumerate(shape):
        old = scores.shape[axis]
        places = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        lower = np.floor(places).astype(int)
        upper, share = np.minimum(lower + 1, old - 1), places - lower
        share = share[:, None] if axis == 0 else share[None]
        scores = scores.take(lower, axis) * (1 - share) + scores.take(upper, axis) * share
    return scores


def place_of(subject: Subject, name: str) -> int | None:
    """The number of the place "text" or "image" of the cut; None if the model reads none."""
    return subject.names.index(name) if name in subject.names else None
