"""`rank_checkpoints`: scores checkpoints for a data set without fine-tuning them."""

import gc
import itertools
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from finetune_tf.base.arguments import check, shown
from finetune_tf.base.spelling import names_checked
from finetune_tf.data import Examples
from finetune_tf.errors import DataError, DataTypeError, FinetuneError, ModelError
from finetune_tf.evaluation.evaluators.evaluator import Evaluator
from finetune_tf.evaluation.evaluators.registry import evaluator_of
from finetune_tf.evaluation.intervals import of_metric
from finetune_tf.messages import quiet, say
from finetune_tf.model.finetune_model import FineTuneModel
from finetune_tf.model.loading import load
from finetune_tf.search.languages import languages_of
from finetune_tf.search.layer_means import layer_means
from finetune_tf.search.ranking import RankedCheckpoint, Ranking, Score
from finetune_tf.search.scores import NORMAL, h_score, half_samples, linear_probe
from finetune_tf.tasks.classification import Classification
from finetune_tf.tasks.decisions import decide

_HALVES, _RESAMPLES = 50, 2000
_HELD_OUT = 0.25


@names_checked
def rank_checkpoints(
    checkpoints: Iterable[str | Path] | Mapping[str, str | Path],
    train: Examples,
    validation: Examples | None = None,
    *,
    task: str | None = None,
    by: Literal["h_score", "probe"] = "h_score",
    rows: int | None = 2000,
    max_length: int | None = None,
    dtype: Any = None,
    seed: int = 0,
) -> Ranking:
    """Ranks checkpoints by how well their features fit a data set, without fine-tuning them.

    The features of an example are its hidden states, averaged over the tokens and over all layers
    (Garbas et al., TransformerRanker, 2024). Each checkpoint gets two scores; for both, higher is
    better: the H-score of the features (see `search.scores.h_score`), and the main metric of a
    linear probe, a ridge regression, on held-out rows. A score does not know how well a checkpoint
    fine-tunes; it tells candidates apart that are far apart, and says which ones it cannot.

    A checkpoint that cannot be loaded, or that cannot read the data, is reported in the result and
    does not stop the others. One model at a time is in memory.

    Args:
        checkpoints: Folders or Hub ids; or a dict of a name to each of them.
        train: Examples with labels, for classification with one label or several labels or for
            regression.
        validation: The rows that the probe is measured on; by default a quarter of `train` is held
            out.
        task: The task, as for `load`; by default that of each checkpoint.
        by: The score that ranks.
        rows: The most training rows that are used; None for all. Other rows are left out at random.
        max_length: The maximum number of tokens per text; by default the maximum of each model.
        dtype: As in `load`.
        seed: Seed of the rows, of the held-out part and of the intervals.

    Returns:
        The ranking; print it. `best` is the name of the best checkpoint, and `ties` names those
        that cannot be told apart from it.

    Raises:
        DataTypeError: If `train` or `validation` are not `Examples`, or there is no list of
            checkpoints.
        DataError: If there are no labels or no checkpoints.
        ModelError: If no checkpoint could be scored.

    Example:
        >>> ranking = ft.rank_checkpoints({"tiny": checkpoint}, train, rows=100)
        >>> [row.name for row in ranking.rows], ranking.metric
        (['tiny'], 'accuracy')
    """
    check(**{"rank_checkpoints.rows": rows}, max_length=max_length, seed=seed)
    if by not in ("h_score", "probe"):
        raise ModelError(f"by must be 'h_score' or 'probe', found {by!r}.")
    candidates = _named(checkpoints)
    fitted, held_out = _parts(train, validation, rows, seed)
    options = {"task": task, "dtype": dtype}
    found, failed = [], {}
    for name, checkpoint in candidates.items():
        try:
            with quiet():
                found.append(_scored(name, checkpoint, fitted, held_out, max_length, seed, options))
        except FinetuneError as error:
            failed[name] = str(error)
            say(f"rank_checkpoints: {name} could not be scored: {error}")
        else:
            say(f"rank_checkpoints: {name} is scored, in {found[-1].seconds:.1f} seconds.")
        gc.collect()  # a Keras model is part of reference cycles
    if not found:
        listed = "; ".join(f"{name}: {error}" for name, error in failed.items())
        raise ModelError(f"None of the checkpoints could be scored. {listed}")
    found.sort(key=lambda each: getattr(each, by).value, reverse=True)
    best, unit = found[0], found[0].evaluator.example_unit
    data = f"{train.name}: {len(fitted):,} {unit}, the probe on {len(held_out):,} others."
    ranked = [each.ranked(is_tie=not each.is_below(best, by, seed)) for each in found]
    return Ranking(ranked, failed, by, best.evaluator.main_metric, data)


@dataclass
class _Scored:
    """What was computed for a checkpoint, in a form in which two can be compared."""

    name: str
    h_score: Score
    halves: np.ndarray
    probe: Score
    probe_statistics: np.ndarray
    evaluator: Evaluator
    facts: dict[str, Any]

    @property
    def seconds(self) -> float:
        return self.facts["seconds"]

    def is_below(self, best: "_Scored", by: str, seed: int) -> bool:
        """Whether the best checkpoint is better by more than chance explains."""
        if by == "h_score":
            difference = best.h_score.value - self.h_score.value
            return bool(difference - NORMAL * np.std(best.halves - self.halves) > 0)
        draws = _resampled(best, seed) - _resampled(self, seed)
        return bool(np.quantile(draws, 0.025) > 0)

    def ranked(self, is_tie: bool) -> RankedCheckpoint:
        """Returns the row of the ranking."""
        return RankedCheckpoint(self.name, self.h_score, self.probe, is_tie, **self.facts)


