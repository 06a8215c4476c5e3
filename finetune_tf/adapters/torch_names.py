"""The names that the layers and variables of a model have in PyTorch, from its weight tables.

They are the names of modules, by which PEFT names its tensors. In transformers 5, modules of some
families have other names than the tensors of their checkpoints, which transformers renames when it
reads and writes files. Adapters of earlier versions have the names of the files.
"""

import re
from dataclasses import replace
from typing import Any

import keras

from finetune_tf.families import FAMILIES
from finetune_tf.weights.table import Weight, prefixed

_VIT = (
    (r"encoder\.layer\.", "layers."),
    (r"attention\.attention\.query", "attention.q_proj"),
    (r"attention\.attention\.key", "attention.k_proj"),
    (r"attention\.attention\.value", "attention.v_proj"),
    (r"attention\.output\.dense", "attention.o_proj"),
    (r"intermediate\.dense", "mlp.fc1"),
    (r"output\.dense", "mlp.fc2"),
)
_SWIN = (
    (r"attention\.self\.query", "attention.q_proj"),
    (r"attention\.self\.key", "attention.k_proj"),
    (r"attention\.self\.value", "attention.v_proj"),
    (r"self\.relative_position_bias_table", "relative_position_bias.relative_position_bias_table"),
    *_VIT[4:],
)
#: Renamings of tensors to modules of transformers 5, by model type, in their order.
_RENAMED = {"vit": _VIT, "deit": _VIT, "dinov2": _VIT[1:5], "swin": _SWIN}
#: Modules that are several modules in transformers 5, so that PEFT cannot adapt them; () for all
#: modules of a family.
_DIVIDED: dict[str, tuple[str, ...]] = {"gte": (), "nomic_bert": (), "dinov2": ("weights_in",)}


def has_torch_names(model: keras.Model) -> bool:
    """Returns whether a model comes from `load`, so that its variables have names in PyTorch."""
    info = getattr(model, "info", None)
    return info is not None and info.config.get("model_type") in FAMILIES


def prefix_of(model: Any) -> str:
    """Returns the prefix of the backbone in the PyTorch class of a model; may be empty.

    Args:
        model: A model with `has_torch_names`.
    """
    return "" if is_bare(model) else FAMILIES[model.config["model_type"]].tensor_prefix


def is_bare(model: Any) -> bool:
    """Returns whether the PyTorch class of a model is its backbone, so that it has no head."""
    prefix = FAMILIES[model.config["model_type"]].class_prefix
    return class_name_of(model) == f"{prefix}Model"


def class_name_of(model: Any) -> str:
    """Returns the PyTorch class of a model."""
    family, task = FAMILIES[model.config["model_type"]], model.task
    return task.layout(model.info.pooling).class_name(family, task.class_suffix)


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
    """Returns the weight table of a model with the names of the modules of its PyTorch class."""
    table = [*head_table(model), *prefixed(backbone_table(model), prefix_of(model))]
    return _renamed(table, model.config)


def tables_to_read(model: Any) -> list[list[Weight]]:
    """Returns weight tables with all names that tensors of an adapter may have.

    They are those of the complete model and those of the backbone alone (PyTorch's AutoModel), of
    transformers 5 and of earlier versions.
    """
    backbone = backbone_table(model)
    complete = [*head_table(model), *prefixed(backbone, prefix_of(model))]
    prefix = FAMILIES[model.config["model_type"]].tensor_prefix
    tables = [complete, backbone, prefixed(backbone, prefix)]
    return [named for table in tables for named in (_renamed(table, model.config), table)]


def _renamed(table: list[Weight], config: dict) -> list[Weight]:
    """Returns a table with the names of modules instead of those of files."""

    def module_name(tensor: str) -> str:
        tower = config.get("vision_config") if tensor.startswith("vision_model.") else None
        kind = config["model_type"] if tower is None else tower.get("model_type")
        for old, new in _RENAMED.get(kind, ()):
            tensor = re.sub(old, new, tensor)
        return tensor

    return [replace(row, tensors=tuple(map(module_name, row.tensors))) for row in table]


def is_divided(model: Any, module: str) -> bool:
    """Returns whether a module is several modules in PyTorch's class, so that PEFT has no name."""
    kind = model.config["model_type"]
    ends = _DIVIDED.get(kind)
    return ends is not None and (not ends or module.rpartition(".")[2] in ends)


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
