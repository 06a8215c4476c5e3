"""The result of `check`: curves, intervals and correlations."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from finetune_tf.evaluation.bootstrap import Difference
from finetune_tf.evaluation.document import Document, Table


@dataclass(frozen=True, eq=False, repr=False)
class ExplanationCheck(Document):
    """How explanations of a model compare with chance; `check` makes it.

    Attributes:
        title: The method in words.
        name: The name of the examples.
        count: How many of them were measured.
        skipped: How many were left out, because they have a single word.
        unit: "words" or "patches".
        shares: The shares of the words that were replaced or kept.
        deletion: The mean probability that is left after replacing that share of the words by the
            baseline, most important first, as a share of the probability before.
        random_deletion: The same in random order.
        insertion: The mean probability with only that share of the words, most important first.
        random_insertion: The same in random order.
        deletion_difference: By how much deletion in the order of the explanation leaves less than
            random order, with the interval over examples. Above 0 is better than chance.
        insertion_difference: By how much insertion in the order of the explanation gives more.
        completeness_error: The median completeness error; None for methods without one.
        randomized: The mean rank correlation of the explanations with those of the model with
            randomized stages: for each stage from the top, with all stages above it randomized too.
            It falls if explanations depend on what the model has learned (Adebayo et al. 2018).
        randomized_count: The number of examples of that.
    """

    title: str
    name: str
    count: int
    skipped: int
    unit: str
    shares: tuple[float, ...]
    deletion: np.ndarray
    random_deletion: np.ndarray
    insertion: np.ndarray
    random_insertion: np.ndarray
    deletion_difference: Difference
    insertion_difference: Difference
    completeness_error: float | None
    randomized: dict[str, float]
    randomized_count: int

    def blocks(self) -> list[str | Table]:
        """The lines and tables in reading order."""
        percent = [f"{share:.0%}" for share in self.shares]
        rows = [
            [f"delete, {self.title.lower()}", *_cells(self.deletion)],
            ["delete, random order", *_cells(self.random_deletion)],
            [f"insert, {self.title.lower()}", *_cells(self.insertion)],
            ["insert, random order", *_cells(self.random_insertion)],
        ]
        skipped = f" ({self.skipped:,} with a single one left out)" if self.skipped else ""
        blocks: list[str | Table] = [
            f"{self.title} on {self.count:,} examples of {self.name}{skipped}: the share of the "
            f"probability that remains when so many {self.unit} are deleted or inserted",
            Table([self.unit, *percent, "mean"], rows),
            f"Deletion leaves {self.deletion_difference} less than random order; insertion gives "
            f"{self.insertion_difference} more.",
        ]
        if self.completeness_error is not None:
            blocks.append(f"Median completeness error: {self.completeness_error:.2%}.")
        if self.randomized:
            blocks += [
                f"Rank correlation with the explanations of the model whose stages are randomized "
                f"from the top, on {self.randomized_count:,} examples; it should fall:",
                Table(
                    ["randomized down to", "rank correlation"],
                    [[name, f"{value:.3f}"] for name, value in self.randomized.items()],
                ),
            ]
        return blocks

    def to_dict(self) -> dict:
        """The content as plain Python values."""
        curves = ("deletion", "random_deletion", "insertion", "random_insertion")
        differences = ("deletion_difference", "insertion_difference")
        return {
            "method": self.title,
            "examples": self.count,
            "skipped": self.skipped,
            "unit": self.unit,
            "shares": list(self.shares),
            **{name: getattr(self, name).tolist() for name in curves},
            **{name: vars(getattr(self, name)) for name in differences},
            "completeness_error": self.completeness_error,
            "randomized": self.randomized,
            "randomized_examples": self.randomized_count,
        }

    def _draw(self) -> Any:
        from finetune_tf.evaluation import figures

        drawn = figures.NotebookFigure(figsize=(9.0, 3.4), layout="constrained")
        curves = (
            ("deletion", self.deletion, self.random_deletion),
            ("insertion", self.insertion, self.random_insertion),
        )
        for axes, (title, own, random) in zip(drawn.subplots(1, 2), curves, strict=True):
            axes.plot(self.shares, own, "o-", color="#0072b2", label=self.title.lower())
            axes.plot(self.shares, random, "s--", color="#767676", label="random order")
            axes.set_xlabel(f"share of the {self.unit}")
            axes.set_ylabel("share of the probability")
            axes.legend(frameon=False)
            figures.style_axes(axes, title)
        return drawn

    __repr__ = Document.__str__


def _cells(curve: np.ndarray) -> list[str]:
    return [f"{value:.3f}" for value in (*curve, curve.mean())]
