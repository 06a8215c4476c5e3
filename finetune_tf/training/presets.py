"""The presets of the usual losses, and the optimizer of all presets; see `finetune_tf.presets`."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import keras

from finetune_tf.base.arguments import check
from finetune_tf.base.spelling import names_checked
from finetune_tf.errors import ArgumentError, ModelError
from finetune_tf.tasks import IGNORED, Kind
from finetune_tf.training import shapes
from finetune_tf.training.classification import Accuracy, SmoothedCrossEntropy
from finetune_tf.training.contrastive_loss import ContrastiveLoss
from finetune_tf.training.gradients import give_whole_gradients
from finetune_tf.training.groups import Key
from finetune_tf.training.objectives import Objective
from finetune_tf.training.objectives.objective import as_objectives
from finetune_tf.training.optimizers import NO_DECAY, AdamW
from finetune_tf.training.rates import with_rates
from finetune_tf.training.schedules import (
    HEAD_RATE,
    PRETRAINED_RATE,
    AutoConstant,
    Schedule,
    WarmupLinearDecay,
    is_schedule,
)
from finetune_tf.training.selector import Selector
from finetune_tf.training.shapes import Shape
from finetune_tf.training.similarity_loss import PairSimilarity

_DECAY = 0.01  # the weight decay of AdamW by default
Rate = float | Literal["auto"] | Schedule | keras.optimizers.schedules.LearningRateSchedule

#: Functions that create the loss for each kind of outputs, without an optimizer.
LOSSES: dict[Kind, Callable[..., keras.losses.Loss]] = {
    "classes": functools.partial(
        keras.losses.SparseCategoricalCrossentropy, from_logits=True, ignore_class=IGNORED
    ),
    "several": functools.partial(keras.losses.BinaryCrossentropy, from_logits=True),
    "number": keras.losses.MeanSquaredError,
    "vectors": PairSimilarity,
    "pairs": ContrastiveLoss,
    "independent_pairs": functools.partial(ContrastiveLoss, "sigmoid"),
}


def compile_arguments(
    loss: keras.losses.Loss,
    metrics: list,
    optimizer: str,
    learning_rate: Rate,
    objectives: Sequence[Objective] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Returns what a preset returns; without objectives, any Keras model accepts it."""
    made = make_optimizer(optimizer, learning_rate, **options)
    arguments = {"optimizer": made, "loss": loss, "metrics": metrics}
    return (
        arguments
        if objectives is None
        else {**arguments, "objectives": list(as_objectives(objectives))}
    )


def preset_options() -> list[str]:
    """Returns the names of the options that all presets share."""
    return ["objectives", *list(inspect.signature(make_optimizer).parameters)[2:]]


@names_checked(also=preset_options)
def cross_entropy(
    optimizer: str = "adamw",
    learning_rate: Rate = "auto",
    *,
    label_smoothing: float = 0.0,
    **options: Any,
) -> dict[str, Any]:
    """Cross-entropy over class indices, for one label per text or token.

    Also for question answering, where the classes are the tokens of the context, and for
    fill-mask, where they are the tokens of the vocabulary. Targets of -100 are ignored, as in
    PyTorch.

    Args:
        optimizer: "adamw" (Loshchilov & Hutter 2019), "sgd" (with momentum 0.9), or the name of
            another Keras optimizer.
        learning_rate: A number, a Keras schedule, or "auto": 5e-5 while pretrained variables are
            trainable, 2e-3 while only the head and other new variables are (for SGD, a hundred
            times as much).
        label_smoothing: Fraction of the target probability that is distributed over all classes
            (Szegedy et al. 2016).
        **options: Options of all presets: `objectives`, what training minimizes or perturbs besides
            the loss (see `ft.objectives`), and those of `make_optimizer`: schedule, warmup_ratio,
            warmup_steps, weight_decay, no_decay, clip_norm, accumulate, rates, state_dtype,
            state_memory.

    Returns:
        A dict with optimizer, loss and metrics, and objectives if there are any, for
        `model.compile`.

    Example:
        >>> model.compile(**ft.presets.cross_entropy(learning_rate=3e-5, label_smoothing=0.1))
        >>> model.loss.label_smoothing
        0.1
    """
    check(label_smoothing=label_smoothing)
    make_loss = LOSSES["classes"]
    loss = SmoothedCrossEntropy(label_smoothing) if label_smoothing else make_loss()
    return compile_arguments(loss, [Accuracy()], optimizer, learning_rate, **options)


