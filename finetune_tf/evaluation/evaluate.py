"""Evaluates models on a test set: alone, against a baseline, or against each other."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from finetune_tf.base.arguments import check
from finetune_tf.base.labels import Labels
from finetune_tf.base.spelling import names_checked
from finetune_tf.data import Examples, overlap
from finetune_tf.data.copies import contradictions
from finetune_tf.errors import DataError
from finetune_tf.evaluation.bootstrap import Difference, metric_interval, paired_bootstrap
from finetune_tf.evaluation.comparison import Comparison, Row
from finetune_tf.evaluation.evaluators.evaluator import Evaluator, Predicted
from finetune_tf.evaluation.evaluators.registry import evaluator_of
from finetune_tf.evaluation.predicted import (
    evaluator_key,
    predict_baseline,
    predict_test,
    prepare,
    targets_of,
)
from finetune_tf.evaluation.report import Baseline, Report
from finetune_tf.graph.stages import require_task

if TYPE_CHECKING:
    import keras


@names_checked
def evaluate(
    model: "keras.Model",
    test: Examples,
    baseline: Any = None,
    train: Examples | None = None,
    batch_size: int = 64,
    seed: int = 0,
) -> Report:
    """Evaluates a model on a test set and compares it with a baseline.

    Args:
        model: A model from `load`.
        test: Examples with labels.
        baseline: The baseline: a name ("auto", "tfidf", "majority"; for a regression "auto",
            "ridge", "mean"; for images "colors", "majority", for a regression of images "ridge",
            "mean"; for videos "mean-frame", "middle-frame", "difference", "majority"; for images
            with texts, and for models of either on one test, "both", "tfidf", "colors", "majority",
            for a regression "mean" instead of the last one; for words "auto", "dictionary",
            "majority"; for fill-mask "unigram"; for pairs of feature extraction "tfidf"; for
            translation "dictionary", "copy"; for summarization "lead-3", "textrank"; for other
            tasks from text to text "nearest", "copy"; for image-text-retrieval "chance"), another
            model, or the predictions of another method: labels or numbers (n,), or probabilities
            (n, num_labels) in the order of the model's labels; for words a list of tags for each
            row.
        train: The training examples. A baseline that is given by name is trained on them, and the
            texts of the test that occur in them are counted.
        batch_size: Texts in a batch.
        seed: Seed of the baseline, of the confidence interval, and of the words that fill-mask
            masks.

    Returns:
        The report; print it, `plot()` it or `save()` it.

    Raises:
        DataError: If the test has no labels, or the baseline is unknown, lacks training examples
            or does not fit the test.
        DataTypeError: If `test` or `train` are not `Examples`, but for instance batches.
        ModelError: If the model does not know its task, or a model given as baseline has
            other labels.

    Example:
        >>> report = ft.evaluate(model, test)
        >>> 0 <= report.metrics["accuracy"] <= 1
        True
    """
    check(batch_size=batch_size, seed=seed)
    labels, kind = require_task(model).labels, evaluator_key((model, baseline))
    given, evaluator, test = test, evaluator_of(model.task, kind), prepare(model, test, seed)
    evaluator.require()
    targets = targets_of(model, test)
    # The baseline comes first: wrong arguments are found before the model takes minutes.
    compared = predict_baseline(baseline, model, test, train, kind, batch_size, seed)
    predicted = predict_test(model, test, model, kind, batch_size)
    predictions = predicted.values
    report = Report(
        name=test.name,
        labels=labels,
        metrics=measured(evaluator, targets, predicted, labels),
        per_class=evaluator.per_class(targets, predictions, labels),
        confusion=evaluator.confusion(targets, predictions, labels),
        targets=targets,
        predictions=predictions,
        baseline=compared
        and Baseline(compared[0], measured(evaluator, targets, compared[1], labels)),
        difference=compared
        and paired_bootstrap(evaluator, targets, predictions, compared[1].values, seed=seed),
        further_differences=_further(evaluator, targets, predicted, compared, labels, seed),
        duplicates=None if train is None else len(overlap(train, test)),
        kind=kind,
        contradictions=sum(map(len, contradictions(test, train, labels))),
        notes=evaluator.notes(targets),
        examples=evaluator.side_by_side(test, targets, predictions),
        mistakes=evaluator.mistakes(test, targets, predicted, labels),
        interval=metric_interval(evaluator, targets, predictions, seed=seed),
        test=given,
    )
    if hasattr(model, "info"):
        # A saved model does not name the files of images.
        model.info.record["result"] = report.to_dict() | {"mistakes": []}
        if train is not None:
            model.info.record["data"] = f"{train.name} ({len(train):,} {evaluator.unit})"
    return report


@names_checked
def compare(
    models: "Mapping[str, keras.Model]",
    test: Examples,
    baseline: Any = None,
    train: Examples | None = None,
    batch_size: int = 64,
    seed: int = 0,
) -> Comparison:
    """Evaluates several models on one test set, with differences to the first model.

    Args:
        models: The models by name. All must have the same labels, in any order. They may read
            different columns of the test, such as its texts, its images, or both.
        test: As in `evaluate`.
        baseline: As in `evaluate`; becomes the last row.
        train: As in `evaluate`.
        batch_size: Texts in a batch.
        seed: Seed of the baseline and of the confidence intervals.

    Returns:
        The comparison; print it, `plot()` it or `save()` it.

    Raises:
        DataError: As in `evaluate`, or if there is no model.
        DataTypeError: As in `evaluate`.
        ModelError: As in `evaluate`.

    Example:
        >>> comparison = ft.compare({"first": model, "again": model}, test)
        >>> comparison.rows[1].difference.value
        0.0
    """
    check(batch_size=batch_size, seed=seed)
    if not isinstance(models, Mapping) or not models:
        raise DataError(
            "compare expects a dict of name to model, with at least one model; "
            f"found {type(models).__name__}."
        )
    first = require_task(next(iter(models.values())))
    labels, kind = first.labels, evaluator_key((*models.values(), baseline))
    evaluator, test = evaluator_of(first.task, kind), prepare(first, test, seed)
    evaluator.require()
    targets = targets_of(first, test)
    compared = predict_baseline(baseline, first, test, train, kind, batch_size, seed)
    candidates = [
        (name, predict_test(model, test, first, kind, batch_size), _trainable(model))
        for name, model in models.items()
    ]
    if compared is not None:
        candidates.append((f"baseline {compared[0]}", compared[1], None))
    first_name, reference, _ = candidates[0]
    rows = [
        Row(
            name=name,
            metrics=measured(evaluator, targets, predicted, labels),
            trainable_parameters=trainable,
            difference=None
            if predicted is reference
            else paired_bootstrap(
                evaluator, targets, predicted.values, reference.values, seed=seed
            ),
            further_differences=[]
            if predicted is reference
            else _further(evaluator, targets, predicted, (first_name, reference), labels, seed),
        )
        for name, predicted, trainable in candidates
    ]
    return Comparison(
        name=test.name,
        texts=len(test),
        labels=labels,
        rows=rows,
        duplicates=None if train is None else len(overlap(train, test)),
        kind=kind,
        notes=evaluator.notes(targets),
    )


def measured(
    evaluator: Evaluator, targets: Any, predicted: Predicted, labels: Labels | None
) -> dict[str, float]:
    """All metrics; those of scores only where there are scores."""
    metrics = evaluator.measure(targets, predicted.values, labels)
    if predicted.scores is not None:
        for each in evaluator.of_scores(labels):
            metrics |= each.measure(targets, predicted.scores, labels)
    return metrics


def _further(
    evaluator: Evaluator,
    targets: Any,
    predicted: Predicted,
    compared: tuple[str, Predicted] | None,
    labels: Labels | None,
    seed: int,
) -> list[Difference]:
    """The differences in the metrics of scores; none if one of the two has no scores."""
    if compared is None or predicted.scores is None or compared[1].scores is None:
        return []
    return [
        paired_bootstrap(each, targets, predicted.scores, compared[1].scores, seed=seed)
        for each in evaluator.of_scores(labels)
    ]


def _trainable(model: "keras.Model") -> int:
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)