def _resampled(scored: _Scored, seed: int) -> np.ndarray:
    """Returns the probe's metric on resampled held-out rows, the same rows for all checkpoints."""
    rows = len(scored.probe_statistics)
    generator = np.random.default_rng(seed)
    weights = generator.multinomial(rows, np.full(rows, 1 / rows), size=_RESAMPLES) / rows
    return scored.evaluator.metric(weights @ scored.probe_statistics)


def _scored(
    name: str,
    checkpoint: Any,
    fitted: Examples,
    held_out: Examples,
    max_length: int | None,
    seed: int,
    options: dict[str, Any],
) -> _Scored:
    begin = time.perf_counter()
    model = load(checkpoint, labels=fitted.labels, new_head=True, **options)
    task = model.task
    if not isinstance(task, Classification):
        raise ModelError(
            f"rank_checkpoints scores classification and regression, but the task of {name} is "
            f"{task.name}. Name the task, such as task='text-classification'."
        )
    evaluator = evaluator_of(task)
    features, new_features = (
        layer_means(model, examples.encoded(model, max_length, targets=False), examples.name)
        for examples in (fitted, held_out)
    )
    seconds = time.perf_counter() - begin
    classes, new_targets = task.targets(fitted), task.targets(held_out)
    if task.problem_type == "single_label_classification":
        targets = np.eye(len(task.labels))[classes]
    else:
        targets = np.reshape(classes, (len(classes), -1))
    value = h_score(features, targets)
    halves = half_samples(features, targets, _HALVES, seed)
    error = NORMAL * float(np.std(halves))
    predictions = linear_probe(features, targets, new_features)
    is_regression = task.problem_type == "regression"
    decided = predictions[:, 0] if is_regression else decide(predictions, task.labels)
    scored = _Scored(
        name=name,
        h_score=Score(value, max(value - error, 0.0), min(value + error, 1.0)),
        halves=halves,
        probe=None,
        probe_statistics=evaluator.statistics(new_targets, decided),
        evaluator=evaluator,
        facts={"seconds": seconds, **_size(model), "languages": languages_of(checkpoint, model)},
    )
    probe = of_metric(scored.probe_statistics, evaluator.metric, seed)
    scored.probe = Score(probe.value, probe.low, probe.high)
    return scored


def _size(model: FineTuneModel) -> dict[str, Any]:
    """Returns the number of parameters without those of the head, and their size in the file."""
    head = {id(v) for stage in model.stages if stage.role == "head" for v in stage.variables}
    kept = [variable for variable in model.weights if id(variable) not in head]
    parameters = sum(math.prod(variable.shape) for variable in kept)
    bytes_each = 2 if "16" in model.info.file_dtype else 4
    return {"parameters": parameters, "megabytes": parameters * bytes_each / 1e6}


def _named(checkpoints: Any) -> dict[str, Any]:
    if isinstance(checkpoints, str | Path) or not isinstance(checkpoints, Iterable):
        raise DataTypeError(
            "rank_checkpoints expects a list of checkpoints, or a dict of a name to each of them; "
            f"found {shown(checkpoints)}."
        )
    if isinstance(checkpoints, Mapping):
        named = {str(name): checkpoint for name, checkpoint in checkpoints.items()}
    else:
        listed = list(checkpoints)
        named = {str(checkpoint): checkpoint for checkpoint in listed}
        if len(named) < len(listed):
            names = sorted(map(str, listed))
            twice = next(a for a, b in itertools.pairwise(names) if a == b)
            raise DataError(f"The checkpoint {twice!r} is listed twice. Leave one of them out.")
    if not named:
        raise DataError("rank_checkpoints got no checkpoints. List at least one.")
    return named


def _parts(train: Any, validation: Any, rows: int | None, seed: int) -> tuple[Examples, Examples]:
    """Returns the rows that scores are computed on, and those that the probe is measured on."""
    for name, examples in {"train": train, "validation": validation}.items():
        if not isinstance(examples, Examples) and not (examples is None and name == "validation"):
            raise DataTypeError(
                f"{name}= must be Examples, found {shown(examples)}. Read the data first, for "
                f'example with ft.data.from_csv("{name}.csv").'
            )
        if examples is not None and "label" not in examples.columns:
            raise DataError(
                f"{examples.name} has no labels, so checkpoints cannot be scored for it. Name the "
                "column of the labels when reading it."
            )
    if validation is None:
        train, validation = _limited(train, rows, seed).split(_HELD_OUT, seed)
        return train, validation
    return _limited(train, rows, seed), _limited(validation, rows, seed)


def _limited(examples: Examples, rows: int | None, seed: int) -> Examples:
    if rows is None or len(examples) <= rows:
        return examples
    say(f"rank_checkpoints uses {rows:,} of the {len(examples):,} rows of {examples.name}.")
    return examples.shuffle(seed).take(rows)
