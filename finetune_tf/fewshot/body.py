"""Contrastive fine-tuning of the encoder of a classifier: `tune_body`."""

import functools
from collections.abc import Callable
from typing import Any, Literal

import keras
import numpy as np

from finetune_tf.base.arguments import check
from finetune_tf.base.spelling import names_checked
from finetune_tf.data import Examples
from finetune_tf.data.array_batches import ArrayBatches
from finetune_tf.data.batching import batches_of
from finetune_tf.errors import ArgumentError, ModelError
from finetune_tf.fewshot.encoder import encoder_of, vectors_of
from finetune_tf.fewshot.examples import (
    require_classifier,
    require_known,
    require_labels,
    require_pairs,
    rows_by_label,
    rows_without_label,
)
from finetune_tf.fewshot.pairs import PairContrast, PairCosines
from finetune_tf.fewshot.sampling import balanced_order
from finetune_tf.fewshot.snapshots import Snapshot
from finetune_tf.fewshot.steps import StepLosses, fit_steps, runs_steps, traced_step
from finetune_tf.messages import quiet, say
from finetune_tf.model.finetune_model import FineTuneModel
from finetune_tf.recipe.phases import model_to_fit
from finetune_tf.tasks import Encoded
from finetune_tf.tasks.decisions import forget_after_training
from finetune_tf.training.callbacks import BindSchedule, StopAtNonFiniteLoss
from finetune_tf.training.compiling import with_loss_scale
from finetune_tf.training.fit_errors import check_precision
from finetune_tf.training.freezing import build_optimizer, count_parameters
from finetune_tf.training.presets import make_optimizer
from finetune_tf.training.pretrained import learning_pretrained, remember_changed

PairLoss = Literal["auto", "cosines", "contrast"]

# Passes over the examples; fewer than ten steps teach little, and more than 150 no more.
_EPOCHS, _FEWEST, _MOST = 10, 10, 150
# With more classes, less than an eighth of the pairs in a batch are alike.
_FEW_CLASSES = 8
_RATE, _WIDTH = 1e-4, 384
_HIGHEST_RATE = 1e-3
_CHECKS, _PATIENCE = 8, 3
_MOST_VALIDATION = 512


@names_checked
def tune_body(
    model: FineTuneModel,
    train: Examples,
    validation: Examples | None = None,
    *,
    loss: PairLoss = "auto",
    steps: int | Literal["auto"] = "auto",
    batch_size: int = 32,
    learning_rate: float | Literal["auto"] = "auto",
    max_length: int | None = None,
    seed: int = 0,
) -> list[float]:
    """Trains the encoder of a classifier so that texts of one class have similar vectors.

    Each step compares all texts of a batch with each other; batches have the same number of texts
    of each class. With several labels for a text, those without any label are a class of their own
    in this. A batch of n texts gives n² pairs with the memory of n texts, however many examples
    there are. The head is neither used nor changed: call `fit_head` afterwards.

    Frozen variables stay as they are. If the lowest blocks are frozen, such as by
    `ft.train_only(model, ft.select.blocks(-3))`, they are computed once for each text.

    Args:
        model: A classifier of texts from `load`, which is changed.
        train: Examples of the labels of the model, at least two of each.
        validation: Examples on which the loss is measured eight times during the training. It ends
            when three of these in a row were no better, and the best weights are kept.
        loss: "cosines" (`PairCosines`), "contrast" (`PairContrast`), or "auto": "contrast" for more
            than eight classes with one label for each text, else "cosines".
        steps: The number of steps; "auto" for ten passes over the examples, from 10 to 150 steps.
        batch_size: The most texts in a step, at least 4.
        learning_rate: The peak of a linear warm-up and decay; "auto" for 1e-4 · 384 / width of the
            vectors, at most 1e-3.
        max_length: Tokens of a text here; by default what the model accepts. Predictions read as
            many as it accepts: load it with `max_length=` if they should read fewer.
        seed: Seed of the batches.

    Returns:
        The loss of each step.

    Raises:
        ArgumentError: If a number is out of range, or `loss` is unknown or does not fit the labels.
        DataError: If labels are missing or unknown, a class has fewer than two examples, or all
            texts have the same labels.
        ModelError: If the model is not a classifier of texts, its encoder is frozen or has
            variables of 16 bits, or the loss is not a finite number.

    Example:
        >>> losses = ft.fewshot.tune_body(model, train, steps=3, batch_size=4)
        >>> len(losses)
        3
    """
    check(
        **{"tune_body.steps": steps, "tune_body.batch_size": batch_size},
        learning_rate=learning_rate,
        max_length=max_length,
        seed=seed,
    )
    require_classifier(model)
    require_labels(train=train, validation=validation)
    if validation is not None:
        require_known(validation, model.labels, "validation")
    trainer = BodyTrainer(model, loss, learning_rate, repeats=False)
    return trainer.fit(train, validation, steps, batch_size, max_length, seed)


