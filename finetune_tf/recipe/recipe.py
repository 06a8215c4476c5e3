"""`finetune`: loading, freezing, compiling, fitting and evaluating in one call."""

import signal
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import keras

from finetune_tf import presets
from finetune_tf.base.arguments import check
from finetune_tf.base.interruption import Progress, StopRequest, StopWhenAsked, finishing_steps
from finetune_tf.base.spelling import names_checked
from finetune_tf.data import Examples, overlap
from finetune_tf.errors import DataTypeError, ModelError, TrainingInterrupted
from finetune_tf.evaluation import evaluate
from finetune_tf.evaluation.evaluators.registry import evaluator_of
from finetune_tf.messages import say
from finetune_tf.model.finetune_model import FineTuneModel
from finetune_tf.model.loading import load
from finetune_tf.recipe.phases import PhaseWeights, model_to_fit, phases_of, restore_best_epoch
from finetune_tf.recipe.resumable import resumable
from finetune_tf.recipe.run_folder import FinetuneResult
from finetune_tf.tasks import get_task, task_options
from finetune_tf.training.devices import device_line, policy_of
from finetune_tf.training.freezing import train_only
from finetune_tf.training.groups import Key
from finetune_tf.training.objectives import Objective
from finetune_tf.training.objectives.objective import as_objectives
from finetune_tf.training.select import Selector
from finetune_tf.training.shapes import Shape
from finetune_tf.training.starting import start_from_mean


