"""Thresholds of labels: from which probability on a label is predicted."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np

from finetune_tf.base.arguments import check, shown
from finetune_tf.base.labels import Labels
from finetune_tf.base.spelling import names_checked
from finetune_tf.calibration.decided import decisions_of, folds_of, require_rows
from finetune_tf.calibration.scores import probabilities
from finetune_tf.data import Examples
from finetune_tf.errors import ArgumentError, ModelError
from finetune_tf.evaluation.document import DataDocument, Table
from finetune_tf.evaluation.intervals import Interval, bootstrap
from finetune_tf.messages import say
from finetune_tf.model.finetune_model import FineTuneModel
from finetune_tf.tasks.decisions import (
    LEAST,
    THRESHOLD,
    THRESHOLDS,
    Decisions,
    forget_result,
    thresholds_of,
)

Metric = Literal["f1", "precision", "recall"]
_FEWEST_OF_LABEL = 10


@dataclass(frozen=True)
class LabelThreshold:
    """A label with its threshold.

    Attributes:
        label: The name of the label.
        threshold: From which probability on it is predicted.
        positives: The number of validation examples that have it.
        before: The metric of the label before.
        after: The metric of the label with thresholds that other rows determined.
        is_kept: Whether the threshold before was kept, because the label is too rare.
    """

    label: str
    threshold: float
    positives: int
    before: float
    after: float
    is_kept: bool


@dataclass(frozen=True, repr=False)
class ChosenThresholds(DataDocument):
    """The result of `choose_thresholds`.

    Attributes:
        rows: The labels with their thresholds.
        data: The name of the validation examples.
        size: The number of these examples.
        metric: The metric that the thresholds maximize.
        at_least: The lowest recall ("precision") or precision ("recall") that was asked for.
        before: The metric before, averaged over the labels.
        after: The metric after, on rows that did not determine the thresholds.
        difference: The one after minus the one before.
        other_after: With `at_least`, the other of precision and recall after, on such rows.
        is_applied: Whether the thresholds are in the config of the model.
        reason: Why they are not; "" if they are.
    """

    rows: list[LabelThreshold]
    data: str
    size: int
    metric: str
    at_least: float | None
    before: Interval
    after: Interval
    difference: Interval
    other_after: Interval | None
    is_applied: bool
    reason: str

    @property
    def thresholds(self) -> dict[str, float]:
        """The threshold of each label by name."""
        return {row.label: row.threshold for row in self.rows}

    def blocks(self) -> list[str | Table]:
        """Returns the lines and the table in reading order."""
        rows = [
            [
                row.label,
                f"{row.threshold:.3f}" + (" (kept)" if row.is_kept else ""),
                f"{row.positives:,}",
                f"{row.before:.3f}",
                f"{row.after:.3f}",
            ]
            for row in self.rows
        ]
        average = "" if len(self.rows) == 1 else "macro-averaged "
        lines = [
            f"Thresholds for the highest {self.metric} on {self.size:,} rows of {self.data}; "
            "after: each row with thresholds of other rows.",
            Table(["label", "threshold", "positives", f"{self.metric} before", "after"], rows),
            f"{average}{self.metric} before {self.before}, after {self.after}, difference "
            f"{self.difference}.",
        ]
        if self.other_after is not None:
            other = _OTHER[self.metric]
            lines.append(
                f"{average}{other} after {self.other_after}, asked for: {self.at_least:g}."
            )
        if any(row.is_kept for row in self.rows):
            lines.append(
                f"Labels with fewer than {_FEWEST_OF_LABEL} examples that have them, or that do "
                "not, keep their threshold."
            )
        if not self.is_applied:
            lines.append(f"The model was not changed: {self.reason}")
        return lines


class _Binary(NamedTuple):
    """Labels as decisions of their own: probabilities and whether each applies, (n, labels)."""

    scores: np.ndarray
    targets: np.ndarray
    names: list[str]
    before: np.ndarray  # the thresholds before (labels,)


@names_checked
def choose_thresholds(
    model: FineTuneModel,
    validation: Examples,
    metric: Metric = "f1",
    *,
    at_least: float | None = None,
    label: str | None = None,
    batch_size: int = 64,
    seed: int = 0,
) -> ChosenThresholds:
    """Chooses from which probability on each label is predicted, in place of 0.5.

    A rare label seldom gets a probability of 0.5, so a lower threshold often finds more of its
    examples. The thresholds are stored in the config of the model, under "label_thresholds", and
    `ft.predict` and `ft.evaluate` follow them, also after saving and loading. PyTorch's classes
    return logits and do not know them: compare the probabilities with `result.thresholds` there.

    The gain is estimated on rows that did not determine the thresholds, in five folds. If there is
    none in f1, the model is not changed.

    Args:
        model: A trained model from `load` with several labels for each example, or with a choice
            between two labels.
        validation: At least 100 examples with labels that the model was not trained on.
        metric: "f1"; "precision", the highest one with a recall of at least `at_least`; or
            "recall", the highest one with a precision of at least `at_least`.
        at_least: What the other of precision and recall has to be on these examples.
        label: Of a choice between two labels, the one that gets the threshold; by default the
            rarer one in `validation`.
        batch_size: Rows in a batch.
        seed: The seed of the folds and of the intervals.

    Returns:
        The thresholds and the estimated gain; print it.

    Raises:
        ArgumentError: If the metric is unknown, or `at_least` is missing or has no meaning.
        DataTypeError: If `validation` is not `Examples`.
        DataError: If there are fewer than 100 rows, no labels, or only one class.
        ModelError: If the model chooses among more than two labels, or is a regression.

    Example:
        >>> many = ft.data.from_arrays(train.columns["text"] * 30, train.columns["label"] * 30)
        >>> result = ft.calibration.choose_thresholds(model, many, label="bad")
        >>> list(result.thresholds)
        ['bad']
    """
    check(batch_size=batch_size, seed=seed)
    _check_metric(metric, at_least)
    _require_thresholds(model, label)
    decisions = decisions_of(model, validation, batch_size)
    require_rows(decisions, validation, "A threshold")
    binary = _as_binary(decisions, model.labels, thresholds_of(model.labels, model.config), label)
    thresholds, is_kept = _chosen(binary, metric, at_least, np.ones(len(binary.scores), bool))
    before, after = binary.scores >= binary.before, np.zeros(binary.scores.shape, bool)
    for fold in folds_of(decisions, seed):
        of_others, _ = _chosen(binary, metric, at_least, ~fold)
        after[fold] = binary.scores[fold] >= of_others
    counts = [_counts(predicted, binary.targets) for predicted in (after, before)]
    joint = np.hstack(counts)
    width = counts[0].shape[1]
    difference = bootstrap(
        joint, lambda m: _macro(m[:, :width], metric) - _macro(m[:, width:], metric), seed
    )
    reason = ""
    if metric == "f1" and difference.value <= 0:
        reason = (
            f"on held-out rows f1 is {-difference.value:.3f} lower with these thresholds. There "
            "are too few examples to choose them, or those before are as good."
        )
    after_counts, before_counts = counts
    by_label = [_by_label(each.mean(axis=0, keepdims=True), metric)[0] for each in counts]
    result = ChosenThresholds(
        rows=[
            LabelThreshold(name, float(threshold), int(positives), float(old), float(new), kept)
            for name, threshold, positives, new, old, kept in zip(
                binary.names,
                thresholds,
                binary.targets.sum(axis=0),
                *by_label,
                map(bool, is_kept),
                strict=True,
            )
        ],
        data=validation.name,
        size=len(validation),
        metric=metric,
        at_least=at_least,
        before=bootstrap(before_counts, lambda m: _macro(m, metric), seed),
        after=bootstrap(after_counts, lambda m: _macro(m, metric), seed),
        difference=difference,
        other_after=None
        if at_least is None
        else bootstrap(after_counts, lambda m: _macro(m, _OTHER[metric]), seed),
        is_applied=not reason,
        reason=reason,
    )
    if reason:
        say(f"choose_thresholds did not change the model: {reason}")
    else:
        model.config[THRESHOLDS] = result.thresholds
        forget_result(model.info)
        say(
            f"The thresholds of {len(result.rows)} labels are in the config; ft.predict and "
            f"ft.evaluate follow them, PyTorch does not. {metric} on held-out rows "
            f"{result.before.value:.3f} before, {result.after.value:.3f} after."
        )
    return result


_OTHER = {"precision": "recall", "recall": "precision"}


def _check_metric(metric: str, at_least: float | None) -> None:
    if metric not in get_args(Metric):
        raise ArgumentError(f"metric must be one of {get_args(Metric)}, found {metric!r}.")
    if metric == "f1" and at_least is not None:
        raise ArgumentError(
            "at_least is for metric='precision', where it is the lowest recall, and for "
            "metric='recall', where it is the lowest precision; f1 has no such bound."
        )
    if metric != "f1":
        check(at_least=at_least)


def _require_thresholds(model: FineTuneModel, label: str | None) -> None:
    if not getattr(getattr(model, "task", None), "has_decisions", False):
        return  # `decisions_of` explains it
    labels, title = model.labels, model.task.title.replace("_", " ")
    is_several = labels.problem_type == "multi_label_classification"
    if model.task.token_axis is not None or not (is_several or len(labels) == 2):
        raise ModelError(
            "A threshold decides whether a label applies: for models of several labels, or for a "
            f"choice between two. This model ({title}) chooses among {len(labels)} labels, where "
            "the most probable one is predicted. To find more of a rare class, train with "
            "class_weight=; to leave uncertain predictions out, see ft.calibration.coverage_curve."
        )
    if label is not None and (is_several or label not in labels):
        raise ModelError(
            f"label must be one of the two labels {tuple(labels)}, found {shown(label)}."
            if not is_several
            else "label is for a choice between two labels; here every label gets a threshold."
        )


def _as_binary(
    decisions: Decisions, labels: Labels, found: Mapping[str, float], label: str | None
) -> _Binary:
    scores, targets = probabilities(decisions), decisions.targets
    if decisions.is_several:
        before = np.array([found.get(name, THRESHOLD) for name in labels])
        return _Binary(scores, targets.astype(bool), list(labels), before)
    if label is None:
        label = labels[int(np.bincount(targets, minlength=2).argmin())]
    chosen = labels.index(label)
    ((name, threshold),) = (found or {label: THRESHOLD}).items()
    # A threshold of the other label says the same about this one.
    before = np.array([threshold if name == label else 1 - threshold])
    return _Binary(scores[:, [chosen]], (targets == chosen)[:, None], [label], before)


def _chosen(
    binary: _Binary, metric: str, at_least: float | None, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the best thresholds (labels,) on some rows, and which are those before."""
    positives, total = binary.targets[rows].sum(axis=0), rows.sum()
    # Of four fifths of the rows four fifths are enough, so that all folds choose the same way.
    enough = _FEWEST_OF_LABEL * total / len(rows)
    is_kept = np.minimum(positives, total - positives) < enough
    thresholds = binary.before.copy()
    for i in np.flatnonzero(~is_kept):
        thresholds[i] = best_threshold(
            binary.scores[rows, i], binary.targets[rows, i], metric, at_least
        )
    return thresholds, is_kept


