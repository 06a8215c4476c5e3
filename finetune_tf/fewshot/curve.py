"""Compares methods by the number of examples of each class: `learning_curve`."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from finetune_tf.base.arguments import check, shown
from finetune_tf.base.spelling import names_checked
from finetune_tf.data import Examples, overlap
from finetune_tf.errors import ArgumentError
from finetune_tf.evaluation.evaluators.registry import evaluator_of
from finetune_tf.fewshot.body import BodyTrainer, steps_for
from finetune_tf.fewshot.curve_result import CurveCell, LearningCurve
from finetune_tf.fewshot.draws import checked_shots, draw_splits, require_shots
from finetune_tf.fewshot.encoder import output_layer, vectors_of
from finetune_tf.fewshot.examples import (
    require_known,
    require_labels,
    rows_by_label,
    rows_without_label,
)
from finetune_tf.fewshot.fitting import load_encoder
from finetune_tf.fewshot.heads import head_of, write_head
from finetune_tf.fewshot.linear import Linear
from finetune_tf.fewshot.snapshots import Snapshot
from finetune_tf.messages import quiet, say
from finetune_tf.tasks.classification import decide
from finetune_tf.training.freezing import build_optimizer

#: The methods in the order of their effort.
METHODS = ("tfidf", "prototypes", "probe", "contrastive", "full")
_BATCH = 64


@names_checked
def learning_curve(
    checkpoint: str | Path,
    train: Examples,
    test: Examples,
    shots: Sequence[int] = (8, 16, 32, 64),
    splits: int = 5,
    *,
    methods: Sequence[str] = ("tfidf", "probe", "contrastive", "full"),
    steps: int | Literal["auto"] = "auto",
    batch_size: int = 32,
    learning_rate: float | Literal["auto"] = "auto",
    pooling: Literal["auto", "pooler", "cls", "mean"] = "auto",
    max_length: int | None = None,
    dtype: Any = None,
    seed: int = 0,
) -> LearningCurve:
    """Measures how good a classifier becomes with more examples of each class, by several methods.

    It answers which method to use for the number of examples that you have, and whether more labels
    would pay. Few examples make results depend on which ones they are, so each method is trained on
    several random draws, the same ones for all methods, and a method counts as better only if the
    95 % interval of the difference over the draws says so.

    The methods, the one with the least effort first:

    - "tfidf": logistic regression on words and characters, without a pretrained model;
    - "prototypes": the nearest class mean of the encoder's vectors (see `fewshot.fit_head`);
    - "probe": logistic regression on the encoder's vectors;
    - "contrastive": contrastive training of the encoder, then a logistic head (`fewshot.fit`);
    - "full": fine-tuning of all weights with cross-entropy and the learning rate "auto", from the
      head of "probe" and for as many steps as "contrastive"; beyond one epoch, for the next whole
      number of epochs.

    The checkpoint is loaded once; weights are restored between trainings, and the training step of
    a method is traced once for all of them.

    Args:
        checkpoint: A folder or a Hub id.
        train: Examples that are drawn from.
        test: Examples that everything is measured on.
        shots: Increasing numbers of examples of each class. With several labels for a text, as
            many texts without any label are drawn as well, or all of them if there are fewer.
        splits: The number of random draws, at least 2; ten give useful intervals.
        methods: The methods.
        steps: As for `fewshot.tune_body`; also of "full".
        batch_size: As for `fewshot.tune_body`; also of "full".
        learning_rate: As for `fewshot.tune_body`; not of "full".
        pooling: As for `fewshot.fit`.
        max_length: Tokens of a text; by default what the model accepts.
        dtype: As for `ft.load`.
        seed: Seed of the draws and of all trainings.

    Returns:
        The curve; print it, `plot()` it, `save()` it, or ask for the `recommended()` method.

    Raises:
        ArgumentError: If `shots` do not increase, a method is unknown, or a number is out of range.
        DataError: If labels are missing, a class of the test does not occur in training, or a class
            has fewer examples than the largest of `shots`.
        DataTypeError: If `train` or `test` are not `Examples`.

    Example:
        >>> curve = ft.learning_curve(
        ...     checkpoint, train, test, shots=[2], splits=2, methods=["tfidf", "probe"]
        ... )
        >>> curve.methods, curve.recommended(2) in curve.methods
        (['tfidf', 'probe'], True)
    """
    check(
        **{
            "learning_curve.splits": splits,
            "learning_curve.steps": steps,
            "learning_curve.batch_size": batch_size,
        },
        learning_rate=learning_rate,
        max_length=max_length,
        seed=seed,
    )
    shots = checked_shots(shots)
    methods = _checked_methods(methods)
    require_labels(train=train, test=test)
    labels = train.labels
    groups = rows_by_label(train, labels)
    require_known(test, labels, "test")
    require_shots(groups, shots[-1], train, labels)
    if shared := overlap(train, test):
        say(
            f"{len(shared):,} of {len(test):,} test texts also occur in the training examples. "
            "Results are too good, most of all those of methods that learn examples by heart."
        )
    keras.utils.set_random_seed(seed)  # of dropout, whose generators a load creates
    with quiet():
        model = load_encoder(checkpoint, train, pooling, dtype)
        runs = _Runs(model, train, test, steps, batch_size, learning_rate, max_length, seed)
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    groups += rows_without_label(train, labels)
    for number, split in enumerate(draw_splits(groups, splits, shots[-1], seed)):
        for shot in shots:
            rows = np.unique(np.concatenate([of_label[:shot] for of_label in split]))
            for method in methods:
                with quiet():
                    result = runs.run(method, rows, seed + number)
                found.setdefault((method, shot), []).append(result)
        done = ", ".join(f"{method} {found[method, shots[-1]][-1][0]:.3f}" for method in methods)
        say(f"Draw {number + 1} of {splits}, {shots[-1]} examples a class: {done}.")
    cells = []
    for method in methods:
        for shot in shots:
            values, seconds = zip(*found[method, shot], strict=True)
            cells.append(CurveCell(method, shot, values, float(np.median(seconds))))
    return LearningCurve(cells, runs.metric, test.name, len(test), splits)


class _Runs:
    """Trains and measures one model again and again, each time from the same weights."""

    def __init__(
        self,
        model: Any,
        train: Examples,
        test: Examples,
        steps: int | Literal["auto"],
        batch_size: int,
        learning_rate: float | Literal["auto"],
        max_length: int | None,
        seed: int,
    ) -> None:
        self._model, self._train, self._test = model, train, test
        self._steps, self._batch_size, self._max_length = steps, batch_size, max_length
        self._rate = learning_rate
        self._evaluator = evaluator_of(model.task)
        self.metric = self._evaluator.main_metric
        self._targets = model.task.targets(train)
        self._test_targets = model.task.targets(test)
        self._encoded = test.encoded(model, max_length, targets=False)
        output_layer(model)  # raises errors before the first training
        self._start = Snapshot(model.variables)
        self._trainers: dict[str, Any] = {}
        self._known: dict[int, np.ndarray] = {}  # vectors of the encoder as it was loaded
        self._known_test: np.ndarray | None = None

    def run(self, method: str, rows: np.ndarray, seed: int) -> tuple[float, float]:
        """Trains on rows; returns the main metric on the test and the processor time."""
        training: Callable[[np.ndarray, int], Any] = getattr(self, f"_{method}")
        if method in ("contrastive", "full"):
            self._trainer(method)  # traced and built outside of the measured time
            self._start.restore()
        begin = time.process_time()
        head = training(rows, seed)
        seconds = time.process_time() - begin
        if isinstance(head, Linear):
            vectors = self._test_vectors(is_start=method in ("prototypes", "probe"))
            task = self._model.task
            predictions = decide(task.probabilities(head(vectors)), task.labels)
        else:
            predictions = head
        statistics = self._evaluator.statistics(self._test_targets, predictions)
        value = self._evaluator.metric(statistics.mean(axis=0, keepdims=True))[0]
        return float(value), seconds

    def _tfidf(self, rows: np.ndarray, seed: int) -> np.ndarray:
        baseline = next(iter(self._evaluator.baselines.values()))
        labels = self._model.labels
        return baseline(self._train[rows], self._targets[rows], self._test, labels, seed)

    def _prototypes(self, rows: np.ndarray, seed: int) -> Linear:
        return self._head(self._start_vectors(rows), rows, seed, "prototypes")

    def _probe(self, rows: np.ndarray, seed: int) -> Linear:
        return self._head(self._start_vectors(rows), rows, seed)

    def _contrastive(self, rows: np.ndarray, seed: int) -> Linear:
        trainer = self._trainer("contrastive")
        trainer.fit(self._train[rows], None, self._steps, self._batch_size, self._max_length, seed)
        return self._head(self._vectors(rows), rows, seed)

    def _full(self, rows: np.ndarray, seed: int) -> Linear:
        write_head(self._model, self._probe(rows, seed))
        start = self._trainer("full")
        start.restore()
        size = min(self._batch_size, len(rows))
        steps = steps_for(len(rows), size) if self._steps == "auto" else self._steps
        batches = self._train[rows].batches(
            self._model, size, shuffle=True, seed=seed, max_length=self._max_length
        )
        # A part of the first epoch, or else whole epochs, since Keras ends none of them early.
        is_part = steps < len(batches)
        length = {"steps_per_epoch": steps} if is_part else {"epochs": -(-steps // len(batches))}
        self._model.fit(batches, **length, verbose=0)
        layer = output_layer(self._model)
        kernel, bias = (keras.ops.convert_to_numpy(v.value) for v in (layer.kernel, layer.bias))
        return Linear(kernel, bias)

    def _head(
        self,
        vectors: np.ndarray,
        rows: np.ndarray,
        seed: int,
        kind: Literal["logistic", "prototypes"] = "logistic",
    ) -> Linear:
        return head_of(self._model, vectors, self._targets[rows], kind, seed=seed)

    def _trainer(self, method: str) -> Any:
        """Returns what trains, built once: a `BodyTrainer`, or the first state of an optimizer."""
        if method not in self._trainers:
            self._start.restore()
            if method == "contrastive":
                self._trainers[method] = BodyTrainer(self._model, learning_rate=self._rate)
            else:
                self._model.compile()
                build_optimizer(self._model)
                self._trainers[method] = Snapshot(self._model.optimizer.variables)
        return self._trainers[method]

    def _vectors(self, rows: np.ndarray) -> np.ndarray:
        encoded = self._train[rows].encoded(self._model, self._max_length, targets=False)
        return vectors_of(self._model, encoded, _BATCH, self._train.name)

    def _start_vectors(self, rows: np.ndarray) -> np.ndarray:
        new = np.array([row for row in rows if row not in self._known])
        if len(new):
            self._start.restore()
            self._known.update(zip(new.tolist(), self._vectors(new), strict=True))
        return np.stack([self._known[row] for row in rows.tolist()])

    def _test_vectors(self, is_start: bool) -> np.ndarray:
        if is_start and self._known_test is not None:
            return self._known_test
        if is_start:
            self._start.restore()
        vectors = vectors_of(self._model, self._encoded, _BATCH, self._test.name)
        if is_start:
            self._known_test = vectors
        return vectors


def _checked_methods(methods: Any) -> list[str]:
    """Returns the methods in the order of their effort."""
    listed = [methods] if isinstance(methods, str) else list(methods)
    unknown = [method for method in listed if method not in METHODS]
    if unknown or not listed:
        raise ArgumentError(
            f"methods must be among {', '.join(METHODS)}, found {shown(unknown or listed)}."
        )
    return [method for method in METHODS if method in listed]
