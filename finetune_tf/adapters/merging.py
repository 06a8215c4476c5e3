"""Merging adapters into kernels, and back."""

import weakref
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops

from finetune_tf.adapters.activity import (
    apply_activity,
    as_names,
    forget_outputs,
    require_known,
    require_unmerged,
    require_whole,
)
from finetune_tf.adapters.attaching import (
    active_adapters,
    active_names,
    adapted_layers,
    adapters_of,
    merged_names,
    set_active,
    sizes_of,
)
from finetune_tf.adapters.layers import PREFIX
from finetune_tf.base.keras_internals import all_layers
from finetune_tf.base.spelling import names_checked
from finetune_tf.errors import ModelError
from finetune_tf.graph.digests import digest_of_values
from finetune_tf.messages import say

# By layer, which adapters were active before a merge, and for the kernel and the bias a copy from
# before it and a digest from after it. Adding a number and subtracting it again is not exact, so
# that a kernel cannot be computed back.
_COPIES: "weakref.WeakKeyDictionary[keras.layers.Layer, tuple]" = weakref.WeakKeyDictionary()


@names_checked
def merge(model: keras.Model, name: str | Iterable[str] | None = None) -> None:
    """Writes adapters into the kernels, which makes predictions as fast as without adapters.

    The outputs stay the same up to rounding. A copy of each changed kernel is kept in memory, with
    which `unmerge` restores it bit by bit. `remove` afterwards makes the merged model an ordinary
    one. `save_pretrained` writes merged weights in any case.

    Args:
        model: A model with adapters.
        name: The name of an adapter, or a list of names; by default the active ones.

    Raises:
        ArgumentError: If there is no adapter of the name.
        ModelError: If no adapter is active, adapters are merged already, an adapter is a
            bottleneck, or one with DoRA or IA3 would be merged without the others that are active
            on its layers, or with them where they cannot be active together.

    Example:
        >>> ft.adapters.add(model, ft.adapters.LoRA())
        >>> ft.adapters.merge(model)
        >>> ft.adapters.unmerge(model)
    """
    require_whole(model)
    names = as_names(active_names(model) if name is None else name)
    for each in names:
        require_known(model, each)
    require_unmerged(model, "Adapters cannot be merged")
    if not names:
        raise ModelError(
            "No adapter is active, so there is nothing to merge. Name one: "
            "ft.adapters.merge(model, name)."
        )
    require_mergeable(model, names)
    _require_independent(model, names)
    were_active = set(names) <= set(active_names(model))
    layers = {id(layer): layer for each in names for layer, _ in adapted_layers(model, each)}
    for layer in layers.values():
        of_layer = [each for each in names if hasattr(layer, PREFIX + each)]
        kernel, bias = effective(layer, of_layer)
        variables = [layer.kernel, *([] if layer.bias is None else [layer.bias])]
        copies = []
        for variable, value in zip(variables, (kernel, bias), strict=False):
            before = np.array(ops.convert_to_numpy(variable))
            variable.assign(value)
            copies.append((variable, before, digest_of_values(variable)))
        _COPIES[layer] = active_adapters(layer), copies
        set_active(layer, [each for each in active_adapters(layer) if each not in of_layer])
        for each in of_layer:
            getattr(layer, PREFIX + each).is_merged = True
    apply_activity(model, woken=[])
    if not were_active:
        forget_outputs(model)
    say(f"Merged {', '.join(map(repr, names))} into the kernels of {len(layers)} layers.")


@names_checked
def unmerge(model: keras.Model) -> None:
    """Restores the kernels from before `merge` bit by bit, and activates what was active.

    Args:
        model: A model with merged adapters.

    Raises:
        ModelError: If no adapter is merged; if the kernels from before are no longer in memory,
            because the model was saved and reloaded, or a merged adapter was removed; or if kernels
            have changed since the merge, by a fit for example.

    Example:
        >>> ft.adapters.add(model, ft.adapters.LoRA())
        >>> before = model.get_weights()
        >>> ft.adapters.merge(model)
        >>> ft.adapters.unmerge(model)
        >>> all(np.array_equal(a, b) for a, b in zip(before, model.get_weights()))
        True
    """
    require_whole(model)
    names = merged_names(model)
    if not names:
        raise ModelError("No adapter is merged. Merge first: ft.adapters.merge(model).")
    merged = {id(layer): layer for layer, adapter in adapted_layers(model) if adapter.is_merged}
    if any(layer not in _COPIES for layer in merged.values()):
        raise ModelError(
            f"The kernels from before {', '.join(map(repr, names))} was merged are not in memory: "
            "files do not contain them, and they are dropped when a merged adapter is removed. "
            "Load the original checkpoint, and load the adapter with ft.adapters.load_peft."
        )
    changed = [
        variable.path
        for layer in merged.values()
        for variable, _, digest in _COPIES[layer][1]
        if digest_of_values(variable) != digest
    ]
    if changed:
        raise ModelError(
            f"{len(changed)} kernels and biases have changed since the merge ({changed[0]}, …), so "
            "restoring those from before would undo what a fit or load_weights did. Keep them with "
            f"ft.adapters.remove(model, {names[0]!r}), or load the original checkpoint, and the "
            "adapter with ft.adapters.load_peft. Unmerge before you train the next time."
        )
    before = active_names(model)
    for layer in merged.values():
        active, copies = _COPIES.pop(layer)
        for variable, value, _ in copies:
            variable.assign(value)
        set_active(layer, active)
    for _, adapter in adapted_layers(model):
        adapter.is_merged = False
    apply_activity(model, woken=[each for each in names if each not in before])
    say(f"Restored the kernels of {len(merged)} layers from before the merge.")


