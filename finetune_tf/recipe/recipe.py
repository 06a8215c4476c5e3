"""`finetune`: the public verbs in a row, with good defaults."""

import itertools
import signal
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import keras

from finetune_tf.base.arguments import check
from finetune_tf.base.interruption import Progress, StopRequest, StopWhenAsked, finishing_steps
from finetune_tf.base.spelling import names_checked
from finetune_tf.data import Examples, overlap
from finetune_tf.errors import CacheError, DataTypeError, ModelError, TrainingInterrupted
from finetune_tf.evaluation import evaluate
from finetune_tf.messages import say
from finetune_tf.model.feature_cache import cache_features
from finetune_tf.model.finetune_model import FineTuneModel
from finetune_tf.model.loading import load
from finetune_tf.recipe.run_folder import FinetuneResult
from finetune_tf.tasks import get_task
from finetune_tf.training import presets, select
from finetune_tf.training.devices import device_line, policy_of
from finetune_tf.training.freezing import train_only
from finetune_tf.training.select import Selector
from finetune_tf.training.starting import start_from_mean

# What learns, one phase after the other; the last one gets the epochs that are asked for.
POLICIES: dict[str, tuple[Selector, ...]] = {
    "full": (select.everything(),),
    "head": (select.head(),),
    # A trained head first keeps early, large gradients away from the pretrained weights
    # (Howard & Ruder 2018; Kumar et al. 2022).
    "head-first": (select.head(), select.everything()),
}


