"""The names that the layers and variables of a model have in PyTorch, from its weight tables."""

from typing import Any

import keras

from finetune_tf.families import FAMILIES
from finetune_tf.weights.table import Weight, prefixed


def has_torch_names(model: keras.Model) -> bool:
    """Returns whether a model comes from `load`, so that its variables have names in PyTorch."""
    info = getattr(model, "info", None)
    return info is not None and info.config.get("model_type") in FAMILIES


def prefix_of(model: Any) -> str:
    """Returns the prefix of the backbone in the PyTorch class of a model; may be empty.

    Args:
        model: A model with `has_torch_names`.
    """
    family, task = FAMILIES[model.config["model_type"]], model.task
    class_name = task.layout(model.info.pooling).class_name(family, task.class_suffix)
    return "" if class_name == f"{family.class_prefix}Model" else family.tensor_prefix


def backbone_table(model: Any) -> list[Weight]:
    """Returns the weight table of the backbone, without a prefix."""
    family = FAMILIES[model.config["model_type"]]
    return family.weights({**family.defaults, **model.config})


def head_table(model: Any) -> list[Weight]:
    """Returns the weight table of the head."""
    family = FAMILIES[model.config["model_type"]]
    head = family.head(model.task.name, {**family.defaults, **model.config})
    return model.task.layout(model.info.pooling).rows(head)


def complete_table(model: Any) -> list[Weight]:
    """Returns the weight table of a model with the names of its PyTorch class."""
    return [*head_table(model), *prefixed(backbone_table(model), prefix_of(model))]


def module_of(tensor: str) -> str:
    """Returns the name of the module of a tensor: "classifier" for "classifier.weight"."""
    return tensor.rpartition(".")[0]


def module_names(model: keras.Model) -> dict[str, str]:
    """Returns the name of the PyTorch module of each kernel, by the path of the kernel.

    Args:
        model: Any Keras model; the result is empty if it does not come from `load`.
    """
    if not has_torch_names(model):
        return {}
    names: dict[str, str] = {}
    for row in complete_table(model):
        if len(row.tensors) == len(row.variables) == 1 and row.tensors[0].endswith(".weight"):
            names.setdefault(row.variables[0], module_of(row.tensors[0]))
    return names