def forget_copies(model: keras.Model) -> None:
    """Drops the copies of kernels from before they were merged."""
    for layer in all_layers(model):
        _COPIES.pop(layer, None)


def require_mergeable(model: keras.Model, names: Iterable[str]) -> None:
    """Raises a ModelError if an adapter cannot be written into kernels."""
    for each in names:
        if not all(adapter.is_mergeable for _, adapter in adapted_layers(model, each)):
            raise ModelError(
                f"The adapter {each!r} is a bottleneck, which no kernel can contain. Save the "
                "model with model.save('model.keras'), or deactivate the adapter with "
                "ft.adapters.switch(model, None)."
            )


def _require_independent(model: keras.Model, names: Iterable[str]) -> None:
    """Raises a ModelError if adapters of a layer would compute something else after the merge.

    DoRA scales the complete kernel, and IA3 the sum of all adapters of a layer.
    """
    active = active_names(model)
    for layer in {id(layer): layer for layer, _ in adapted_layers(model)}.values():
        merged = [a for a in adapters_of(layer) if a.adapter_name in names]
        others = [a for a in adapters_of(layer) if a.adapter_name in active and a not in merged]
        together = [*merged, *others] if merged else []
        for adapter in together:
            if len(together) > 1 and getattr(adapter, "use_dora", False):
                raise ModelError(
                    f"The adapter {adapter.adapter_name!r} uses DoRA, which scales the complete "
                    "kernel, so it cannot be merged with other adapters, nor others while it is "
                    "active. Activate one adapter alone first: ft.adapters.switch(model, name)."
                )
        for adapter in merged:
            if others and adapter.scales_others:
                names_of_others = ", ".join(repr(each.adapter_name) for each in others)
                raise ModelError(
                    f"The adapter {adapter.adapter_name!r} multiplies what {names_of_others} adds "
                    "to the same layers, so it cannot be merged alone. Merge all active adapters "
                    "together: ft.adapters.merge(model)."
                )


def matrix_of(layer: keras.layers.Layer) -> Any:
    """Returns the kernel of a layer as a matrix (inputs, outputs)."""
    kernel = ops.convert_to_tensor(layer.kernel)
    return ops.reshape(kernel, sizes_of(layer))


def effective(layer: keras.layers.Layer, names: Iterable[str]) -> tuple[Any, Any | None]:
    """Returns the kernel and the bias that compute the same as a layer with some of its adapters.

    Args:
        layer: The layer, which is not changed.
        names: Names of its adapters.
    """
    kernel, bias = matrix_of(layer), layer.bias
    adapters = [getattr(layer, PREFIX + name) for name in names]
    # A call multiplies by factors before and after all sums, in whatever order adapters are active.
    for adapter in sorted(adapters, key=lambda each: each.scales_others):
        kernel, bias = adapter.effective(kernel, bias)
    return ops.reshape(kernel, layer.kernel.shape), bias


def merged_values(model: keras.Model) -> dict[str, Callable[[], np.ndarray] | None]:
    """Returns the values to write in the place of those of the variables of a model with adapters.

    Args:
        model: The model, which is not changed.

    Returns:
        Functions that compute the merged kernels and biases, by the path of the variable; None for
        variables of adapters, which are not written.

    Raises:
        ModelError: If an active adapter cannot be merged.
    """
    require_mergeable(model, active_names(model))
    values: dict[str, Callable[[], np.ndarray] | None] = {}
    for layer, adapter in adapted_layers(model):
        values |= dict.fromkeys((variable.path for variable in adapter.variables), None)
        names = active_adapters(layer)
        if names and layer.kernel.path not in values:
            for i, variable in enumerate((layer.kernel, layer.bias)):
                if variable is not None:
                    values[variable.path] = partial(_value, layer, names, i)
    return values


def _value(layer: keras.layers.Layer, names: Iterable[str], index: int) -> np.ndarray:
    return ops.convert_to_numpy(ops.cast(effective(layer, names)[index], "float32"))
