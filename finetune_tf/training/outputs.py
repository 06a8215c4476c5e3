"""The table of Keras losses and the kinds of model outputs (`tasks.Kind`) that they fit."""

import re
from typing import Any, Literal, NamedTuple

import keras

from finetune_tf.errors import ModelError
from finetune_tf.messages import say, warn
from finetune_tf.tasks import IGNORED, Kind, Task
from finetune_tf.training.preset_table import PRESETS


class Fit(NamedTuple):
    """The outputs and targets that a loss is for.

    Attributes:
        meant_for: Description for messages.
        kinds: The kinds of outputs that the loss fits; empty if it fits no model of this library.
        takes: The form of the predictions: "logits" with `from_logits=True`; "outputs" for the
            outputs of the model, unchanged; "positive" for numbers above 0; "probabilities" if
            logits are not supported.
        rows: Whether targets are rows of numbers instead of class indices.
        by_label: Whether the loss of a text is a mean of independent losses per output.
    """

    meant_for: str
    kinds: tuple[Kind, ...]
    takes: Literal["logits", "outputs", "positive", "probabilities"] = "outputs"
    rows: bool = False
    by_label: bool = False


_ONE = "one label out of several"
_MANY = "several labels per text"
_NUMBER = "regression"
_VECTORS = "vectors"
_PAIRS = "pairs of images and texts"

#: All losses of Keras and of the presets, by class name.
LOSSES: dict[str, Fit] = {
    "SparseCategoricalCrossentropy": Fit(_ONE, ("classes",), "logits"),
    "SmoothedCrossEntropy": Fit(_ONE, ("classes",)),
    "FocalCrossEntropy": Fit(_ONE, ("classes",)),
    "OrdinalCrossEntropy": Fit(_ONE, ("classes",)),
    "CategoricalCrossentropy": Fit(_ONE, ("classes",), "logits", rows=True),
    "CategoricalFocalCrossentropy": Fit(_ONE, ("classes",), "logits", rows=True),
    "CategoricalGeneralizedCrossEntropy": Fit("probabilities", (), "probabilities"),
    "CategoricalHinge": Fit(_ONE, ("classes",), rows=True),
    "BinaryCrossentropy": Fit(_MANY, ("several", "yes_no"), "logits", by_label=True),
    "BinaryFocalCrossentropy": Fit(_MANY, ("several", "yes_no"), "logits", by_label=True),
    "Hinge": Fit(_MANY, ("several", "yes_no"), by_label=True),
    "SquaredHinge": Fit(_MANY, ("several", "yes_no"), by_label=True),
    "KLDivergence": Fit("probabilities", (), "probabilities"),
    "Dice": Fit("probabilities", (), "probabilities"),
    "Tversky": Fit("probabilities", (), "probabilities"),
    "MeanSquaredError": Fit(_NUMBER, ("number", "vectors")),
    "MeanAbsoluteError": Fit(_NUMBER, ("number", "vectors")),
    "MeanAbsolutePercentageError": Fit(_NUMBER, ("number", "vectors")),
    "Huber": Fit(_NUMBER, ("number", "vectors")),
    "LogCosh": Fit(_NUMBER, ("number", "vectors")),
    "MeanSquaredLogarithmicError": Fit(_NUMBER, ("number",), "positive"),
    "Poisson": Fit(_NUMBER, ("number",), "positive"),
    "CosineSimilarity": Fit(_VECTORS, ("vectors",)),
    "Circle": Fit(_VECTORS, ("vectors",)),
    "PairSimilarity": Fit(_VECTORS, ("vectors",)),
    "ContrastiveLoss": Fit(_PAIRS, ("pairs", "independent_pairs")),
    "CTC": Fit("sequences of symbols", (), "probabilities"),
}

_WORD_BOUNDARY = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_BY_FUNCTION = {_WORD_BOUNDARY.sub("_", name).lower(): name for name in LOSSES}
#: The default loss for each kind of outputs.
_DEFAULTS = {
    "classes": "SparseCategoricalCrossentropy",
    "several": "BinaryCrossentropy",
    "yes_no": "BinaryCrossentropy",
    "number": "MeanSquaredError",
    "vectors": "PairSimilarity",
    "pairs": "ContrastiveLoss",
    "independent_pairs": "ContrastiveLoss",
}
#: The loss for the name "crossentropy", which Keras resolves by the shapes of a batch.
_CROSS_ENTROPY = {
    "classes": "SparseCategoricalCrossentropy",
    "several": "BinaryCrossentropy",
    "yes_no": "BinaryCrossentropy",
    "number": "BinaryCrossentropy",
    "vectors": "CategoricalCrossentropy",
    "pairs": "CategoricalCrossentropy",
    "independent_pairs": "BinaryCrossentropy",
}


def name_of(loss: Any) -> str | None:
    """Returns the key of a loss in `LOSSES`, or None for a custom loss.

    Args:
        loss: A loss object, or a Keras loss function or its name.

    Example:
        >>> from finetune_tf.training.outputs import name_of
        >>> name_of("mse"), name_of(keras.losses.huber), name_of(lambda y, p: p)
        ('MeanSquaredError', 'Huber', None)
    """
    if isinstance(loss, str):
        if loss in LOSSES and hasattr(keras.losses, loss):
            return loss
        try:
            loss = keras.losses.get(loss)
        except ValueError:
            return None
    if not isinstance(loss, keras.losses.Loss):
        name = getattr(loss, "__name__", "")
        is_custom = not getattr(loss, "__module__", "").startswith("keras.")
        return None if is_custom else _BY_FUNCTION.get(name, name if name in LOSSES else None)
    for base in type(loss).__mro__:
        known = base.__name__ in LOSSES and base.__module__.startswith(("keras.", "finetune_tf."))
        if known and type(loss).call is base.call and type(loss).__call__ is base.__call__:
            return base.__name__
    return None


