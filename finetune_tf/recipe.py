"""`finetune`: the public verbs in a row, with good defaults."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras

from finetune_tf.data import Examples, overlap
from finetune_tf.errors import MissingExtraError, ModelError
from finetune_tf.evaluation import Report, evaluate
from finetune_tf.evaluation.curves import plot_history
from finetune_tf.files import write_text
from finetune_tf.loading import load
from finetune_tf.messages import say
from finetune_tf.model import FineTuneModel
from finetune_tf.tasks import get_task
from finetune_tf.training import presets, select
from finetune_tf.training.devices import device_line
from finetune_tf.training.freezing import train_only
from finetune_tf.training.select import Selector

# What learns, one phase after the other; the last one gets the epochs that are asked for.
POLICIES: dict[str, tuple[Selector, ...]] = {
    "full": (select.everything(),),
    "head": (select.head(),),
    # A trained head first keeps early, large gradients away from the pretrained weights
    # (Howard & Ruder 2018; Kumar et al. 2022).
    "head-first": (select.head(), select.everything()),
}


@dataclass
class FinetuneResult:
    """What `finetune` gives back.

    Attributes:
        model: With the weights of the best epoch on the validation examples.
        history: Metric name to one value an epoch, over all phases.
        report: On the test examples, or None without any.
        settings: What it was called with.
    """

    model: FineTuneModel
    history: dict[str, list[float]]
    report: Report | None
    settings: dict[str, Any]

    def save(self, folder: str | Path) -> Path:
        """Writes the run: config.json, history.json, checkpoint/, report.* and pictures.

        Args:
            folder: Made if it does not exist.

        Returns:
            The folder.
        """
        folder = Path(folder)
        self.model.save_pretrained(folder / "checkpoint")
        write_text(folder / "config.json", json.dumps(self.settings, indent=2) + "\n")
        write_text(folder / "history.json", json.dumps(self.history, indent=2) + "\n")
        if self.report is not None:
            self.report.save(folder)
        try:
            plot_history(self.history).savefig(folder / "history.png", dpi=150)
        except MissingExtraError as error:
            say(f"No pictures: {error}")
        return folder


def finetune(
    checkpoint: str | Path,
    train: Examples,
    validation: Examples | None = None,
    test: Examples | None = None,
    *,
    task: str = "text-classification",
    policy: str | Selector = "full",
    epochs: int = 3,
    batch_size: int = 32,
    learning_rate: float | Literal["auto"] = "auto",
    optimizer: str = "adamw",
    pooling: str = "auto",
    dropout: float | None = None,
    max_length: int | None = None,
    dtype: Any = None,
    baseline: Any = "auto",
    seed: int = 0,
    callbacks: tuple = (),
) -> FinetuneResult:
    """Fine-tunes a checkpoint on examples and measures it against a baseline.

    Args:
        checkpoint: A folder or a Hub id.
        train: Examples to learn from.
        validation: Examples that choose the best epoch; by default a tenth of `train`.
        test: Examples for the report; without them there is none.
        task: Name of a Hugging Face pipeline.
        policy: What learns: "full", "head", "head-first" (an epoch of the head, then all), or a
            selector of what trains.
        epochs: Of the last (or only) phase.
        batch_size: Texts a step.
        learning_rate: A number, or "auto": it follows what trains.
        optimizer: "adamw", "sgd", or another Keras optimizer's name.
        pooling: As in `load`.
        dropout: As in `load`.
        max_length: Tokens a text may have; by default as many as the model can take.
        dtype: As in `load`.
        baseline: As in `evaluate`.
        seed: Of weights, order and dropout.
        callbacks: More Keras callbacks for every phase.

    Returns:
        The model, its history and the report.

    Raises:
        FinetuneError: If data, checkpoint or settings do not fit; the message says how.
    """
    phases = _phases(policy)
    keras.utils.set_random_seed(seed)
    say(device_line(dtype))
    if validation is None:
        train, validation = train.split(0.1, seed)
    labels = train.labels if get_task(task).has_labels else None
    model = load(checkpoint, task, labels=labels, pooling=pooling, dropout=dropout, dtype=dtype)
    batches = train.batches(model, batch_size, shuffle=True, seed=seed, max_length=max_length)
    watched = validation.batches(model, batch_size, max_length=max_length)
    preset = getattr(presets, model.task.preset(model.labels))

    history: dict[str, list[float]] = {}
    for i, selector in enumerate(phases):
        train_only(model, selector)
        model.compile(**preset(optimizer=optimizer, learning_rate=learning_rate))
        fit = model.fit(
            batches,
            validation_data=watched,
            epochs=epochs if i == len(phases) - 1 else 1,
            callbacks=[*callbacks, _keep_best(model, epochs)],
        )
        for name, values in fit.history.items():
            history.setdefault(name, []).extend(float(value) for value in values)

    model.info.record["data"] = f"{train.name} ({len(train):,} texts)"
    if test is not None and (shared := overlap(train, test)):
        say(f"{len(shared):,} of {len(test):,} test texts also stand in the training examples.")
    report = None if test is None else evaluate(model, test, baseline=baseline, train=train)
    settings = {
        "checkpoint": str(checkpoint),
        "train": train.name,
        "validation": validation.name,
        "test": test.name if test else None,
        "task": task,
        "policy": str(policy),
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "optimizer": optimizer,
        "pooling": model.info.pooling,
        "dropout": dropout,
        "max_length": max_length or model.task.row_length(model.max_length),
        "dtype": str(dtype or keras.config.dtype_policy().name),
        "seed": seed,
    }
    return FinetuneResult(model, history, report, settings)


def _phases(policy: str | Selector) -> tuple[Selector, ...]:
    if isinstance(policy, Selector):
        return (policy,)
    if policy not in POLICIES:
        raise ModelError(
            f"A policy is one of {', '.join(POLICIES)} or a selector such as "
            f"ft.select.head() | ft.select.blocks(-2), found {policy!r}."
        )
    return POLICIES[policy]


def _keep_best(model: FineTuneModel, epochs: int) -> keras.callbacks.Callback:
    """Ends the phase with the weights of its best epoch on the validation examples."""
    monitor, mode = model.task.monitor(model.labels)
    return keras.callbacks.EarlyStopping(
        monitor, mode=mode, patience=epochs, restore_best_weights=True
    )