@names_checked(also=task_options)
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
    schedule: Shape = "linear",
    warmup_ratio: float | None = None,
    weight_decay: float = 0.01,
    rates: Mapping[Key, float] | None = None,
    label_smoothing: float = 0.0,
    objectives: Objective | Sequence[Objective] = (),
    keep: Literal["best", "last"] = "best",
    pooling: str = "auto",
    dropout: float | None = None,
    max_length: int | None = None,
    packing: bool | int | Literal["auto"] = False,
    dtype: Any = None,
    baseline: Any = "auto",
    seed: int = 0,
    store_features: bool | str | Path = True,
    class_weight: Mapping[Any, float] | Literal["balanced"] | None = None,
    verbose: Literal["auto", 0, 1, 2] = "auto",
    callbacks: tuple = (),
    resume: bool | str | Path = False,
    **options: Any,
) -> FinetuneResult:
    """Fine-tunes a checkpoint on examples and compares it with a baseline.

    Args:
        checkpoint: A folder or a Hub id.
        train: The training examples.
        validation: The validation examples; by default a tenth of `train` is split off.
        test: The test examples for the report; by default there is no report.
        task: The name of a Hugging Face pipeline task; by default inferred as in `load`.
        policy: Which variables to train: "full", "head", "head-first" (one epoch of the head, then
            everything), a selector, or a list of selectors, one per phase.
        epochs: The number of epochs of the last (or only) phase; earlier phases run for one epoch.
        batch_size: The number of texts per step.
        learning_rate: The peak learning rate of the last (or only) phase; "auto" chooses it by what
            is trainable. Earlier phases use "auto", because a head needs a far higher rate.
        optimizer: "adamw", "sgd", or the name of another Keras optimizer.
        schedule: As in `presets.make_optimizer`: "linear", "cosine", "one-cycle", "polynomial" or
            "constant".
        warmup_ratio: As in `presets.make_optimizer`.
        weight_decay: As in `presets.make_optimizer`.
        rates: Factors on the learning rate of the last (or only) phase, as in
            `presets.make_optimizer`, such as `{ft.select.head(): 10.0}`.
        label_smoothing: As in `presets.cross_entropy`, for single-label classification only.
        objectives: What the last (or only) phase minimizes or perturbs besides the loss, from
            `ft.objectives`, such as `[ft.objectives.RDrop()]`.
        keep: "best" restores the weights of the epoch with the best validation result at the end of
            each phase, "last" keeps those of the last epoch. With a learning rate that decays to
            zero, the last epoch is seldom worse, and a hundred examples are too few to tell.
        pooling: As in `load`.
        dropout: As in `load`.
        max_length: The maximum number of tokens per text, in training, in the report and in the
            saved model, as in `load`; by default the model's maximum.
        packing: Whether the training packs several short texts into a row, as in
            `Examples.batches`.
        dtype: As in `load`: a Keras dtype policy, or "auto" for mixed_bfloat16 on devices that
            compute it faster; by default Keras's global policy, float32 unless you have set
            another. A message says which one is used, and whether "auto" would be faster.
        baseline: As in `evaluate`.
        seed: The seed of new weights, shuffling and dropout.
        store_features: Whether to cache the outputs of frozen blocks in memory (see
            `cache_features`), or a folder to cache them in. If that is not possible, or if there
            are callbacks, which expect the complete model, they are computed in each epoch. A
            callback whose attribute `needs_whole_model` is False does not prevent it.
        class_weight: The weight of each class in the loss, as in Keras's `fit`, by class index or
            name. Classes that are not listed have the weight 1. "balanced" weights each class by
            the inverse of its number of rows.
        verbose: As in Keras's `fit`: 0 for no progress bar, 2 for one line per epoch.
        callbacks: Additional Keras callbacks for every phase.
        resume: A folder for saves of the running fit, or True for "finetune_tf_resume". The same
            call after a crash or Ctrl-C continues exactly where it stopped; see
            `callbacks.Resume`. Training is saved after each epoch and every 100 steps.
        **options: Options of the task, as in `Examples.batches`, such as `languages` for
            translation.

    Returns:
        The model, its history and the report.

    Raises:
        FinetuneError: If the data, the checkpoint or an argument is invalid.
        TrainingInterrupted: After Ctrl-C, once the current step is finished. Its `result` has the
            model with the weights of the best epoch so far (see `keep`; of the last step if no
            epoch of the phase is finished) and the history. A second Ctrl-C, or one before the
            first step, raises KeyboardInterrupt immediately.

    Example:
        >>> result = ft.finetune(checkpoint, train, train, epochs=1, verbose=0)
        >>> result.history.keys() >= {"loss", "val_accuracy"}
        True
    """
    check(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        label_smoothing=label_smoothing,
        dropout=dropout,
        max_length=max_length,
        packing=packing,
        seed=seed,
    )
    phases, objectives = phases_of(policy), as_objectives(objectives)
    optimizing = {"schedule": schedule, "warmup_ratio": warmup_ratio, "weight_decay": weight_decay}
    presets.make_optimizer(optimizer, **optimizing, rates=rates)  # raises errors before the load
    if keep not in ("best", "last"):
        raise ModelError(f"keep must be 'best' or 'last', found {keep!r}.")
    check_examples(train=train, validation=validation, test=test)
    keras.utils.set_random_seed(seed)
    precision, faster = policy_of(dtype).name, policy_of("auto").name
    advice = f" dtype='auto' computes in {faster}, which is faster on this device."
    say(device_line(precision) + (advice if dtype is None and faster != precision else ""))
    if validation is None:
        train, validation = train.split(0.1, seed)
    else:
        say_shared(train, validation)
    labels = train.labels if task is None or get_task(task).has_labels else None
    model = load(
        checkpoint,
        task,
        labels=labels,
        pooling=pooling,
        dropout=dropout,
        dtype=precision,
        max_length=max_length,
    )
    if test is not None:  # raises errors before the fit
        evaluator_of(model.task).require()
        if model.task.target_column in test.columns:
            model.task.targets(test)
    preset = _preset(model, label_smoothing)
    start_from_mean(model, train)

    packs = packing
    has_places = not model.task.has_token_outputs
    if packing == "auto" and has_places and not all(each.allows_packing for each in objectives):
        packs = False  # "auto" packs where that is possible

    def make_batches(fitted: FineTuneModel) -> tuple[Any, Any]:
        shuffling = {"shuffle": True, "seed": seed, "packing": packs}
        return (
            train.batches(fitted, batch_size, **shuffling, **options),
            validation.batches(fitted, batch_size, **options),
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
        "packing": packing,
        "learning_rate": learning_rate,
        "optimizer": optimizer,
        **optimizing,
        "rates": rates and {str(key): float(factor) for key, factor in rates.items()},
        "label_smoothing": label_smoothing,
        "objectives": [repr(objective) for objective in objectives],
        "keep": keep,
        "pooling": model.info.pooling,
        "dropout": dropout,
        "max_length": model.row_length,
        "store_features": str(store_features),
        "class_weight": {str(k): float(v) for k, v in class_weight.items()}
        if isinstance(class_weight, Mapping)
        else class_weight,
        "dtype": precision,
        "seed": seed,
        **options,
    }
    unit = evaluator_of(model.task).example_unit
    model.info.record["data"] = f"{train.name} ({len(train):,} {unit})"
    result = FinetuneResult(model, {}, None, settings)
    caches = not any(getattr(callback, "needs_whole_model", True) for callback in callbacks)
    survives = resumable(resume, settings)
    progress, request, weights = Progress(), StopRequest(), None
    try:
        for progress.phase, selector in enumerate(phases, 1):
            is_last = progress.phase == len(phases)
            train_only(model, selector)
            fitted, (batches, validation_batches) = model_to_fit(
                model, store_features if caches else False, make_batches
            )
            rate = learning_rate if is_last else "auto"
            of_last = {"rates": rates, "objectives": objectives or None} if is_last else {}
            compiled = preset(optimizer=optimizer, learning_rate=rate, **optimizing, **of_last)
            fitted.compile(**compiled)
            best = restore_best_epoch(model, epochs) if keep == "best" else None
            weights = PhaseWeights(fitted, best)
            with finishing_steps() as request:
                own = [StopWhenAsked(request, progress, stops=survives is None)]
                if survives is not None:
                    own.append(survives.callback(progress.phase, request))
                fitted.fit(
                    batches,
                    validation_data=validation_batches,
                    epochs=epochs if is_last else 1,
                    callbacks=[*callbacks, *weights.callbacks, *own],
                    class_weight=class_weight,
                    verbose=verbose,
                )
            weights.add_history(result.history)
            weights = None
        if test is not None and (shared := overlap(train, test)):
            say(
                f"{len(shared):,} of {len(test):,} test {unit} also occur in the training examples."
            )
        if test is not None:
            result.report = evaluate(model, test, baseline=baseline, train=train, seed=seed)
    except KeyboardInterrupt as stop:
        stopped_at_once = weights is not None and request.signum and not request.is_obeyed
        if not progress.steps or stopped_at_once:
            raise
        which = "of the end of training" if weights is None else weights.restore(result.history)
        settings["interrupted"] = f"{progress}; weights {which}"
        signum = int(next(iter(stop.args), signal.SIGINT))
        message = f"Training was interrupted in {progress}; the model has the weights {which}."
        if survives is not None:
            message += f" Make the same call again to continue; the saves are in {survives.folder}."
        raise TrainingInterrupted(message, result, signum) from None
    return result