def best_threshold(
    scores: np.ndarray, targets: np.ndarray, metric: Metric, at_least: float | None = None
) -> float:
    """Returns the threshold with the highest metric, in the middle between two scores.

    Args:
        scores: Probabilities (n,).
        targets: Whether the label applies (n,), at least once.
        metric: As for `choose_thresholds`.
        at_least: As for `choose_thresholds`. If no threshold reaches it, the one that comes closest
            is returned.

    Example:
        >>> from finetune_tf.calibration.thresholds import best_threshold
        >>> scores, targets = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0, 0, 1, 1])
        >>> round(best_threshold(scores, targets, "f1"), 3)
        0.25
    """
    order = np.argsort(-scores, kind="stable")
    ordered, hits = scores[order], np.cumsum(targets[order])
    ends = np.flatnonzero(np.append(ordered[1:] < ordered[:-1], True))  # equal scores together
    found, predicted, positives = hits[ends], ends + 1, hits[-1]
    precision, recall = found / predicted, found / positives
    if metric == "f1":
        best = np.argmax(2 * found / (predicted + positives))
    else:
        wanted, bounded = (precision, recall) if metric == "precision" else (recall, precision)
        allowed = bounded >= min(at_least, bounded.max())
        best = np.argmax(np.where(allowed, wanted, -1.0))
    place = ends[best]
    below = ordered[place + 1] if place + 1 < len(ordered) else 0.0
    threshold = (ordered[place] + below) / 2
    # Between neighboring numbers there is no middle.
    return float(np.clip(threshold if threshold > below else ordered[place], LEAST, 1 - LEAST))


def _counts(predicted: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Returns for each row and label: found, predicted, positive; (n, 3 labels)."""
    return np.hstack([predicted & targets, predicted, targets]).astype("float64")


def _by_label(means: np.ndarray, metric: str) -> np.ndarray:
    """Returns the metric of each label (resamples, labels); 0 where it is undefined."""
    found, predicted, positives = np.split(means, 3, axis=1)
    above, below = {
        "f1": (2 * found, predicted + positives),
        "precision": (found, predicted),
        "recall": (found, positives),
    }[metric]
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def _macro(means: np.ndarray, metric: str) -> np.ndarray:
    return _by_label(means, metric).mean(axis=1)
