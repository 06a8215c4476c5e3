"""The result of `rank_checkpoints`: scores with intervals, best first."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from finetune_tf.evaluation.document import Document, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Score:
    """A score with its 95 % interval; higher is better.

    Attributes:
        value: The score on all rows.
        low: The lower end of the interval.
        high: The upper end of the interval.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True)
class RankedCheckpoint:
    """A checkpoint of a ranking.

    Attributes:
        name: Its name in the call.
        h_score: Its H-score, from 0 to 1; higher is better.
        probe: The main metric of a linear probe on held-out rows; higher is better.
        ties_with_best: Whether its difference from the best checkpoint, in the score that ranks,
            has an interval that includes 0; true for the best one itself.
        seconds: The time of loading it and of computing its features.
        parameters: The number of its parameters, without a head.
        megabytes: The size of these parameters in the dtype of its file.
        languages: The languages that its model card or config names; empty if neither does.
    """

    name: str
    h_score: Score
    probe: Score
    ties_with_best: bool
    seconds: float
    parameters: int
    megabytes: float
    languages: tuple[str, ...] = ()


class Ranking(Document):
    """The result of `rank_checkpoints`; `print` shows it as a table, best checkpoint first.

    Attributes:
        rows: A `RankedCheckpoint` for each checkpoint that could be scored, best first.
        failed: What was wrong with each of the others, by name.
        by: The score that ranks: "h_score" or "probe".
        metric: The metric of the linear probe, such as "accuracy".
        data: What the scores were computed on, as a sentence.

    Example:
        >>> ranking = ft.rank_checkpoints([checkpoint], train)
        >>> ranking.best == checkpoint, ranking.ties
        (True, [])
    """

    _drawing = ""

    def __init__(
        self,
        rows: list[RankedCheckpoint],
        failed: Mapping[str, str],
        by: str,
        metric: str,
        data: str,
    ) -> None:
        self.rows, self.failed = rows, dict(failed)
        self.by, self.metric, self.data = by, metric, data

    @property
    def best(self) -> str:
        """The name of the checkpoint with the highest score."""
        return self.rows[0].name

    @property
    def ties(self) -> list[str]:
        """The names of the checkpoints that these rows cannot tell apart from the best one."""
        return [row.name for row in self.rows[1:] if row.ties_with_best]

    def blocks(self) -> list[str | Table]:
        """Returns the lines and the table in reading order."""
        probe = f"probe {self.metric}"
        header = ["checkpoint", "H-score", probe, "seconds", "parameters", "MB", "languages"]
        rows = [
            [
                row.name,
                str(row.h_score),
                str(row.probe),
                f"{row.seconds:.1f}",
                f"{row.parameters:,}",
                f"{row.megabytes:,.1f}",
                ", ".join(row.languages) or "not stated",
            ]
            for row in self.rows
        ]
        name = {"h_score": "H-score", "probe": probe}[self.by]
        lines = [
            f"{self.data} Higher is better for both scores, which have 95% intervals; the "
            f"checkpoints are in the order of the {name}, the best one first.",
            Table(header, rows),
        ]
        if self.ties:
            lines.append(
                f"{self.best} and {', '.join(self.ties)} tie: the interval of their difference "
                "includes 0. Choose by size, or score more rows."
            )
        elif len(self.rows) > 1:
            lines.append(f"{self.best} is clearly the best by its {name}.")
        lines += [f"{name} could not be scored: {error}" for name, error in self.failed.items()]
        return lines

    def to_dict(self) -> dict:
        """Returns the ranking as values that JSON can represent."""
        return {
            "by": self.by,
            "higher_is_better": True,
            "metric": self.metric,
            "data": self.data,
            "best": self.best,
            "ties": self.ties,
            "rows": [asdict(row) | {"languages": list(row.languages)} for row in self.rows],
            "failed": self.failed,
        }

    def _draw(self) -> "Figure":
        from finetune_tf.search.figures import ranking_figure

        return ranking_figure(self)

    def __repr__(self) -> str:
        return str(self)