def say_shared(train: Examples, validation: Examples) -> None:
    """Says how many of the validation examples are training examples as well."""
    if shared := overlap(train, validation):
        say(
            f"{len(shared):,} of {len(validation):,} validation examples also occur in the "
            "training examples, so results on them are too good to choose by."
        )


def check_examples(train: Any, **others: Any) -> None:
    """Checks that arguments are `Examples`; those besides `train` may be None.

    Raises:
        DataTypeError: If one is something else.
    """
    for argument, value in {"train": train, **others}.items():
        is_optional = value is None and argument != "train"
        if not isinstance(value, Examples) and not is_optional:
            raise DataTypeError(
                f"{argument}= must be Examples, found {value!r}. Read the data first, for example "
                f'with ft.data.from_csv("{argument}.csv").'
            )


def _preset(model: FineTuneModel, label_smoothing: float) -> Callable[..., dict[str, Any]]:
    """Returns the preset of the task. Only cross-entropy supports label smoothing."""
    task = model.task
    preset = presets.PRESETS[task.output_kind]
    if not label_smoothing:
        return preset
    if preset is not presets.cross_entropy or task.labels is None:
        raise ModelError(
            f"label_smoothing={label_smoothing} is for single-label classification, but this task "
            f"is {task.title.replace('_', ' ')}. Remove label_smoothing."
        )
    return partial(preset, label_smoothing=label_smoothing)