def fit_of(loss: Any, kind: Kind) -> Fit | None:
    """Returns the entry of a loss in `LOSSES`, or None for a custom loss.

    Args:
        loss: As for `name_of`; None for the default loss.
        kind: The kind of the model's outputs.
    """
    return LOSSES.get(_DEFAULTS[kind] if loss is None else name_of(loss) or "")


def kind_of(task: Task, loss: Any = None) -> Kind:
    """Returns the kind of a model's outputs.

    Args:
        task: The task of the model.
        loss: The training loss. With binary cross-entropy, a single output is the logit of the
            positive class ("yes_no").
    """
    kind = task.output_kind
    fit = LOSSES.get(name_of(loss) or "")
    return "yes_no" if kind == "number" and fit is not None and "yes_no" in fit.kinds else kind


def fitting_loss(loss: Any, task: Task) -> Any:
    """Resolves a loss and configures it for the outputs of the model.

    Args:
        loss: The loss in any form that Keras accepts: a name, a function, an object, its config,
            or one of these in a list or dict.
        task: The task of the model.

    Returns:
        A loss object; a custom loss is returned unchanged.

    Raises:
        ModelError: If the loss does not fit the model, or its name is unknown.
    """
    loss = _unwrap_single(loss)
    if isinstance(loss, str) and loss.lower() in ("crossentropy", "ce"):
        loss = _CROSS_ENTROPY[task.output_kind]
    if isinstance(loss, type) and issubclass(loss, keras.losses.Loss):
        loss = loss()
    name = name_of(loss)
    if name is None:
        if isinstance(loss, str):
            raise ModelError(
                f"There is no loss {loss!r}. Call compile() without a loss to use that of the "
                f"preset; the losses of Keras are {', '.join(sorted(_BY_FUNCTION))}."
            )
        return loss
    fit = LOSSES[name]
    if kind_of(task, loss) not in fit.kinds:
        raise ModelError(_misfit_message(name, fit, task))
    if name == "OrdinalCrossEntropy" and task.token_axis is not None:
        raise ModelError(
            f"{name} is for whole texts or images whose labels have an order, but the model's "
            f"task is {task.name!r}. Call compile() without a loss to use that of the preset."
        )
    if fit.takes == "positive":
        warn(
            f"{name} expects predictions above 0, but the model also returns negative numbers, for "
            "which the gradient is zero or the loss becomes NaN. Use MeanSquaredError or Huber."
        )
    several_targets = task.token_axis is not None
    if not isinstance(loss, keras.losses.Loss):
        if fit.takes != "logits":
            return loss
        shown = loss if isinstance(loss, str) else loss.__name__
        say(f"compile: loss {shown!r} is computed from logits, which the model returns.")
        options = {"ignore_class": IGNORED} if name.startswith("Sparse") else {}
        return getattr(keras.losses, name)(from_logits=True, **options)
    config = loss.get_config()
    if config.get("from_logits") is False:
        warn(
            f"{type(loss).__name__} has from_logits=False, but the model returns logits, so the "
            "model will not learn. Write from_logits=True.",
        )
    if config.get("label_smoothing") and task.targets_are_positions:
        raise ModelError(
            f"label_smoothing spreads probability over all classes. In {task.title}, these are the "
            "tokens of a batch, including padding, so it is not meaningful. Leave it out."
        )
    if name.startswith("Sparse") and several_targets:
        return _with_ignore_class(loss, config)
    return loss


def _unwrap_single(loss: Any) -> Any:
    """Returns the loss inside of a list, a dict or a config."""
    if isinstance(loss, dict) and "class_name" in loss:
        return keras.losses.deserialize(loss)
    if isinstance(loss, list | tuple | dict) and len(loss) == 1:
        (loss,) = loss.values() if isinstance(loss, dict) else loss
        return _unwrap_single(loss)
    return loss


def _with_ignore_class(loss: keras.losses.Loss, config: dict) -> keras.losses.Loss:
    """Returns a loss over class indices that ignores padded targets."""
    ignored = config.get("ignore_class")
    if ignored == IGNORED:
        return loss
    if ignored is not None:
        raise ModelError(
            f"{type(loss).__name__} has ignore_class={ignored}, but ignored targets are {IGNORED} "
            f"in this library. Write ignore_class={IGNORED}."
        )
    say(f"compile: the loss ignores targets of {IGNORED} (ignore_class={IGNORED}).")
    return type(loss).from_config({**config, "ignore_class": IGNORED})


def _misfit_message(name: str, fit: Fit, task: Task) -> str:
    if not fit.kinds:
        return (
            f"{name} is for {fit.meant_for}, but the model returns logits or numbers. Call "
            "compile() without a loss to use that of the preset, or write a custom loss function "
            "of targets and logits."
        )
    by_problem = task.problem_type is not None
    model = f"problem type is {task.problem_type!r}" if by_problem else f"task is {task.name!r}"
    preset = PRESETS[task.output_kind].__name__
    return (
        f"{name} is for {fit.meant_for}, but the model's {model}. Call compile() without a loss to "
        f"use that of ft.presets.{preset}()."
    )
