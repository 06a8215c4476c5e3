"""Which adapters of a model are active, and what is trained."""

from collections.abc import Iterable
from typing import Any

import keras

from finetune_tf.adapters.attaching import (
    active_adapters,
    active_names,
    adapted_layers,
    merged_names,
    names_of,
    set_active,
)
from finetune_tf.adapters.choosing import head_variables, trained_biases
from finetune_tf.base.arguments import shown
from finetune_tf.base.spelling import names_checked
from finetune_tf.errors import ArgumentError, ModelError
from finetune_tf.graph.pieces import learnable_variables
from finetune_tf.graph.stages import require_model
from finetune_tf.graph.traces import forget_traces
from finetune_tf.messages import say
from finetune_tf.tasks.decisions import forget_after_training
from finetune_tf.training.freezing import apply_frozen, count_parameters
from finetune_tf.training.pretrained import learns_pretrained, rate_of_adapters
from finetune_tf.training.schedules import PRETRAINED_RATE


@names_checked
def switch(model: keras.Model, name: str | Iterable[str] | None) -> None:
    """Activates one adapter, several, or none; all others no longer take part in calls.

    Active adapters that were not active before become trainable, and those that are no longer
    active are frozen. With None, the model computes what it computed before adapters were added,
    apart from the head, which all adapters share.

    Args:
        model: A model with adapters.
        name: The name of an adapter, a list of names, or None.

    Raises:
        ArgumentError: If there is no adapter of the name.
        ModelError: If adapters are merged, or one of several active adapters uses DoRA.

    Example:
        >>> ft.adapters.add(model, ft.adapters.LoRA(), name="reviews")
        >>> ft.adapters.add(model, ft.adapters.LoRA(), name="news")
        >>> ft.adapters.switch(model, "reviews")
        >>> ft.adapters.switch(model, None)
    """
    require_whole(model)
    wanted = [] if name is None else as_names(name)
    for each in wanted:
        require_known(model, each)
    require_unmerged(model, "Adapters cannot be switched")
    if len(wanted) > 1:
        for each in wanted:
            if any(getattr(a, "use_dora", False) for _, a in adapted_layers(model, each)):
                raise ModelError(
                    f"The adapter {each!r} uses DoRA, which scales the complete kernel and cannot "
                    "be active together with other adapters."
                )
    before = active_names(model)
    for layer, _ in adapted_layers(model):
        has = [n for n in wanted if hasattr(layer, f"adapter_{n}")]
        set_active(layer, has)
    apply_activity(model, woken=[n for n in wanted if n not in before])
    if wanted != before:
        forget_outputs(model)
    if wanted:
        say(f"Active adapters: {', '.join(map(repr, wanted))}.")
    else:
        say("No adapter is active.")


def as_names(name: str | Iterable[str]) -> list[str]:
    """Returns one name, or several without duplicates, as a list."""
    return [name] if isinstance(name, str) else list(dict.fromkeys(name))


def apply_activity(model: keras.Model, woken: list[str]) -> None:
    """Freezes adapters that are not active, and renews the training step and the optimizer.

    Args:
        model: The model.
        woken: The adapters that have become active, which become trainable.
    """
    forget_traces(model)
    frozen = {id(v) for v in learnable_variables(model) if not v.trainable}
    for layer, adapter in adapted_layers(model):
        own = {id(variable) for variable in adapter.weights}
        if adapter.adapter_name not in active_adapters(layer):
            frozen |= own
        elif adapter.adapter_name in woken:
            frozen -= own
    apply_frozen(model, frozen)


def start_training(model: keras.Model, name: str, also: Iterable[keras.Variable] = ()) -> str:
    """Activates only one adapter, freezes all but it and the head, and returns what is trained.

    Args:
        model: A model with the adapter.
        name: The name of the adapter.
        also: Further variables that are trained.
    """
    for layer, _ in adapted_layers(model):
        set_active(layer, [])
    for layer, _ in adapted_layers(model, name):
        set_active(layer, [name])
    forget_traces(model)
    head = head_variables(model)
    learning = {id(v) for _, adapter in adapted_layers(model, name) for v in adapter.weights}
    learning |= {id(variable) for variable in [*head, *also, *trained_biases(model, name)]}
    apply_frozen(model, {id(v) for v in learnable_variables(model)} - learning)
    trainable, total = count_parameters(model)
    what = "the adapter and the head learn" if head else "the adapter learns"
    # Biases of the model that are trained as well need the rate of pretrained weights.
    rate = PRETRAINED_RATE if learns_pretrained(model) else rate_of_adapters(model)
    return (
        f"The weights of the model are frozen, {what}: {trainable:,} of {total:,} parameters are "
        f"trainable. The learning rate 'auto' is {rate:g}."
    )


def forget_outputs(model: keras.Model) -> None:
    """Forgets calibration and thresholds, which are for the outputs without a change of adapters.

    Args:
        model: The model, whose outputs have changed.
    """
    info = getattr(model, "info", None)
    if info is not None:
        forget_after_training(info, "got other adapters")


def require_known(model: keras.Model, name: str) -> None:
    """Raises an ArgumentError if a model has no adapter of a name."""
    known = names_of(model)
    if name not in known:
        have = f"it has {', '.join(map(repr, known))}" if known else "it has none"
        raise ArgumentError(f"The model has no adapter {shown(name)}; {have}.")


def require_unmerged(model: keras.Model, what: str) -> None:
    """Raises a ModelError if adapters are merged at the moment."""
    if merged := merged_names(model):
        raise ModelError(
            f"{what} while {', '.join(map(repr, merged))} is merged into the kernels. Call "
            "ft.adapters.unmerge(model) first, or ft.adapters.remove for each merged adapter, "
            "which keeps the merged kernels."
        )


def require_whole(model: Any) -> None:
    """Raises a ModelError if the argument is no Keras model or only the upper part of one."""
    require_model(model)
    if hasattr(model, "whole"):
        raise ModelError(
            "This is the upper part of a model, from ft.cache_features. Change the adapters of the "
            "whole model, learner.whole, and call ft.cache_features again."
        )
