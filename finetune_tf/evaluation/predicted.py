"""What is compared in an evaluation: the ground truth, predictions of models, and baselines."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_tf.base.arguments import shown
from finetune_tf.data import Examples
from finetune_tf.errors import DataError, DataTypeError, ModelError
from finetune_tf.evaluation.evaluators.evaluator import Predicted
from finetune_tf.evaluation.evaluators.registry import EVALUATORS
from finetune_tf.evaluation.predict import outputs
from finetune_tf.graph.stages import require_task
from finetune_tf.tasks.classification import are_scores
from finetune_tf.tasks.encoded import preparer_of
from finetune_tf.tasks.unseen import say_class_numbers

if TYPE_CHECKING:
    import keras

    from finetune_tf.base.labels import Labels
    from finetune_tf.tasks import Encoded, Task


def _require_examples(examples: Any) -> None:
    if not isinstance(examples, Examples):
        raise DataTypeError(
            f"evaluate and compare read Examples, found {type(examples).__name__}. Give what "
            "from_csv and its kin return, not its batches; for those there is Keras's "
            "model.evaluate(batches)."
        )


def prepare(model: "keras.Model", examples: Examples, seed: int) -> Examples:
    """Returns the examples as they are measured, such as with the words that are masked.

    Raises:
        DataTypeError: If they are not `Examples`.
    """
    _require_examples(examples)
    return model.task.prepare_test(examples, preparer_of(model), model.max_length, seed)


def targets_of(model: "keras.Model", examples: Examples) -> Any:
    """Returns the ground truth in the form of the model's task.

    Raises:
        DataError: If the examples have none.
    """
    column = model.task.target_column
    if column not in examples.columns:
        missing = "labels" if column == "label" else column
        raise DataError(
            f"{examples.name} has no {missing}, so nothing can be measured on it. Name "
            "the column with them when reading it, or use predict."
        )
    say_class_numbers(model.labels, examples)
    return model.task.targets(examples)


def evaluator_key(models: "Iterable[Any]") -> str:
    """Returns the key of the evaluator of models on one test.

    Models of texts and models of images have different evaluators; together they have one for
    examples, which may have both.

    Args:
        models: The models; anything else, such as the name of a baseline, is ignored.
    """
    tasks = [require_task(model).task for model in models if hasattr(model, "predict")]
    kinds = {task.evaluator for task in tasks}
    return tasks[0].evaluator if len(kinds) == 1 else tasks[0].shared_evaluator


def predict_test(
    model: "keras.Model",
    test: Examples,
    first: "keras.Model",
    kind: str,
    batch_size: int,
    encoded: "Encoded | None" = None,
) -> Predicted:
    """Returns the predictions of a model, in the order of the labels of the first model.

    Args:
        model: The model.
        test: The examples after `prepare`.
        first: The first model of the comparison.
        kind: The key of the evaluator; see `evaluator_key`.
        batch_size: Rows in a batch.
        encoded: The examples as they were encoded for the same model before, if they were.

    Raises:
        ModelError: If the models have different labels, or outputs of different kinds.
    """
    labels, task = first.labels, require_task(model).task
    if not first.task.has_outputs_of(task):
        if set(labels or ()) == set(task.labels or ()):
            raise ModelError(
                f"Models on one test need outputs of the same kind: expected those of "
                f"{first.task.title}, found {task.title}."
            )
        raise ModelError(
            f"Models on one test need the same labels: expected {labels}, found {task.labels}."
        )
    rows, encoded = outputs(model, test, batch_size, encoded)
    values = task.decide(rows, encoded, test)
    scores = EVALUATORS[kind].scores_of(task, rows, values)
    if task.labels != labels:
        values = task.reordered(values, labels)
        scores = None if scores is None else _reordered(scores, task, labels)
    return Predicted(values, scores, encoded)


def _reordered(scores: np.ndarray, task: "Task", wanted: "Labels") -> np.ndarray:
    return scores[:, [task.labels.index(name) for name in wanted]]


def predict_baseline(
    baseline: Any,
    model: "keras.Model",
    test: Examples,
    train: Examples | None,
    kind: str,
    batch_size: int,
    seed: int,
) -> tuple[str, Predicted] | None:
    """Returns the name and the predictions of a baseline; None without a baseline.

    Args:
        baseline: The baseline, as for `evaluate`.
        model: The model that is compared with it.
        test: The test examples.
        train: The training examples.
        kind: The key of the evaluator; see `evaluator_key`.
        batch_size: Rows in a batch.
        seed: Seed of the baseline.

    Raises:
        DataError: As for `evaluate`.
        DataTypeError: As for `evaluate`.
    """
    if train is not None:
        _require_examples(train)
    if baseline is None:
        return None
    if isinstance(baseline, str):
        name, fit = _find_baseline(baseline, kind)
        if train is None:
            raise DataError(
                f"The baseline {name!r} learns from the training examples: give train=…."
            )
        train = prepare(model, train, seed)
        found = fit(train, targets_of(model, train), test, model.labels, seed)
        return name, found if isinstance(found, Predicted) else Predicted(found)
    if hasattr(baseline, "predict"):
        return baseline.name, predict_test(baseline, test, model, kind, batch_size)
    return "predictions", _read_predictions(baseline, model, test, kind)


def _find_baseline(name: str, kind: str) -> tuple[str, Any]:
    """The name and the function of a baseline; "auto" is the strongest one."""
    known = EVALUATORS[kind].baselines
    if name == "auto":
        name = next(iter(known))
    if name not in known:
        raise DataError(
            f"Unknown baseline {name!r} for {kind.replace('_', ' ')}: choose "
            f"'auto' or one of {list(known)}, or give another model or an array of predictions."
        )
    return name, known[name]


def _read_predictions(values: Any, model: "keras.Model", test: Examples, kind: str) -> Predicted:
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
    task = model.task
    has_scores = EVALUATORS[kind].reads_scores and are_scores(values, len(task.labels))
    scores = np.array(values, dtype="float64") if has_scores else None
    return Predicted(task.read_predictions(values, test), scores)
