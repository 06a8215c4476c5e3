"""Evaluates mixtures of the weights before and after fine-tuning: `interpolation_curve`."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from finetune_tf.base.arguments import check, shown
from finetune_tf.base.labels import Labels
from finetune_tf.base.spelling import names_checked
from finetune_tf.data import Examples
from finetune_tf.errors import DataError, DataTypeError
from finetune_tf.evaluation.bootstrap import Difference, paired_bootstrap
from finetune_tf.evaluation.document import Table
from finetune_tf.evaluation.evaluate import measured
from finetune_tf.evaluation.evaluators.evaluator import Predicted
from finetune_tf.evaluation.evaluators.registry import EVALUATORS, direction_note, evaluator_of
from finetune_tf.evaluation.predicted import predict_test, prepare, targets_of
from finetune_tf.evaluation.report import ResultOnTest, value_of
from finetune_tf.model.finetune_model import FineTuneModel
from finetune_tf.model.interpolation import copy_of, require_interpolable, set_mixture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@dataclass(frozen=True)
class CurvePoint:
    """A mixture of weights on one test set.

    Attributes:
        share: The share of the weights after fine-tuning.
        name: The name of the test set.
        metrics: The metrics of the mixture on it.
        from_before: The difference to the model before fine-tuning with its 95 % confidence
            interval; None if that is the mixture itself (a share of 0).
        from_after: The same for the model after fine-tuning; None for a share of 1.
    """

    share: float
    name: str
    metrics: dict[str, float]
    from_before: Difference | None
    from_after: Difference | None


@dataclass(frozen=True, eq=False, repr=False)
class InterpolationCurve(ResultOnTest):
    """Mixtures of weights before and after fine-tuning on several test sets, as tables and figure.

    Attributes:
        sizes: The number of examples of each test set by its name.
        labels: The labels of the models, or None.
        points: One `CurvePoint` per share and test set, in the order of the shares.
        kind: As in `Report`.
        notes: As in `Report`.

    Example:
        >>> _ = model.fit(train.batches(model, 4), verbose=0)
        >>> before = ft.load(model.save_pretrained("before"))
        >>> _ = model.fit(train.batches(model, 4), verbose=0)
        >>> curve = ft.interpolation_curve(before, model, {"reviews": test}, shares=[0.5])
        >>> [(point.name, point.share) for point in curve.points]
        [('reviews', 0.0), ('reviews', 0.5), ('reviews', 1.0)]
        >>> curve.best("reviews") in (0.0, 0.5, 1.0)
        True
    """

    sizes: dict[str, int]
    labels: Labels | None
    points: list[CurvePoint]
    kind: str
    notes: dict[str, list[str]]

    def __repr__(self) -> str:
        ends = ", ".join(
            f"{name} {points[0].metrics[self.main_metric]:.3f} to "
            f"{points[-1].metrics[self.main_metric]:.3f}"
            for name, points in self.by_name().items()
        )
        shares = len({point.share for point in self.points})
        return f"<InterpolationCurve of {self.main_metric} at {shares} shares: {ends}>"

    def by_name(self) -> dict[str, list[CurvePoint]]:
        """Returns the points of each test set by its name, in the order of the shares."""
        return {name: [p for p in self.points if p.name == name] for name in self.sizes}

    def best(self, on: str, keep: str | Iterable[str] = ()) -> float:
        """Returns the share with the best main metric on one test set.

        If several are equally good, it is the smallest one, which has changed the model least. The
        metric of the best of several shares is too optimistic: choose the share on validation
        data, and measure that mixture on test data.

        Args:
            on: The name of the test set.
            keep: The names of other test sets on which the mixture must not be clearly worse than
                the model before fine-tuning: the 95 % interval of the difference must not lie
                completely on the worse side of 0. With few examples, this says little. A share of 0
                always fulfills it.

        Raises:
            DataError: If there is no such test set.

        Example:
            >>> from finetune_tf.evaluation import CurvePoint, InterpolationCurve
            >>> from finetune_tf.evaluation.bootstrap import Difference
            >>> worse = Difference("accuracy", value=-0.2, low=-0.3, high=-0.1, n=2000)
            >>> same = Difference("accuracy", value=0.0, low=-0.1, high=0.1, n=2000)
            >>> points = [
            ...     CurvePoint(0.0, "new", {"accuracy": 0.5}, None, None),
            ...     CurvePoint(0.0, "old", {"accuracy": 0.8}, None, None),
            ...     CurvePoint(0.5, "new", {"accuracy": 0.7}, same, same),
            ...     CurvePoint(0.5, "old", {"accuracy": 0.8}, same, same),
            ...     CurvePoint(1.0, "new", {"accuracy": 0.9}, same, None),
            ...     CurvePoint(1.0, "old", {"accuracy": 0.6}, worse, None),
            ... ]
            >>> labels = ft.Labels(["bad", "good"])
            >>> curve = InterpolationCurve({"new": 20, "old": 20}, labels, points, "", {})
            >>> curve.best("new"), curve.best("new", keep="old")
            (1.0, 0.5)
        """
        by_name, kept = self.by_name(), [keep] if isinstance(keep, str) else list(keep)
        for name in (on, *kept):
            if name not in by_name:
                raise DataError(f"There is no test set {name!r}; there are {list(by_name)}.")
        sign = -1 if EVALUATORS[self.kind].lower_is_better else 1
        spoiled = {
            point.share
            for name in kept
            for point in by_name[name]
            if point.from_before is not None
            and point.from_before.is_clear
            and sign * point.from_before.value < 0
        }

        def loss(point: CurvePoint) -> float:
            value = point.metrics[self.main_metric]
            return math.inf if math.isnan(value) else -sign * value

        # `min` returns the first of equal points, which has the smallest share.
        return min((p for p in by_name[on] if p.share not in spoiled), key=loss).share

    def blocks(self) -> list[str | Table]:
        """Returns the lines and tables in reading order: a table for each test set."""
        note = direction_note(self.kind, ", ")
        blocks: list[str | Table] = []
        for name, points in self.by_name().items():
            metrics = list(points[0].metrics)
            header = ["share", *metrics]
            header += [f"{self.main_metric} against {end}{note}" for end in ("before", "after")]
            rows = [
                [
                    f"{point.share:g}",
                    *(value_of(point.metrics, metric) for metric in metrics),
                    *("-" if d is None else str(d) for d in (point.from_before, point.from_after)),
                ]
                for point in points
            ]
            blocks += [f"{name}: {self.sizes[name]:,} {self.unit}", Table(header, rows)]
            blocks += self.notes.get(name, [])
        return blocks

    def to_dict(self) -> dict:
        """Returns the curve as values that JSON can represent."""
        return {
            "texts": self.sizes,
            "kind": self.kind,
            "labels": list(self.labels or ()),
            "main_metric": self.main_metric,
            "points": [asdict(point) for point in self.points],
            "notes": self.notes,
        }

    def _draw(self) -> "Figure":
        from finetune_tf.evaluation.interpolation_figure import interpolation_figure

        return interpolation_figure(self)


@names_checked
def interpolation_curve(
    before: FineTuneModel,
    after: FineTuneModel,
    tests: Mapping[str, Examples],
    shares: Iterable[float] = _SHARES,
    batch_size: int = 64,
    seed: int = 0,
) -> InterpolationCurve:
    """Evaluates mixtures of the weights before and after fine-tuning on several test sets.

    It shows what the fine-tuning added on one kind of data, what was lost on another, and which
    mixture of `interpolate` is the best compromise. The models are copied once, and the weights of
    the copy are replaced for each share.

    Args:
        before: As for `interpolate`.
        after: As for `interpolate`.
        tests: The examples with labels by name, such as those of the new data and those of what the
            model could do before. In zero-shot classification each may have labels of its own.
        shares: The shares of the weights of `after`; 0 and 1 are always evaluated as well.
        batch_size: Texts in a batch.
        seed: Seed of the confidence intervals, and of the words that fill-mask masks.

    Returns:
        The curve; print it, `plot()` it, `save()` it, or ask for the `best()` share. Differences
        have the intervals of the paired bootstrap, as in `compare`.

    Raises:
        ArgumentError: If a share is not a number from 0 to 1.
        DataError: If there is no test set, or one has no labels.
        DataTypeError: If `tests` is not a dict of `Examples`, or `shares` is not a list.
        ModelError: As for `interpolate`.

    Example:
        >>> _ = model.fit(train.batches(model, 4), verbose=0)
        >>> before = ft.load(model.save_pretrained("before"))
        >>> _ = model.fit(train.batches(model, 4), verbose=0)
        >>> curve = ft.interpolation_curve(before, model, {"old": test, "new": test})
        >>> mixture = ft.interpolate(before, model, curve.best("new", keep="old"))
    """
    check(batch_size=batch_size, seed=seed)
    shares = _checked_shares(shares)
    if not isinstance(tests, Mapping) or not tests:
        raise DataTypeError(
            "interpolation_curve expects a dict of name to examples, such as "
            f'{{"new": test, "old": other_test}}; found {shown(tests)}.'
        )
    require_interpolable(before, after)
    evaluator, labels = evaluator_of(after.task), after.labels
    evaluator.require()
    model = copy_of(after)
    # Wrong examples are found before the models take minutes.
    tests = {str(name): prepare(model, test, seed) for name, test in tests.items()}
    readers = {name: _with_labels_of(test, model) for name, test in tests.items()}
    targets = {name: targets_of(readers[name], test) for name, test in tests.items()}

    def predictions(share: float, known: Mapping[str, Predicted]) -> dict[str, Predicted]:
        set_mixture(model, before, after, share)
        return {
            name: predict_test(
                readers[name],
                test,
                readers[name],
                after.task.evaluator,
                batch_size,
                known[name].encoded if name in known else None,
            )
            for name, test in tests.items()
        }

    first = predictions(0.0, {})
    last = predictions(1.0, first)
    points = []
    for share in shares:
        found = {0.0: first, 1.0: last}.get(share) or predictions(share, first)
        for name, predicted in found.items():
            differences = [
                None
                if predicted is end[name]
                else paired_bootstrap(
                    evaluator, targets[name], predicted.values, end[name].values, seed=seed
                )
                for end in (first, last)
            ]
            metrics = measured(evaluator, targets[name], predicted, readers[name].labels)
            points.append(CurvePoint(share, name, metrics, *differences))
    return InterpolationCurve(
        sizes={name: len(test) for name, test in tests.items()},
        labels=labels,
        points=points,
        kind=after.task.evaluator,
        notes={name: evaluator.notes(targets[name]) for name in tests},
    )


def _with_labels_of(test: Examples, model: FineTuneModel) -> FineTuneModel:
    """Returns the model with the labels of the examples, where labels are texts that it reads."""
    has_others = test.labels is not None and set(test.labels) != set(model.labels or ())
    if has_others and model.task.has_labels and not model.task.has_trained_labels:
        return model.with_labels(test.labels)
    return model


def _checked_shares(shares: Iterable[float]) -> list[float]:
    """Returns the different shares in their order, with 0 and 1."""
    if isinstance(shares, str) or not isinstance(shares, Iterable):
        raise DataTypeError(f"shares must be a list of numbers from 0 to 1, found {shown(shares)}.")
    shares = list(shares)
    for share in shares:
        check(share=share)
    return sorted({0.0, 1.0, *map(float, shares)})
