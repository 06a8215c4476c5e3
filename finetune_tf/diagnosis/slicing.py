"""The metric of a model on parts of the examples, corrected for the number of parts."""

import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from finetune_tf.base.arguments import check, shown
from finetune_tf.base.spelling import names_checked
from finetune_tf.data import Examples
from finetune_tf.diagnosis.features import label_of
from finetune_tf.diagnosis.results import SliceRow, Slices
from finetune_tf.errors import ArgumentError, DataError
from finetune_tf.evaluation.evaluators.evaluator import Evaluator
from finetune_tf.evaluation.evaluators.registry import evaluator_of
from finetune_tf.evaluation.intervals import Interval, of_metric
from finetune_tf.evaluation.predicted import predict_test, prepare, targets_of
from finetune_tf.graph.stages import require_task
from finetune_tf.model.finetune_model import FineTuneModel
from finetune_tf.tasks import Encoded

_PERMUTATIONS, _DRAWS = 9_999, 1_000
_MOST_VALUES = 8  # numbers with more different values are divided into quarters
_PARTS = 4


@names_checked
def slices(
    model: FineTuneModel,
    examples: Examples,
    by: str | Sequence[str] | Mapping[str, Sequence[Any]] | None = None,
    *,
    min_rows: int = 20,
    batch_size: int = 64,
    seed: int = 0,
) -> Slices:
    """Evaluates a model on slices: by length, by label, by a column, or by values of your own.

    Each slice is compared with all other examples in the main metric of the task. Of many slices
    some are bad by chance, so the probabilities are corrected for their number (Holm 1979), and the
    intervals of the differences are wide enough for all of them together (Bonferroni).

    Args:
        model: A trained model from `load`, of any task that `evaluate` knows.
        examples: Examples with labels.
        by: "length" for quarters of the numbers of tokens, "label", the name of another column of
            the examples, or several of these; or a dict of names to one value for each example.
            Numbers with many different values are divided into quarters. By default length and
            label, where there are any; the numbers of a regression are no labels to divide by.
        min_rows: Slices with fewer examples are left out.
        batch_size: Rows in a batch.
        seed: The seed of the intervals and of the permutations.

    Returns:
        The slices, worst first; print it. Slices on which the metric says nothing are left out and
        counted, such as texts without any of several labels, whose F1 is 0 in any case.

    Raises:
        ArgumentError: If a regression is divided by its own numbers.
        DataTypeError: If `examples` are not `Examples`.
        DataError: If they have no labels, or no such column or length, or values are missing.
        ModelError: If the model has no task.

    Example:
        >>> many = ft.data.from_arrays(train.columns["text"] * 30, train.columns["label"] * 30)
        >>> found = ft.diagnosis.slices(model, many, by="label")
        >>> sorted(row.value for row in found.rows)
        ['bad', 'good']
    """
    check(min_rows=min_rows, batch_size=batch_size, seed=seed)
    task = require_task(model).task
    evaluator = evaluator_of(task)
    prepared = prepare(model, examples, seed)
    evaluator.require()
    targets = targets_of(model, prepared)
    _check_by(by, examples)  # before the model takes minutes
    predicted = predict_test(model, prepared, model, task.evaluator, batch_size)
    statistics = np.float64(evaluator.statistics(targets, predicted.values))
    divided = _divided(by, examples, predicted.encoded)
    masks = [
        (name, value, mask)
        for name, values in divided.items()
        for value, mask in _masks(values).items()
        if not mask.all()
    ]
    large = [each for each in masks if each[2].sum() >= min_rows and (~each[2]).sum() >= min_rows]
    kept = [each for each in large if _can_compare(evaluator, targets, each[2])]
    found = [_compared(evaluator, statistics, mask, len(kept), seed) for *_, mask in kept]
    adjusted = holm([p for *_, p in found])
    rows = [
        SliceRow(name, value, int(mask.sum()), metric, difference, p_value)
        for (name, value, mask), (metric, difference, _), p_value in zip(
            kept, found, adjusted, strict=True
        )
    ]
    sign = -1 if evaluator.lower_is_better else 1
    return Slices(
        rows=sorted(rows, key=lambda row: sign * row.difference.value),
        data=examples.name,
        size=len(examples),
        metric=evaluator.main_metric,
        overall=of_metric(statistics, evaluator.metric, seed),
        too_small=len(masks) - len(large),
        lower_is_better=evaluator.lower_is_better,
        without_metric=len(large) - len(kept),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrects probabilities for their number, by Holm's method.

    Example:
        >>> from finetune_tf.diagnosis.slicing import holm
        >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values)
    steps = np.arange(len(p_values), 0, -1) * np.asarray(p_values)[order]
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted.tolist()


def _can_compare(evaluator: Evaluator, targets: Any, mask: np.ndarray) -> bool:
    """Whether the metric says something about a slice and about the rest."""
    parts = [[targets[i] for i in np.flatnonzero(rows)] for rows in (mask, ~mask)]
    return all(map(evaluator.tells_of, parts))


def _compared(
    evaluator: Evaluator, statistics: np.ndarray, mask: np.ndarray, count: int, seed: int
) -> tuple[Interval, Interval, float]:
    """Returns the metric of a slice, its difference from the rest, and its probability."""
    from scipy.stats import norm

    generator, metric = np.random.default_rng(seed), evaluator.metric
    inside, outside = statistics[mask], statistics[~mask]
    difference = float((metric(_mean(inside)) - metric(_mean(outside)))[0])
    drawn = _resampled(metric, inside, generator) - _resampled(metric, outside, generator)
    permuted = _permuted(metric, statistics, int(mask.sum()), generator)
    p_value = (1 + int((np.abs(permuted) >= abs(difference) - 1e-12).sum())) / (_PERMUTATIONS + 1)
    # A slice without errors does not vary when it is resampled.
    error = max(float(drawn.std()), float(permuted.std()))
    width = float(norm.isf(0.025 / count)) * error
    interval = Interval(difference, difference - width, difference + width)
    return of_metric(inside, evaluator.metric, seed), interval, p_value