@names_checked(also=preset_options)
def binary_cross_entropy(
    optimizer: str = "adamw",
    learning_rate: Rate = "auto",
    **options: Any,
) -> dict[str, Any]:
    """Binary cross-entropy over multi-hot targets (batch, labels), for several labels per text.

    Args:
        optimizer: As for `cross_entropy`.
        learning_rate: As for `cross_entropy`.
        **options: As for `cross_entropy`.

    Returns:
        A dict with optimizer, loss and metrics, for `model.compile`. For the accuracy, a label is
        predicted if its logit is above 0.

    Example:
        >>> problem = "multi_label_classification"
        >>> model = ft.load(checkpoint, labels=["funny", "sad", "long"], problem_type=problem)
        >>> model.compile(**ft.presets.binary_cross_entropy())
        >>> model.loss.name
        'binary_crossentropy'
    """
    metrics = [keras.metrics.BinaryAccuracy(threshold=0.0, name="accuracy")]
    return compile_arguments(LOSSES["several"](), metrics, optimizer, learning_rate, **options)


@names_checked(also=preset_options)
def mean_squared_error(
    optimizer: str = "adamw",
    learning_rate: Rate = "auto",
    **options: Any,
) -> dict[str, Any]:
    """Mean squared error, for regression: one number per text.

    Args:
        optimizer: As for `cross_entropy`.
        learning_rate: As for `cross_entropy`.
        **options: As for `cross_entropy`.

    Returns:
        A dict with optimizer, loss and metrics, and objectives if there are any, for
        `model.compile`.

    Example:
        >>> model = ft.load(checkpoint, labels=["stars"])
        >>> model.compile(**ft.presets.mean_squared_error(warmup_ratio=0.0))
        >>> model.loss.name
        'mean_squared_error'
    """
    metrics = [keras.metrics.MeanAbsoluteError(name="mae")]
    return compile_arguments(LOSSES["number"](), metrics, optimizer, learning_rate, **options)


