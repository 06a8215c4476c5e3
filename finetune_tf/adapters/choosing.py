"""Which layers of a model get an adapter, and which variables are trained with it."""

import re

import keras

from finetune_tf.adapters.attaching import adaptable_layers, adapted_layers, path_of
from finetune_tf.adapters.layers import PREFIX, Adapter
from finetune_tf.adapters.patterns import ALL, matches
from finetune_tf.adapters.settings import Settings
from finetune_tf.adapters.torch_names import module_names
from finetune_tf.base.keras_internals import all_layers
from finetune_tf.errors import ModelError
from finetune_tf.graph.pieces import learnable_variables
from finetune_tf.graph.stages import Stage, stages
from finetune_tf.training.selector import Selector


def chosen_layers(
    model: keras.Model, adapter: Settings, selector: Selector | None
) -> list[keras.layers.Layer]:
    """Returns the layers that get an adapter.

    Raises:
        ModelError: If there are none.
    """
    layers = adaptable_layers(model)
    if selector is not None:
        if not isinstance(selector, Selector):
            raise ModelError(f"Expected a selector such as ft.select.blocks(-4), found {selector}.")
        selected = {id(variable) for variable in selector(model)}
        layers = [layer for layer in layers if id(layer.kernel) in selected]
    by_role: dict[str, set[int]] = {}
    for stage in stages(model):
        parts = (part for layer in stage.layers for part in all_layers(layer))
        by_role.setdefault(stage.role, set()).update(id(part) for part in parts)
    heads, blocks = by_role.get("head", set()), by_role.get("block", set())
    names, targets = module_names(model), adapter.targets
    trained_heads = {id(v) for v in head_variables(model)}

    def is_chosen(layer: keras.layers.Layer) -> bool:
        name, path = names.get(layer.kernel.path), path_of(layer)
        if id(layer.kernel) in trained_heads:
            return False
        if targets in (None, ALL):
            if id(layer) not in blocks and (selector is None or id(layer) in heads):
                return False
            is_dense = isinstance(layer, keras.layers.Dense | keras.layers.EinsumDense)
            return is_dense if targets == ALL else matches(adapter.default_parts, [], path)
        # Names of Keras are not used for heads, where "dense" would match the classifier.
        return matches(targets, [name] if name else [], "" if id(layer) in heads else path)

    chosen = [layer for layer in layers if is_chosen(layer)]
    if not chosen:
        within = "" if selector is None else f" among those that {selector} selects"
        known = list(dict.fromkeys(path_of(layer).rpartition("/")[2] for layer in layers))
        found = f"with a kernel: {', '.join(known[:12])}" if known else "without any kernel"
        shown = list(targets) if isinstance(targets, tuple) else targets
        raise ModelError(
            f"No layer of {model.name!r} matches targets={shown!r}{within}; it has layers {found}. "
            'Name layers with targets=["…"], or choose all Dense layers of the blocks with '
            'targets="all".'
        )
    return chosen


def head_variables(model: keras.Model) -> list[keras.Variable]:
    """Returns the variables of the head that are trained with an adapter.

    A classifier is trained in any case. Other heads, such as that of a language model, which is as
    large as its vocabulary, or the projections of CLIP, are left out if they are pretrained.
    """
    info = getattr(model, "info", None)
    known = set(getattr(info, "pretrained", None) or ())
    is_classifier = info is None or not known or "classifier" in model.task.output_layers
    return [
        variable
        for stage in stages(model)
        if stage.role == "head"
        for variable in _own(stage)
        if is_classifier or variable.path not in known
    ]


def _own(stage: Stage) -> list[keras.Variable]:
    """Returns the variables of a stage that do not belong to adapters."""
    parts = (part for layer in stage.layers for part in all_layers(layer))
    adapters = {id(v) for part in parts if isinstance(part, Adapter) for v in part.weights}
    return [variable for variable in stage.variables if id(variable) not in adapters]


def trained_biases(model: keras.Model, name: str) -> list[keras.Variable]:
    """Returns the biases that are trained with an adapter, according to its option `bias`."""
    found = adapted_layers(model, name)
    modes = {adapter.settings.get("bias", "none") for _, adapter in found}
    if "all" in modes:
        return [v for v in learnable_variables(model) if is_bias(v.path)]
    if "lora_only" in modes:
        return [layer.bias for layer, _ in found if layer.bias is not None]
    return []


def is_bias(path: str) -> bool:
    """Returns whether a variable is a bias, also of a normalization, but not one of an adapter."""
    return bool(re.search(r"(^|/|_)(bias|beta)$", path)) and f"/{PREFIX}" not in path