class BodyTrainer:
    """Contrastive training of one model, which is traced once however often it is repeated.

    Args:
        model: As for `tune_body`.
        loss: As for `tune_body`.
        learning_rate: As for `tune_body`.
        repeats: Whether `fit` is called several times. The state in which the optimizer begins is
            kept for that.
    """

    def __init__(
        self,
        model: FineTuneModel,
        loss: PairLoss = "auto",
        learning_rate: float | Literal["auto"] = "auto",
        repeats: bool = True,
    ) -> None:
        self.model = model
        self._step: Callable | None = None
        chosen = _loss_of(model, loss)
        with quiet():
            # The upper part, if the lowest stages are frozen.
            self._fitted, _ = model_to_fit(model, True, lambda part: None)
        self._encoder = encoder_of(self._fitted)
        if not self._encoder.trainable_variables:
            raise ModelError(
                "All variables below the head are frozen, so there is nothing for contrastive "
                "training to change. Unfreeze some: ft.train_only(model, ft.select.blocks(-3)); or "
                "leave the encoder as it is and call ft.fewshot.fit_head alone."
            )
        check_precision(self._encoder)
        width = self._encoder.output.shape[-1]
        if learning_rate == "auto":
            learning_rate = min(_RATE * _WIDTH / width, _HIGHEST_RATE)
        self.rate = float(learning_rate)
        optimizer = make_optimizer("adamw", self.rate)
        # XLA would compile each length of the batches.
        options = {"jit_compile": False} if keras.backend.backend() == "tensorflow" else {}
        optimizer = with_loss_scale(self._encoder, optimizer)
        self._encoder.compile(optimizer, chosen, **options)
        build_optimizer(self._encoder)
        self._start = Snapshot(self._encoder.optimizer.variables) if repeats else None

    def fit(
        self,
        train: Examples,
        validation: Examples | None = None,
        steps: int | Literal["auto"] = "auto",
        batch_size: int = 32,
        max_length: int | None = None,
        seed: int = 0,
    ) -> list[float]:
        """Trains from the present weights with a new optimizer; see `tune_body`."""
        labels = self.model.labels
        groups = rows_by_label(train, labels)
        require_pairs(groups, train, labels)
        groups += rows_without_label(train, labels)
        encoded = train.encoded(self.model, max_length)
        (lengths,) = list(encoded.lengths.values())[:1]
        rows = min(batch_size, len(encoded))
        if steps == "auto":
            steps = steps_for(len(encoded), rows)
        order = balanced_order(groups, batch_size, steps, seed, lengths)
        if self._start is not None:
            self._start.restore()
        record = StepLosses()
        callbacks: list[keras.callbacks.Callback] = [record]
        if validation is not None:
            callbacks.append(_StopEarly(self._measure(validation, max_length), steps))
        callbacks += [StopAtNonFiniteLoss(), BindSchedule()]
        forget_after_training(self.model.info)
        self._run(encoded, order, max_length, train.name, callbacks)
        self._remember(record.values)
        done = len(record.values)
        say(
            f"Contrastive training: {done} steps of {order.shape[1]} texts, loss "
            f"{record.values[0]:.4f} to {record.values[-1]:.4f}."
        )
        return record.values

    def _run(
        self,
        encoded: Encoded,
        order: np.ndarray,
        max_length: int | None,
        name: str,
        callbacks: list[keras.callbacks.Callback],
    ) -> None:
        """Runs a step for each row of an order (steps, rows of a batch)."""
        size, rows = order.shape[1], order.ravel()
        if runs_steps(self._encoder):
            arrays = ArrayBatches(encoded, self._fitted, size, rows, name)
            if self._step is None:
                self._step = traced_step(self._encoder, arrays)
            run = functools.partial(fit_steps, self._encoder, self._step, arrays, callbacks)
        else:
            batches = batches_of(encoded, self._fitted, size, max_length, order=rows, name=name)
            options = {"callbacks": callbacks, "verbose": 0, "shuffle": False}
            run = functools.partial(self._encoder.fit, batches, **options)
        with quiet():  # `BindSchedule` advises more steps
            run()

    def _measure(self, validation: Examples, max_length: int | None) -> Any:
        """Returns a function that computes the loss of the validation examples."""
        chosen = validation.shuffle(0).take(_MOST_VALIDATION)
        encoded: Encoded = chosen.encoded(self.model, max_length)
        targets = self.model.task.targets(chosen)

        def measure() -> float:
            # Of the whole model: `fit_head` runs the same traced function.
            vectors = vectors_of(self.model, encoded, 64, validation.name, passes=_CHECKS + 1)
            return float(self._encoder.loss(targets, vectors))

        return measure

    def _remember(self, losses: list[float]) -> None:
        """Adds the training to the history of the model, for its model card."""
        remember_changed(self.model, learning_pretrained(self.model))
        trainable, total = count_parameters(self._encoder)
        self.model.info.record.setdefault("fits", []).append(
            {
                "epochs": 1,
                "steps": len(losses),
                "optimizer": "AdamW, contrastive",
                "learning_rate": f"{self.rate:g}, warm-up and linear decay",
                "trained": f"{trainable:,} of {total:,} parameters",
                "last": {"loss": losses[-1]},
            }
        )