def _permuted(
    metric: Callable, statistics: np.ndarray, size: int, generator: np.random.Generator
) -> np.ndarray:
    """Returns the differences between random parts of a size and the rest."""
    groups, counts = np.unique(statistics, axis=0, return_counts=True)
    total, rows = statistics.sum(axis=0), len(statistics)
    differences = []
    for done in range(0, _PERMUTATIONS, _DRAWS):
        draws = generator.multivariate_hypergeometric(
            counts, size, size=min(_DRAWS, _PERMUTATIONS - done), method="marginals"
        )
        inside = draws @ groups
        differences.append(metric(inside / size) - metric((total - inside) / (rows - size)))
    return np.concatenate(differences)


def _resampled(
    metric: Callable, statistics: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    groups, counts = np.unique(statistics, axis=0, return_counts=True)
    size = len(statistics)
    return metric(generator.multinomial(size, counts / size, size=_DRAWS) / size @ groups)


def _mean(statistics: np.ndarray) -> np.ndarray:
    return statistics.mean(axis=0, keepdims=True)


def _check_by(by: Any, examples: Examples) -> None:
    """Checks everything about `by` that does not need the lengths of encoded examples."""
    if isinstance(by, Mapping):
        for name, values in by.items():
            if isinstance(values, str) or not hasattr(values, "__len__"):
                raise ArgumentError(
                    f"by={{{name!r}: …}} must have a list with one value for each example, found "
                    f"{shown(values)}."
                )
            if len(values) != len(examples):
                raise DataError(
                    f"by={{{name!r}: …}} must have one value for each example: expected "
                    f"{len(examples):,}, found {len(values):,}."
                )
        return
    for name in [by] if isinstance(by, str) else by or ():
        if name not in ("length", *examples.columns):
            raise DataError(
                f"{examples.name} has no column {name!r}: by= names 'length', or a column of "
                f"{', '.join(examples.columns)}; or give the values themselves, as in "
                f"by={{{name!r}: values}}."
            )
        if name == "label" and _are_numbers(examples):
            raise ArgumentError(
                "by='label' would divide a regression by the numbers that it is to predict. Within "
                "a narrow range of them, the correlation of any model is low, so that each part "
                "would look worse than the rest. Divide by 'length' or by another column."
            )


def _divided(by: Any, examples: Examples, encoded: Encoded) -> dict[str, list[Any]]:
    if isinstance(by, Mapping):
        return {str(name): list(values) for name, values in by.items()}
    if by is None:
        has_classes = "label" in examples.columns and not _are_numbers(examples)
        named = [*(["length"] if encoded.lengths else []), *(["label"] * has_classes)]
        if not named:
            raise DataError(
                f"{examples.name} has neither lengths nor classes to divide it by. Name a column, "
                "such as by='source', or give a value for each example: by={'source': values}."
            )
    else:
        named = [by] if isinstance(by, str) else list(by)
    return {name: _values(name, examples, encoded) for name in named}


def _are_numbers(examples: Examples) -> bool:
    """Whether the labels are numbers of a regression."""
    return examples.labels is not None and examples.labels.problem_type == "regression"


def _values(name: str, examples: Examples, encoded: Encoded) -> list[Any]:
    if name == "label":
        return [label_of(examples, row) for row in range(len(examples))]
    if name in examples.columns:
        return examples.columns[name]
    if not encoded.lengths:
        raise DataError(f"The rows of {examples.name} have no lengths. Leave 'length' out of by=.")
    lengths = next(iter(encoded.lengths.values()))
    if encoded.example is not None:  # several rows of one example
        totals = np.zeros(len(examples), int)
        np.maximum.at(totals, encoded.example, lengths)
        lengths = totals
    elif encoded.group > 1:
        lengths = lengths.reshape(-1, encoded.group).sum(axis=1)
    return [int(length) for length in lengths]


def _masks(values: list[Any]) -> dict[str, np.ndarray]:
    """Returns the rows of each value, or of each quarter of numbers."""
    are_numbers = all(isinstance(v, numbers.Real) and not isinstance(v, bool) for v in values)
    if not are_numbers or len(set(values)) <= _MOST_VALUES:
        texts = np.array([str(value) for value in values])
        return {str(text): texts == text for text in np.unique(texts)}
    found = np.asarray(values, dtype="float64")
    if not np.isfinite(found).all():
        raise DataError("by= has values that are not finite numbers. Replace them by a text.")
    edges = np.unique(np.quantile(found, np.arange(1, _PARTS) / _PARTS, method="lower"))
    part = np.searchsorted(edges, found, side="left")
    masks = [part == i for i in np.unique(part)]
    return dict(zip(_ranges([found[mask] for mask in masks]), masks, strict=True))


def _ranges(parts: list[np.ndarray]) -> list[str]:
    """Returns "low to high" for each part, with as many digits as tell all numbers apart."""
    ends = [(part.min(), part.max()) for part in parts]
    for digits in (6, 9, 12, 17):
        names = [f"{low:.{digits}g} to {high:.{digits}g}" for low, high in ends]
        numbers = {f"{number:.{digits}g}" for pair in ends for number in pair}
        if len(numbers) == len({number for pair in ends for number in pair}):
            break
    return names
