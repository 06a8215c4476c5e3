"""The result of `learning_curve`: methods by number of examples, and where to switch."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from finetune_tf.errors import DataError
from finetune_tf.evaluation.document import Document, Table
from finetune_tf.evaluation.intervals import Interval, mean

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class CurveCell:
    """A method with a number of examples.

    Attributes:
        method: The method.
        shots: The number of examples of each class.
        values: The main metric on the test for each split.
        seconds: The median processor time of training, without loading and predictions. The first
            training of "contrastive" and of "full" also traces the step for all others.
    """

    method: str
    shots: int
    values: tuple[float, ...]
    seconds: float

    @property
    def interval(self) -> Interval:
        """The mean over the splits with its 95 % interval, by Student's t."""
        return mean(self.values)

    @property
    def mean(self) -> float:
        """The mean over the splits."""
        return self.interval.value

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.interval.high - self.mean:.3f}"


class LearningCurve(Document):
    """Methods of classification by the number of examples of each class.

    Attributes:
        cells: A `CurveCell` for each method and number of examples.
        methods: The methods, the one with the least effort first.
        shots: The numbers of examples of each class.
        metric: The metric, such as "accuracy"; higher is better.
        name: The name of the test.
        texts: The number of its texts.
        splits: The number of random draws of training examples.
    """

    def __init__(
        self, cells: Sequence[CurveCell], metric: str, name: str, texts: int, splits: int
    ) -> None:
        self.cells = list(cells)
        self.methods = list(dict.fromkeys(cell.method for cell in cells))
        self.shots = list(dict.fromkeys(cell.shots for cell in cells))
        self.metric, self.name, self.texts, self.splits = metric, name, texts, splits

    def cell(self, method: str, shots: int) -> CurveCell:
        """Returns the cell of a method and a number of examples.

        Raises:
            DataError: If there is none.
        """
        for cell in self.cells:
            if (cell.method, cell.shots) == (method, shots):
                return cell
        raise DataError(
            f"The curve has no cell {method!r} at {shots!r}; it has the methods "
            f"{', '.join(self.methods)} at {', '.join(map(str, self.shots))} examples."
        )

    def leads(self, method: str, other: str, shots: int) -> bool:
        """Whether a method is better than another by more than chance explains.

        Both are trained on the same draws, so the interval is that of their difference.
        """
        values = np.subtract(self.cell(method, shots).values, self.cell(other, shots).values)
        return mean(values, 1 / self.texts).low > 0

    def recommended(self, shots: int) -> str:
        """Returns the method to use: one with more effort only if it clearly leads."""
        best = self.methods[0]
        for method in self.methods[1:]:
            if self.leads(method, best, shots):
                best = method
        return best

    def leads_from(self, method: str) -> int | None:
        """Returns the number of examples from which on a method leads all methods of less effort.

        It leads by more than its interval at this number and at all larger ones of the curve. None
        if there is no such number.
        """
        simpler = self.methods[: self.methods.index(method)]
        first = None
        for shots in reversed(self.shots):
            if not simpler or not all(self.leads(method, other, shots) for other in simpler):
                break
            first = shots
        return first

    def blocks(self) -> list[str | Table]:
        """Returns the lines and the table in reading order."""
        header = [f"examples a class: {self.metric}", *map(str, self.shots)]
        rows = [
            [method, *(str(self.cell(method, shots)) for shots in self.shots)]
            for method in self.methods
        ]
        rows.append(["use", *(self.recommended(shots) for shots in self.shots)])
        seconds = [
            [method, *(f"{self.cell(method, shots).seconds:.1f}" for shots in self.shots)]
            for method in self.methods
        ]
        return [
            f"{self.name}: {self.texts:,} texts, {self.splits} random draws of the training "
            "examples; mean over the draws with its 95% interval.",
            Table(header, rows),
            self.advice(),
            Table(["processor seconds of training (median)", *map(str, self.shots)], seconds),
        ]

    def advice(self) -> str:
        """Says from which number of examples each method leads, and where to switch."""
        sentences = []
        for method in self.methods[1:]:
            shots = self.leads_from(method)
            simpler = " and ".join(self.methods[: self.methods.index(method)])
            sentences.append(
                f"{method} never leads {simpler} lastingly by more than its interval."
                if shots is None
                else f"{method} leads {simpler} by more than its interval from {shots} examples a "
                "class on."
            )
        chosen = [self.recommended(shots) for shots in self.shots]
        steps = [f"{chosen[0]} at {self.shots[0]}"]
        for before, now, shots in zip(chosen, chosen[1:], self.shots[1:], strict=False):
            if now != before:
                steps.append(f"{now} from {shots}")
        sentences.append(f"Where to switch: {', '.join(steps)} examples a class.")
        return " ".join(sentences)

    def to_dict(self) -> dict:
        """Returns the curve as values that JSON can represent."""
        return {
            "test": self.name,
            "texts": self.texts,
            "metric": self.metric,
            "splits": self.splits,
            "cells": [
                asdict(c) | {"mean": c.mean, "low": c.interval.low, "high": c.interval.high}
                for c in self.cells
            ],
            "leads_from": {method: self.leads_from(method) for method in self.methods},
            "recommended": {str(shots): self.recommended(shots) for shots in self.shots},
        }

    def _draw(self) -> "Figure":
        from finetune_tf.fewshot.curve_figure import curve_figure

        return curve_figure(self)

    def __repr__(self) -> str:
        return str(self)