@names_checked
def finetune(
    checkpoint: str | Path,
    train: Examples,
    validation: Examples | None = None,
    test: Examples | None = None,
    *,
    task: str | None = None,
    policy: str | Selector | Sequence[Selector] = "full",
    epochs: int = 3,
    batch_size: int = 32,
    learning_rate: float | Literal["auto"] = "auto",
    optimizer: str = "adamw",
    label_smoothing: float = 0.0,
    keep: Literal["best", "last"] = "best",
    pooling: str = "auto",
    dropout: float | None = None,
    max_length: int | None = None,
    dtype: Any = None,
    baseline: Any = "auto",
    seed: int = 0,
    store_features: bool | str | Path = True,
    class_weight: Mapping[Any, float] | None = None,
    verbose: Literal["auto", 0, 1, 2] = "auto",
    callbacks: tuple = (),
) -> FinetuneResult:
    """Fine-tunes a checkpoint on examples and measures it against a baseline.

    Args:
        checkpoint: A folder or a Hub id.
        train: Examples to learn from.
        validation: Examples that tell how good an epoch is; by default a tenth of `train`.
        test: Examples for the report; without them there is none.
        task: Name of a Hugging Face pipeline; by default inferred as in `load`.
        policy: What learns: "full", "head", "head-first" (an epoch of the head, then all), a
            selector of what trains, or several, one phase after the other.
        epochs: Of the last (or only) phase; a phase before it takes one.
        batch_size: Texts a step.
        learning_rate: Of the last (or only) phase: a number, or "auto": it follows what trains.
            A phase before it has "auto", since a head alone wants a far higher rate.
        optimizer: "adamw", "sgd", or another Keras optimizer's name.
        label_smoothing: As in `presets.cross_entropy`, for models that have one label out of
            several to give.
        keep: The weights a phase ends with: those of its "best" epoch on the validation
            examples, or the "last" ones. As the rate falls to zero, the last epoch is seldom
            worse, and a hundred examples are too few to find a better one.
        pooling: As in `load`.
        dropout: As in `load`.
        max_length: Tokens a text may have; by default as many as the model can take.
        dtype: As in `load`: a Keras dtype policy, or "auto" for mixed_bfloat16 on devices that
            compute it faster; by default Keras's global policy, float32 unless you have set
            another. A message says which one is used, and if "auto" would be faster.
        baseline: As in `evaluate`.
        seed: Of weights, order and dropout.
        store_features: Whether what frozen blocks compute is computed once and kept in memory
            (see `cache_features`), or the folder to keep it in. Where that is not possible, or
            callbacks are given, which expect the whole model, it is computed in each epoch.
        class_weight: What a target of each class counts in the loss, as in Keras's `fit`: by the
            number of a class or by its name; classes that are left out count 1.
        verbose: As in Keras's `fit`: 0 for no progress bar, 2 for a line an epoch.
        callbacks: More Keras callbacks for every phase.

    Returns:
        The model, its history and the report.

    Raises:
        FinetuneError: If data, checkpoint or settings do not fit; the message says how.
        TrainingInterrupted: After Ctrl-C, once the step is finished. Its `result` holds the model
            with the weights of the best epoch so far (see `keep`; those of the last step if no
            epoch of the phase was finished), the history and no report. A second Ctrl-C raises
            KeyboardInterrupt at once, as does one before the first step.
    """
    check(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        label_smoothing=label_smoothing,
        dropout=dropout,
        max_length=max_length,
        seed=seed,
    )
    phases = _phases(policy)
    if keep not in ("best", "last"):
        raise ModelError(f"keep is 'best' or 'last', found {keep!r}.")
    _check_examples(train=train, validation=validation, test=test)
    keras.utils.set_random_seed(seed)
    precision, faster = policy_of(dtype).name, policy_of("auto").name
    advice = f" dtype='auto' computes in {faster}, which is faster on this device."
    say(device_line(precision) + (advice if dtype is None and faster != precision else ""))
    if validation is None:
        train, validation = train.split(0.1, seed)
    labels = train.labels if task is None or get_task(task).has_labels else None
    model = load(checkpoint, task, labels=labels, pooling=pooling, dropout=dropout, dtype=precision)
    if test is not None and model.task.target_column in test.columns:
        model.task.targets(test)  # labels that do not fit are told before the fit
    preset = _preset(model, label_smoothing)
    start_from_mean(model, train)

    def batches(learner: FineTuneModel) -> tuple[Any, Any]:
        learned = {"batch_size": batch_size, "shuffle": True, "seed": seed}
        return (
            train.batches(learner, **learned, max_length=max_length),
            validation.batches(learner, batch_size, max_length=max_length),
        )

    settings = {
        "checkpoint": str(checkpoint),
        "train": train.name,
        "validation": validation.name,
        "test": test.name if test else None,
        "task": model.task.name,
        "policy": str(policy),
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "optimizer": optimizer,
        "label_smoothing": label_smoothing,
        "keep": keep,
        "pooling": model.info.pooling,
        "dropout": dropout,
        "max_length": max_length or model.task.row_length(model.max_length),
        "store_features": str(store_features),
        "class_weight": class_weight and {str(k): float(v) for k, v in class_weight.items()},
        "dtype": precision,
        "seed": seed,
    }
    model.info.record["data"] = f"{train.name} ({len(train):,} texts)"
    result = FinetuneResult(model, {}, None, settings)
    progress, request, kept = Progress(), StopRequest(), None
    try:
        for progress.phase, selector in enumerate(phases, 1):
            is_last = progress.phase == len(phases)
            train_only(model, selector)
            learner, (learned, watched) = _learner(model, store_features and not callbacks, batches)
            rate = learning_rate if is_last else "auto"
            learner.compile(**preset(optimizer=optimizer, learning_rate=rate))
            kept = _Kept(learner, _keep_best(model, epochs) if keep == "best" else None)
            with finishing_steps() as request:
                learner.fit(
                    learned,
                    validation_data=watched,
                    epochs=epochs if is_last else 1,
                    callbacks=[*callbacks, *kept.callbacks, StopWhenAsked(request, progress)],
                    class_weight=class_weight,
                    verbose=verbose,
                )
            kept.add_history(result.history)
            kept = None
        if test is not None and (shared := overlap(train, test)):
            say(f"{len(shared):,} of {len(test):,} test texts also stand in the training examples.")
        if test is not None:
            result.report = evaluate(model, test, baseline=baseline, train=train)
    except KeyboardInterrupt as stop:
        ended_at_once = kept is not None and request.signum and not request.is_obeyed
        if not progress.steps or ended_at_once:
            raise
        weights = "of the last phase's end" if kept is None else kept.restore(result.history)
        settings["interrupted"] = f"{progress}; weights {weights}"
        signum = int(next(iter(stop.args), signal.SIGINT))
        message = f"Training was interrupted in {progress}; the model has the weights {weights}."
        raise TrainingInterrupted(message, result, signum) from None
    return result


