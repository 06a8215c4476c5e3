"""Evaluates models on a test set: alone, against a baseline, or against each other."""

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from finetune_tf.base.arguments import check, shown
from finetune_tf.base.spelling import names_checked
from finetune_tf.data import Examples, overlap
from finetune_tf.data.copies import contradictions
from finetune_tf.errors import DataError, DataTypeError, ModelError
from finetune_tf.evaluation.bootstrap import paired_bootstrap
from finetune_tf.evaluation.evaluators.registry import EVALUATORS, evaluator_of
from finetune_tf.evaluation.predict import outputs
from finetune_tf.evaluation.report import Baseline, Comparison, Report, Row
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
            "ridge", "mean"; for words "auto", "dictionary", "majority"; for fill-mask "unigram";
            for pairs of feature extraction "tfidf"; for translation "dictionary", "copy"; for
            summarization "lead-3", "textrank"; for other tasks from text to text "nearest",
            "copy"), another model, or the predictions of another
            method: labels or numbers (n,), or probabilities (n, num_labels) in the order of the
            model's labels; for words a list of tags for each row.
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
    labels, kind = require_task(model).labels, model.task.evaluator
    evaluator, test = evaluator_of(model.task), _prepare(model, test, seed)
    evaluator.require()
    targets = _targets(model, test)
    # The baseline comes first: wrong arguments are found before the model takes minutes.
    compared = _baseline(baseline, model, test, train, batch_size, seed)
    predictions = _predictions(model, test, model, batch_size)
    report = Report(
        name=test.name,
        labels=labels,
        metrics=evaluator.measure(targets, predictions, labels),
        per_class=evaluator.per_class(targets, predictions, labels),
        confusion=evaluator.confusion(targets, predictions, labels),
        targets=targets,
        predictions=predictions,
        baseline=compared
        and Baseline(compared[0], evaluator.measure(targets, compared[1], labels)),
        difference=compared
        and paired_bootstrap(evaluator, targets, predictions, compared[1], seed=seed),
        duplicates=None if train is None else len(overlap(train, test)),
        kind=kind,
        contradictions=sum(map(len, contradictions(test, train, labels))),
        notes=evaluator.notes(targets),
        examples=evaluator.side_by_side(test, targets, predictions),
    )
    if hasattr(model, "info"):
        model.info.record["result"] = report.to_dict()
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
        models: The models by name. All must have the same labels, in any order.
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
    labels, kind = first.labels, first.task.evaluator
    evaluator, test = evaluator_of(first.task), _prepare(first, test, seed)
    evaluator.require()
    targets = _targets(first, test)
    compared = _baseline(baseline, first, test, train, batch_size, seed)
    candidates = [
        (name, _predictions(model, test, first, batch_size), _trainable(model))
        for name, model in models.items()
    ]
    if compared is not None:
        candidates.append((f"baseline {compared[0]}", compared[1], None))
    reference = candidates[0][1]
    rows = [
        Row(
            name=name,
            metrics=evaluator.measure(targets, predictions, labels),
            trainable_parameters=trainable,
            difference=None
            if predictions is reference
            else paired_bootstrap(evaluator, targets, predictions, reference, seed=seed),
        )
        for name, predictions, trainable in candidates
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


def _require_examples(examples: Any) -> None:
    if not isinstance(examples, Examples):
        raise DataTypeError(
            f"evaluate and compare read Examples, found {type(examples).__name__}. Give what "
            "from_csv and its kin return, not its batches; for those there is Keras's "
            "model.evaluate(batches)."
        )


def _prepare(model: "keras.Model", examples: Examples, seed: int) -> Examples:
    _require_examples(examples)
    preprocessor = getattr(model, model.task.preprocessor)
    return model.task.prepare_test(examples, preprocessor, model.max_length, seed)


def _targets(model: "keras.Model", examples: Examples) -> Any:
    column = model.task.target_column
    if column not in examples.columns:
        missing = "labels" if column == "label" else column
        raise DataError(
            f"{examples.name} has no {missing}, so nothing can be measured on it. Name "
            "the column with them when reading it, or use predict."
        )
    return model.task.targets(examples)


def _predictions(
    model: "keras.Model", test: Examples, first: "keras.Model", batch_size: int
) -> Any:
    """The predictions of a model, in the order of the labels of the first model."""
    labels, task = first.labels, require_task(model).task
    if not first.task.has_outputs_of(task):
        raise ModelError(
            f"Models on one test need the same labels: expected {labels}, found {task.labels}."
        )
    rows, encoded = outputs(model, test, batch_size)
    predictions = task.decide(rows, encoded, test)
    return predictions if task.labels == labels else task.reordered(predictions, labels)


def _baseline(
    baseline: Any,
    model: "keras.Model",
    test: Examples,
    train: Examples | None,
    batch_size: int,
    seed: int,
) -> tuple[str, Any] | None:
    """The name and the predictions of a baseline; None without a baseline."""
    if train is not None:
        _require_examples(train)
    if baseline is None:
        return None
    if isinstance(baseline, str):
        name, fit = _find_baseline(baseline, model)
        if train is None:
            raise DataError(
                f"The baseline {name!r} learns from the training examples: give train=…."
            )
        train = _prepare(model, train, seed)
        return name, fit(train, _targets(model, train), test, model.labels, seed)
    if hasattr(baseline, "predict"):
        return baseline.name, _predictions(baseline, test, model, batch_size)
    return "predictions", _read_predictions(baseline, model, test)


def _find_baseline(name: str, model: "keras.Model") -> tuple[str, Any]:
    """The name and the function of a baseline; "auto" is the strongest one."""
    kind = model.task.evaluator
    known = EVALUATORS[kind].baselines
    if name == "auto":
        name = next(iter(known))
    if name not in known:
        raise DataError(
            f"Unknown baseline {name!r} for {kind.replace('_', ' ')}: choose "
            f"'auto' or one of {list(known)}, or give another model or an array of predictions."
        )
    return name, known[name]


def _read_predictions(values: Any, model: "keras.Model", test: Examples) -> Any:
    """Converts predictions that the user gave to the form of `Task.decide`."""
    if hasattr(values, "tolist"):
        values = values.tolist()
    if isinstance(values, Mapping) or not isinstance(values, Iterable):
        raise DataTypeError(
            "A baseline is a name, a model, or one prediction for each text in a list or an array; "
            f"found {shown(values)}."
        )
    values = list(values)
    if len(values) != len(test):
        raise DataError(
            f"The baseline's predictions must be one per text of {test.name}: expected "
            f"{len(test):,}, found {len(values):,}."
        )
    return model.task.read_predictions(values, test)


def _trainable(model: "keras.Model") -> int:
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)