@names_checked
def make_optimizer(
    name: str = "adamw",
    learning_rate: Rate = "auto",
    *,
    schedule: Shape = "linear",
    warmup_ratio: float | None = None,
    warmup_steps: float | None = None,
    weight_decay: float = _DECAY,
    no_decay: Selector | Sequence[Key] | None = None,
    clip_norm: float | None = 1.0,
    accumulate: int = 1,
    rates: Mapping[Key, float] | None = None,
    state_dtype: str | None = None,
    state_memory: str | None = None,
) -> keras.optimizers.Optimizer:
    """Creates the optimizer of the presets.

    Args:
        name: "adamw" (Loshchilov & Hutter 2019), "sgd" (with momentum 0.9), or the name of another
            Keras optimizer.
        learning_rate: A number, a Keras schedule, or "auto"; see `cross_entropy`.
        schedule: The shape of the learning rate over the fit: "linear" for linear warm-up and decay
            (Devlin et al. 2019), "cosine", "one-cycle", "polynomial" or "constant"; see
            `finetune_tf.training.Schedule`, which has further options and can be given as
            `learning_rate`.
        warmup_ratio: Fraction of the steps used for the warm-up, by default a tenth; 0.3 for
            "one-cycle" and 0 for "constant".
        warmup_steps: Number of optimizer steps of the warm-up, instead of `warmup_ratio`.
        weight_decay: Weight decay of AdamW; other optimizers have none.
        no_decay: Variables without weight decay, as for AdamW; by default biases and the parameters
            of normalization layers.
        clip_norm: Maximum global norm of the gradients, or None for no clipping.
        accumulate: Number of batches whose gradients are averaged into one step. This has the
            effect of larger batches with the memory of one, except for what compares the rows of a
            batch with each other (the losses of pairs, `SupervisedContrastive`). An incomplete
            group of batches at the end of an epoch is applied as a step of its own.
        rates: Factors on the learning rate by selector or regular expression, such as
            `{ft.select.head(): 10.0}`. The first one that fits a variable is used; see `layerwise`,
            and `with_rates` for the optimizers that can have them.
        state_dtype: "bfloat16" stores the moments of AdamW in half of the memory; see
            `finetune_tf.training.AdamW`.
        state_memory: "host" keeps them in the memory of the host, on JAX; see there.

    Returns:
        The optimizer.

    Raises:
        ModelError: If the optimizer or the schedule is unknown, or the optimizer cannot have
            `rates`, `weight_decay`, `no_decay`, `state_dtype` or `state_memory`.
        ArgumentError: If a number is outside of its range, or both `warmup_ratio` and
            `warmup_steps` are given, or one of them beside a schedule.

    Example:
        >>> optimizer = ft.presets.make_optimizer("adamw", 3e-5, weight_decay=0.0, accumulate=4)
        >>> optimizer.gradient_accumulation_steps
        4
    """
    check(
        weight_decay=weight_decay,
        clip_norm=clip_norm,
        accumulate=accumulate,
    )
    shapes.check_warmup(warmup_ratio, warmup_steps)
    shapes.check_shape(schedule)
    warmup = {"warmup_ratio": warmup_ratio, "warmup_steps": warmup_steps}
    has_warmup = warmup != {"warmup_ratio": None, "warmup_steps": None}
    if has_warmup and is_schedule(learning_rate):
        raise ArgumentError(
            "A warm-up is given beside learning_rate, which is a schedule and determines each rate "
            "itself. Give the warm-up to the schedule: ft.training.Schedule(2e-5, 'cosine', "
            "warmup_steps=100)."
        )
    name = name.lower()
    if not is_schedule(learning_rate):
        check(learning_rate=learning_rate)
        scale = 100.0 if name == "sgd" else 1.0
        automatic = {"pretrained_rate": PRETRAINED_RATE * scale, "head_rate": HEAD_RATE * scale}
        if schedule == "linear":
            learning_rate = WarmupLinearDecay(learning_rate, **warmup, **automatic)
        elif schedule != "constant" or has_warmup:
            learning_rate = Schedule(learning_rate, schedule, **warmup, **automatic)
        elif learning_rate == "auto":
            learning_rate = AutoConstant("auto", 0.0, **automatic)
        else:
            learning_rate = float(learning_rate)
    options: dict[str, Any] = {} if clip_norm is None else {"global_clipnorm": clip_norm}
    if accumulate > 1:
        options["gradient_accumulation_steps"] = accumulate
    if name == "adamw":
        undecayed = NO_DECAY if no_decay is None else no_decay
        return AdamW(
            learning_rate,
            weight_decay,
            no_decay=undecayed,
            rates=rates,
            state_dtype=state_dtype,
            state_memory=state_memory,
            **options,
        )
    for option, value in {"state_dtype": state_dtype, "state_memory": state_memory}.items():
        if value is not None:
            raise ModelError(f"{option} is for the moments of 'adamw', not for {name!r}.")
    if no_decay is not None:
        raise ModelError(f"no_decay is for the weight decay of 'adamw', not for {name!r}.")
    if weight_decay not in (0, _DECAY):
        raise ModelError(
            f"weight_decay={weight_decay:g} is for 'adamw' and would have no effect on {name!r}. "
            "Leave it out, or use optimizer='adamw'."
        )
    if name == "sgd":
        optimizer = keras.optimizers.SGD(learning_rate, momentum=0.9, **options)
    else:
        try:
            optimizer_class = type(keras.optimizers.get(name))
        except ValueError:
            raise ModelError(
                f"There is no optimizer {name!r}; use 'adamw', 'sgd', or the name of a Keras "
                "optimizer."
            ) from None
        optimizer = optimizer_class(learning_rate, **options)
    if rates:
        optimizer = with_rates(optimizer, rates)
    give_whole_gradients(optimizer)
    return optimizer
