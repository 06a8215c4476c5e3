"""Adding and removing adapters."""

import re

import keras

from finetune_tf.adapters.activity import (
    apply_activity,
    forget_outputs,
    require_known,
    require_unmerged,
    require_whole,
    start_training,
)
from finetune_tf.adapters.attaching import (
    active_names,
    adapted_layers,
    attach,
    detach,
    merged_names,
    names_of,
    path_of,
    require_adaptable,
)
from finetune_tf.adapters.choosing import chosen_layers
from finetune_tf.adapters.merging import forget_copies, matrix_of
from finetune_tf.adapters.saving_foreign import guard_saving
from finetune_tf.adapters.settings import Settings
from finetune_tf.adapters.torch_names import module_names
from finetune_tf.base.arguments import shown
from finetune_tf.base.spelling import names_checked
from finetune_tf.errors import ArgumentError, ModelError
from finetune_tf.messages import say
from finetune_tf.training.freezing import strategy_scope
from finetune_tf.training.pretrained import remember_changed
from finetune_tf.training.selector import Selector

_NAME = re.compile(r"[A-Za-z0-9_-]+")


@names_checked
def add(
    model: keras.Model, adapter: Settings, selector: Selector | None = None, name: str = "default"
) -> None:
    """Adds a small trainable part to layers of a built model, and freezes the model itself.

    The outputs do not change at first. The new adapter becomes the only active one. All variables
    are frozen except its own and those of the head; a pretrained head of a language model is frozen
    as well. `ft.train_only` afterwards chooses something else. A compiled model stays compiled.

    Layers are not replaced, so everything else works as before: freezing, `ft.cache_features` for
    adapters in the upper blocks, gradient checkpointing, `.keras` files, which contain the
    adapters, and `save_pretrained`, which writes merged weights.

    Args:
        model: A model from `ft.load`, or another built Keras model.
        adapter: `LoRA`, `IA3` or `Bottleneck` with their options.
        selector: Restricts the adapter to layers whose kernels it selects, such as
            `ft.select.blocks(-4)`. By default, all blocks.
        name: The name of the adapter.

    Raises:
        ArgumentError: If the name is taken or not a valid name, `adapter` is something else, or it
            or an adapter of the model trains biases of the model, which all adapters share.
        ModelError: If no layer matches, a name or a pattern matches none, a layer cannot have such
            an adapter, or adapters are merged at the moment.

    Example:
        >>> ft.adapters.add(model, ft.adapters.LoRA(rank=4), ft.select.blocks(-1))
        >>> [v.path for v in model.trainable_variables if "query" in v.path]  # doctest: +ELLIPSIS
        ['block_1/attention/query/adapter_default/lora_a', '...adapter_default/lora_b']
    """
    require_whole(model)
    if not isinstance(adapter, Settings):
        raise ArgumentError(
            f"Expected an adapter such as ft.adapters.LoRA(rank=8), found {shown(adapter)}."
        )
    check_new_name(model, name)
    check_biases(model, getattr(adapter, "bias", "none"))
    chosen = chosen_layers(model, adapter, selector)
    names = module_names(model)
    named = [
        (list(filter(None, [names.get(layer.kernel.path)])), path_of(layer)) for layer in chosen
    ]
    for argument, text in adapter.without_effect(named):
        parts = ", ".join(sorted({path.rpartition("/")[2] for _, path in named}))
        raise ModelError(
            f"{argument}= has {text!r}, which would have no effect: it matches none of the layers "
            f"that get the adapter ({parts}), or only such as an earlier pattern matches. Correct "
            "it, or leave it out."
        )
    settings = []
    for layer, known in zip(chosen, named, strict=True):
        found = adapter.arguments_for(*known)
        require_adaptable(layer, adapter.kind, found)
        settings.append(found)
    replaces = bool(active_names(model))
    with strategy_scope(model):
        for layer, arguments in zip(chosen, settings, strict=True):
            attach(layer, name, adapter.kind, arguments).start_from(matrix_of(layer))
    guard_saving(model)
    learning = start_training(model, name)
    if replaces:  # otherwise the outputs are the same at first
        forget_outputs(model)
    parts = ", ".join(sorted({path_of(layer).rpartition("/")[2] for layer in chosen}))
    say(f"Added {adapter} as {name!r} to {len(chosen)} layers ({parts}). {learning}")


@names_checked
def remove(model: keras.Model, name: str) -> None:
    """Removes an adapter with its variables. If it is merged, the merged kernels remain.

    The weights of the model stay frozen; `ft.train_only(model, ft.select.everything())` trains
    them.

    Args:
        model: A model with adapters.
        name: The name of the adapter.

    Raises:
        ArgumentError: If there is no adapter of the name.

    Example:
        >>> ft.adapters.add(model, ft.adapters.LoRA())
        >>> ft.adapters.remove(model, "default")
        >>> [v.path for v in model.weights if "adapter" in v.path]
        []
    """
    require_whole(model)
    require_known(model, name)
    was_merged, was_active = name in merged_names(model), name in active_names(model)
    found = adapted_layers(model, name)
    for layer, adapter in found:
        detach(layer, adapter)
    if was_merged:
        forget_copies(model)
        remember_changed(model, [layer.kernel for layer, _ in found])
    guard_saving(model)
    apply_activity(model, woken=[])
    if was_active:
        forget_outputs(model)
    kept = ", whose effect remains in the kernels" if was_merged else ""
    say(f"Removed the adapter {name!r}{kept}.")


def check_new_name(model: keras.Model, name: str) -> None:
    """Checks that a model can get adapters of a name.

    Raises:
        ArgumentError: If the name is taken or not a valid name.
        ModelError: If adapters are merged at the moment.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ArgumentError(
            f"The name of an adapter consists of letters, digits, '-' and '_', found {shown(name)}."
        )
    if name in names_of(model):
        raise ArgumentError(
            f"The model has an adapter {name!r} already. Choose another name=, or remove it first: "
            f"ft.adapters.remove(model, {name!r})."
        )
    require_unmerged(model, "Adapters cannot be added")


def check_biases(model: keras.Model, bias: str) -> None:
    """Checks that an adapter which trains biases of the model is its only adapter, as in PEFT.

    Args:
        model: The model.
        bias: The option `bias` of an adapter that is to be added.

    Raises:
        ArgumentError: If there would be another one, which would compute with these biases as well.
    """
    found = adapted_layers(model)
    training = {a.adapter_name for _, a in found if a.settings.get("bias", "none") != "none"}
    if training or (bias != "none" and found):
        which = f"{min(training)!r}" if training else f"bias={bias!r}"
        raise ArgumentError(
            f"An adapter that trains biases of the model ({which}) has to be the only one, because "
            f"all adapters share them; the model has {', '.join(map(repr, names_of(model)))}. "
            "Leave bias= out, or load another model for the new adapter."
        )