class _Kept:
    """What is kept of a phase, whether it comes to its end or not."""

    def __init__(self, learner: FineTuneModel, best: keras.callbacks.EarlyStopping | None) -> None:
        self._learner, self._best = learner, best
        learner.history = None  # that of an earlier phase
        self.callbacks = [] if best is None else [best]

    def add_history(self, history: dict[str, list[float]]) -> None:
        """Adds the finished epochs to those of earlier phases."""
        for name, values in getattr(self._learner.history, "history", {}).items():
            history.setdefault(name, []).extend(float(value) for value in values)

    def restore(self, history: dict[str, list[float]]) -> str:
        """Does what Keras leaves undone at the end of an interrupted fit.

        Returns:
            Which weights the model has now.
        """
        self.add_history(history)
        self._learner._eval_epoch_iterator = None  # or else the next fit validates on its batches
        if self._best is None or self._best.best_weights is None:
            return "of the last step"
        self._best.on_train_end()
        return f"of epoch {self._best.best_epoch + 1}, the best one so far"


def _learner(
    model: FineTuneModel, stores: bool | str | Path, batches: Callable[[FineTuneModel], Any]
) -> tuple[FineTuneModel, Any]:
    """What to fit: the stages that learn, on stored features, if that pays; else the model."""
    below = itertools.takewhile(lambda s: not any(v.trainable for v in s.variables), model.stages)
    if stores and any(stage.role == "block" for stage in below):
        try:
            learner = cache_features(model, None if stores is True else stores)
            return learner, batches(learner)
        except CacheError as error:
            say(f"Frozen stages are computed in each epoch: {error}")
    return model, batches(model)


def _check_examples(train: Any, **others: Any) -> None:
    for argument, given in {"train": train, **others}.items():
        missing_is_fine = given is None and argument != "train"
        if not isinstance(given, Examples) and not missing_is_fine:
            raise DataTypeError(
                f"{argument}= takes Examples, found {given!r}. Read them first, for example with "
                f'ft.data.from_csv("{argument}.csv").'
            )


def _preset(model: FineTuneModel, label_smoothing: float) -> Callable[..., dict[str, Any]]:
    """The preset of the task; label smoothing exists in one of them only."""
    task = model.task
    preset = presets.PRESETS[task.output_kind]
    if not label_smoothing:
        return preset
    if preset is not presets.cross_entropy or task.labels is None:
        raise ModelError(
            f"label_smoothing={label_smoothing} needs one label out of several, but this is "
            f"{task.title.replace('_', ' ')}. Leave label_smoothing out."
        )
    return partial(preset, label_smoothing=label_smoothing)


def _phases(policy: Any) -> tuple[Selector, ...]:
    if isinstance(policy, Selector):
        return (policy,)
    phases = tuple(policy) if isinstance(policy, list | tuple) else ()
    if phases and all(isinstance(phase, Selector) for phase in phases):
        return phases
    if not isinstance(policy, str) or policy not in POLICIES:
        raise ModelError(
            f"A policy is one of {', '.join(POLICIES)} or a selector such as "
            f"ft.select.head() | ft.select.blocks(-2), found {policy!r}."
        )
    return POLICIES[policy]


def _keep_best(model: FineTuneModel, epochs: int) -> keras.callbacks.Callback:
    """Ends the phase with the weights of its best epoch on the validation examples."""
    monitor, mode = model.task.monitor
    return keras.callbacks.EarlyStopping(
        monitor, mode=mode, patience=epochs, restore_best_weights=True
    )