def steps_for(rows: int, batch_size: int) -> int:
    """Returns the number of steps for some texts: ten passes, within bounds.

    Example:
        >>> from finetune_tf.fewshot.body import steps_for
        >>> steps_for(16, 16), steps_for(128, 32), steps_for(9600, 32)
        (10, 40, 150)
    """
    return int(np.clip(round(_EPOCHS * rows / batch_size), _FEWEST, _MOST))


def _loss_of(model: FineTuneModel, loss: str) -> keras.losses.Loss:
    """Creates the loss for the labels of a model."""
    several = model.task.problem_type == "multi_label_classification"
    if loss == "auto":
        loss = "contrast" if len(model.labels) > _FEW_CLASSES and not several else "cosines"
    if loss == "contrast" and several:
        raise ArgumentError(
            'loss="contrast" needs one label for each text, but the model has several. Use '
            'loss="cosines", which compares sets of labels.'
        )
    if loss not in ("cosines", "contrast"):
        raise ArgumentError(f"loss must be 'auto', 'cosines' or 'contrast', found {loss!r}.")
    return PairCosines(several) if loss == "cosines" else PairContrast()


class _StopEarly(keras.callbacks.Callback):
    """Ends the training when a measure of validation examples no longer falls."""

    def __init__(self, measure: Any, steps: int) -> None:
        super().__init__()
        self._measure, self._every = measure, max(1, steps // _CHECKS)
        self._best, self._waited = np.inf, 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Measures the encoder as it is."""
        self._weights = Snapshot(self.model.trainable_variables)
        self._best = self._measure()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Measures every few steps."""
        if (batch + 1) % self._every:
            return
        value = self._measure()
        if value < self._best:
            self._best, self._waited = value, 0
            self._weights.update()
            return
        self._waited += 1
        self.model.stop_training = self._waited >= _PATIENCE

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Returns to the best weights."""
        self._weights.restore()
