"""The result of `tune`: the trials, the best setting, and its lead on untouched data."""

import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_tf.evaluation.bootstrap import Difference
from finetune_tf.evaluation.comparison import Comparison
from finetune_tf.evaluation.document import Document, Table
from finetune_tf.model.finetune_model import FineTuneModel
from finetune_tf.model.loading import load
from finetune_tf.search.space import as_code

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The names of the two models in the comparison on the test examples.
DEFAULT_NAME, BEST_NAME = "default settings", "best trial"


@dataclass(frozen=True)
class TunedTrial:
    """A trial of a search.

    Attributes:
        number: Its number; None for the run with the default settings.
        settings: What it differs in from the default settings.
        value: Its validation result; None for a trial that failed.
        state: "finished", "stopped early" (its results were below the median of the others at the
            same epoch, or the time was over) or "failed".
        seconds: How long it took.
        error: Why it failed; None for others.
    """

    number: int | None
    settings: dict[str, Any]
    value: float | None
    state: str
    seconds: float
    error: str | None = None

    @property
    def name(self) -> str:
        """The name in tables."""
        return "default" if self.number is None else str(self.number)


class TuneResult(Document):
    """The result of `tune`; `print` shows it.

    Attributes:
        metric: The validation result that chose the best trial, such as "val_accuracy".
        higher_is_better: Whether a higher one is better.
        trials: The run with the default settings, then all trials.
        best: The trial with the best validation result.
        folder: The folder of the search.
        comparison: The best trial and the default settings on the test examples; None without test
            examples, or if no trial was better than the default settings.

    Example:
        >>> space = {"batch_size": [2, 4]}
        >>> result = ft.tune(checkpoint, train, train, space=space, trials=1, folder="search")
        >>> [trial.name for trial in result.trials], result.metric
        (['default', '1'], 'val_accuracy')
    """

    def __init__(
        self,
        metric: str,
        higher_is_better: bool,
        trials: list[TunedTrial],
        best: TunedTrial,
        call: Mapping[str, Any],
        folder: Path,
        comparison: Comparison | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.metric, self.higher_is_better = metric, higher_is_better
        self.trials, self.best = trials, best
        self.folder, self.comparison, self.notes = folder, comparison, notes
        self._call = dict(call)

    @property
    def lead(self) -> Difference | None:
        """The best trial minus the default settings on the test examples, with its interval."""
        return None if self.comparison is None else self.comparison.rows[1].difference

    @functools.cached_property
    def model(self) -> FineTuneModel:
        """The model of the best trial, loaded from the folder."""
        return load(self.folder / folder_of(self.best), self._call["fixed"].get("task"))

    def code(self) -> str:
        """Returns the call of `finetune` with the settings of the best trial, to be pasted.

        The call needs the names `train` and, if there were validation examples, `validation`; for
        a distillation also `teacher`.
        """
        checkpoint, *rest = self._call["arguments"]
        settings = self._call["fixed"] | self.best.settings | {"seed": self._call["seed"]}
        lines = [as_code(checkpoint), *rest]
        lines += [f"{name}={as_code(value)}" for name, value in settings.items()]
        return "ft.finetune(\n" + "".join(f"    {line},\n" for line in lines) + ")"

    def blocks(self) -> list[str | Table]:
        """Returns the lines and the table in reading order."""
        names = list(dict.fromkeys(name for trial in self.trials for name in trial.settings))
        rows = [
            [
                trial.name,
                "-" if trial.value is None else f"{trial.value:.4f}",
                *(_shown(trial.settings.get(name, "default")) for name in names),
                f"{trial.seconds:.1f}",
                trial.state,
            ]
            for trial in self.trials
        ]
        note = "higher" if self.higher_is_better else "lower"
        lines = [
            f"{self.metric} ({note} is better) of {len(self.trials) - 1} trials and the default "
            "settings:",
            Table(["trial", self.metric, *names, "seconds", "state"], rows),
        ]
        failed = [trial for trial in self.trials if trial.error is not None]
        lines += [f"Trial {trial.name} failed: {trial.error}" for trial in failed]
        lines.append(self._verdict())
        return [*lines, *self.notes]

    def _verdict(self) -> str:
        if self.best.number is None:
            return f"No trial had a better {self.metric} than the default settings."
        chosen = ", ".join(f"{name} {_shown(value)}" for name, value in self.best.settings.items())
        verdict = f"Trial {self.best.name} is the best one: {chosen}."
        if self.comparison is None:
            return (
                f"{verdict} Its {self.metric} chose it, so it says too much about how good it is; "
                "give test= to measure its lead on untouched data."
            )
        default, best = (row.metrics[self.comparison.main_metric] for row in self.comparison.rows)
        clear = "" if self.lead.is_clear else "; the interval includes 0, no clear difference"
        return (
            f"{verdict} On {self.comparison.name}, which no choice has seen, its "
            f"{self.lead.metric} is {best:.3f}, against {default:.3f} with the default settings: "
            f"difference {self.lead}{clear}."
        )

    def to_dict(self) -> dict:
        """Returns the result as values that JSON can represent."""
        trials = [
            asdict(trial) | {"settings": {n: _plain(v) for n, v in trial.settings.items()}}
            for trial in self.trials
        ]
        return {
            "metric": self.metric,
            "higher_is_better": self.higher_is_better,
            "trials": trials,
            "best": trials[self.trials.index(self.best)],
            "code": self.code(),
            "comparison": None if self.comparison is None else self.comparison.to_dict(),
        }

    def _draw(self) -> "Figure":
        from finetune_tf.search.figures import tune_figure

        return tune_figure(self)

    def __repr__(self) -> str:
        return str(self)


def folder_of(trial: TunedTrial) -> str:
    """Returns the name of the folder with the checkpoint of a trial."""
    return "default" if trial.number is None else f"trial-{trial.number}"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else as_code(value)


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | None) else as_code(value)
