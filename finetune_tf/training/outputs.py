"""Which of Keras's losses fit what a model gives: one table, by the kinds of `tasks.Kind`."""

import re
from typing import Any, Literal, NamedTuple

import keras

from finetune_tf.errors import ModelError
from finetune_tf.messages import say, warn
from finetune_tf.tasks import IGNORED, Kind, Task
from finetune_tf.training.presets import PRESETS


class Fit(NamedTuple):
    """What a loss is for.

    Attributes:
        meant_for: In words.
        kinds: The kinds of outputs that it fits; none for a loss that fits no model here.
        takes: "logits" if `from_logits=True` makes it take them, "outputs" if it takes what the
            model gives as it is, "positive" if it wants numbers above 0, "probabilities" if it
            takes nothing else.
        rows: Whether targets are rows of numbers instead of class numbers.
        by_label: Whether the loss of a text is a mean over its outputs, each on its own.
    """

    meant_for: str
    kinds: tuple[Kind, ...]
    takes: Literal["logits", "outputs", "positive", "probabilities"] = "outputs"
    rows: bool = False
    by_label: bool = False


_ONE = "one label out of several"
_MANY = "labels of which several may be right"
_NUMBER = "numbers"
_VECTORS = "vectors"

#: Every loss of Keras and of the presets, by the name of its class.
LOSSES: dict[str, Fit] = {
    "SparseCategoricalCrossentropy": Fit(_ONE, ("classes",), "logits"),
    "SmoothedCrossEntropy": Fit(_ONE, ("classes",)),
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
    "CTC": Fit("sequences of symbols", (), "probabilities"),
}

_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_BY_FUNCTION = {_WORD.sub("_", name).lower(): name for name in LOSSES}
#: The loss of each kind of outputs where nobody chose one.
_USUAL = {
    "classes": "SparseCategoricalCrossentropy",
    "several": "BinaryCrossentropy",
    "yes_no": "BinaryCrossentropy",
    "number": "MeanSquaredError",
    "vectors": "PairSimilarity",
}
#: Names that Keras resolves by the shapes of a batch.
_CROSS_ENTROPY = {
    "classes": "SparseCategoricalCrossentropy",
    "several": "BinaryCrossentropy",
    "yes_no": "BinaryCrossentropy",
    "number": "BinaryCrossentropy",
    "vectors": "CategoricalCrossentropy",
}


def name_of(loss: Any) -> str | None:
    """The row of a loss in `LOSSES`; None of a loss that somebody wrote.

    Args:
        loss: A loss object, or a function or name of Keras's.
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
        own = not getattr(loss, "__module__", "").startswith("keras.")
        return None if own else _BY_FUNCTION.get(name, name if name in LOSSES else None)
    for base in type(loss).__mro__:
        known = base.__name__ in LOSSES and base.__module__.startswith(("keras.", "finetune_tf."))
        if known and type(loss).call is base.call and type(loss).__call__ is base.__call__:
            return base.__name__
    return None


def fit_of(loss: Any, kind: Kind) -> Fit | None:
    """What a loss is for; None of one that somebody wrote.

    Args:
        loss: As for `name_of`; None for that of the preset.
        kind: What the outputs of the model are.
    """
    return LOSSES.get(_USUAL[kind] if loss is None else name_of(loss) or "")


def kind_of(task: Task, loss: Any = None) -> Kind:
    """What the outputs of a model are.

    Args:
        task: Of the model.
        loss: That it learns with: binary cross-entropy on one output makes it the logit of yes.
    """
    kind = task.output_kind
    fit = LOSSES.get(name_of(loss) or "")
    return "yes_no" if kind == "number" and fit is not None and "yes_no" in fit.kinds else kind


def fitting_loss(loss: Any, task: Task) -> Any:
    """A loss that takes what the model gives, whatever form it was written in.

    Args:
        loss: In any of the forms that Keras takes: a name, a function, an object, its config, or
            one of these in a list or dict.
        task: Of the model.

    Returns:
        An object, or what was given where nothing is known of it.

    Raises:
        ModelError: If the loss does not fit the model, or there is none of that name.
    """
    loss = _single(loss)
    if isinstance(loss, str) and loss.lower() in ("crossentropy", "ce"):
        loss = _CROSS_ENTROPY[task.output_kind]
    if isinstance(loss, type) and issubclass(loss, keras.losses.Loss):
        loss = loss()
    name = name_of(loss)
    if name is None:
        if isinstance(loss, str):
            raise ModelError(
                f"There is no loss {loss!r}. Call compile() without a loss to get the one that "
                f"fits; Keras's are {', '.join(sorted(_BY_FUNCTION))}."
            )
        return loss
    fit = LOSSES[name]
    if kind_of(task, loss) not in fit.kinds:
        raise ModelError(_does_not_fit(name, fit, task))
    if fit.takes == "positive":
        warn(
            f"{name} takes numbers above 0, but the model gives any: where they are below, it "
            "does not learn, or the loss becomes NaN. Take MeanSquaredError or Huber."
        )
    several_targets = task.token_axis is not None
    if not isinstance(loss, keras.losses.Loss):
        if fit.takes != "logits":
            return loss
        shown = loss if isinstance(loss, str) else loss.__name__
        say(f"compile: loss {shown!r} is taken on logits, which is what the model returns.")
        ignoring = {"ignore_class": IGNORED} if name.startswith("Sparse") else {}
        return getattr(keras.losses, name)(from_logits=True, **ignoring)
    config = loss.get_config()
    if config.get("from_logits") is False:
        warn(
            f"{type(loss).__name__} has from_logits=False, but the model returns logits, so it "
            "will not learn. Write from_logits=True.",
        )
    if config.get("label_smoothing") and task.targets_are_positions:
        raise ModelError(
            f"label_smoothing spreads probability over all classes. In {task.title} these are the "
            "tokens of a batch, padding included, so it means nothing there: leave it out."
        )
    if name.startswith("Sparse") and several_targets:
        return _ignoring(loss, config)
    return loss


def _single(loss: Any) -> Any:
    """The one loss in a list, a dict or a config."""
    if isinstance(loss, dict) and "class_name" in loss:
        return keras.losses.deserialize(loss)
    if isinstance(loss, list | tuple | dict) and len(loss) == 1:
        (loss,) = loss.values() if isinstance(loss, dict) else loss
        return _single(loss)
    return loss


def _ignoring(loss: keras.losses.Loss, config: dict) -> keras.losses.Loss:
    """A loss over class numbers that leaves out what is padded."""
    ignored = config.get("ignore_class")
    if ignored == IGNORED:
        return loss
    if ignored is not None:
        raise ModelError(
            f"{type(loss).__name__} has ignore_class={ignored}, but targets that count for nothing "
            f"are {IGNORED} here. Write ignore_class={IGNORED}."
        )
    say(f"compile: targets of {IGNORED} count for nothing in the loss: ignore_class={IGNORED}.")
    return type(loss).from_config({**config, "ignore_class": IGNORED})


def _does_not_fit(name: str, fit: Fit, task: Task) -> str:
    if not fit.kinds:
        return (
            f"{name} is for {fit.meant_for}, but the model returns logits or numbers. Call "
            "compile() without a loss to get the one that fits, or write a function of targets "
            "and logits."
        )
    by_problem = task.problem_type is not None
    model = f"problem type is {task.problem_type!r}" if by_problem else f"task is {task.name!r}"
    preset = PRESETS[task.output_kind].__name__
    return (
        f"{name} is for {fit.meant_for}, but the model's {model}. Call compile() without a loss to "
        f"get the one that fits. That is the one of ft.presets.{preset}()."
    )
