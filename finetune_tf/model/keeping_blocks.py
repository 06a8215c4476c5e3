"""`keep_blocks`: a smaller model made of some of the blocks of another one."""

import copy
import dataclasses
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import keras

from finetune_tf.architectures import L2Normalize, PixelNormalization
from finetune_tf.base.arguments import shown
from finetune_tf.base.spelling import names_checked
from finetune_tf.checkpoints.layouts import Modules
from finetune_tf.errors import ArgumentError, ModelError
from finetune_tf.families import FAMILIES
from finetune_tf.graph.pieces import ordered_nodes
from finetune_tf.messages import say
from finetune_tf.model.carried_tokenizers import TOKENIZERS
from finetune_tf.model.finetune_model import FineTuneModel
from finetune_tf.model.model_info import Config, ModelInfo
from finetune_tf.tasks import get_task
from finetune_tf.tasks.decisions import forget_decisions
from finetune_tf.training.freezing import count_parameters

# The config keys that contain the number of blocks.
_DEPTHS = ("num_hidden_layers", "n_layers", "n_layer")


@names_checked
def keep_blocks(model: FineTuneModel, blocks: Sequence[int]) -> FineTuneModel:
    """Makes a smaller model of some of the blocks of a model, such as every second one.

    The weights are copied, and the config has the new number of blocks, so the model is saved and
    opened in PyTorch as any other. Without training, it predicts much worse than the original.
    Trained with `ft.objectives.Distillation` and the original as the teacher, it is DistilBERT's
    recipe ("DistilBERT, a distilled version of BERT", Sanh et al. 2019); "Poor Man's BERT" (Sajjad
    et al. 2020) compares which blocks to keep.

    Args:
        model: A model from `load` with one chain of blocks; it remains as it is.
        blocks: The numbers of the blocks to keep, in increasing order, counted from 0.

    Returns:
        The new model, not compiled, in which everything is trainable.

    Raises:
        ArgumentError: If the numbers are not those of blocks of the model, or not in order.
        ModelError: If the model has no chain of blocks of its own weights, or the config cannot
            describe the blocks in their new places.

    Example:
        >>> student = ft.keep_blocks(model, [1])
        >>> [stage.name for stage in student.stages]
        ['embeddings', 'block_0', 'pooler', 'classifier']
        >>> student.config.num_hidden_layers
        1
    """
    _require_chain(model)
    names = [stage.name for stage in model.stages if stage.role == "block"]
    numbers = _checked_numbers(blocks, len(names))
    config = _config_of(model, numbers)
    student = _build(model, config)
    sources = {f"block_{i}": f"block_{number}" for i, number in enumerate(numbers)}
    _check_blocks(model, student, sources)
    paths = _copy_weights(model, student, sources)
    student.info = _info_of(model, config, numbers, paths)
    for name in TOKENIZERS:
        if getattr(model, name, None) is not None:
            setattr(student, name, getattr(model, name))
    sizes = [f"{count_parameters(each)[1]:,}" for each in (student, model)]
    say(f"Kept blocks {_listed(numbers)} of {len(names)}: {sizes[0]} of {sizes[1]} parameters.")
    return student


def _require_chain(model: Any) -> None:
    if not isinstance(model, FineTuneModel) or hasattr(model, "whole"):
        raise ModelError(f"keep_blocks takes a model from ft.load, found {shown(model)}.")
    family = FAMILIES[model.config["model_type"]]
    found = [stage for stage in model.stages if stage.role == "block"]
    keys = [key for key in _DEPTHS if key in family.rules]
    numbered = [stage.name for stage in found] == [f"block_{i}" for i in range(len(found))]
    if not keys or not numbered or model.config[keys[0]] != len(found):
        raise ModelError(
            "keep_blocks needs one chain of blocks, each with weights of its own, and a config "
            f"with their number; the blocks of this {family.model_type} model are: "
            f"{', '.join(stage.name for stage in found)}."
        )


def _checked_numbers(blocks: Any, depth: int) -> list[int]:
    numbers = list(blocks) if isinstance(blocks, Sequence | range) else []
    valid = all(
        isinstance(number, Integral) and not isinstance(number, bool) and 0 <= number < depth
        for number in numbers
    )
    if not numbers or not valid or sorted(set(numbers)) != numbers:
        raise ArgumentError(
            f"blocks= lists the numbers of the blocks to keep, from 0 to {depth - 1} in increasing "
            f"order, found {shown(blocks)}."
        )
    return [int(number) for number in numbers]


def _config_of(model: FineTuneModel, numbers: list[int]) -> Config:
    config = Config(copy.deepcopy(dict(model.config)))
    forget_decisions(config)  # they were chosen for the outputs of all blocks
    for key in _DEPTHS:
        if key in config:
            config[key] = len(numbers)
    if config.get("layer_types"):  # the kind of attention of each block
        config["layer_types"] = [config["layer_types"][number] for number in numbers]
    return config


def _build(model: FineTuneModel, config: Config) -> FineTuneModel:
    """Builds a model of the kind of another one from a config."""
    family, info = FAMILIES[config["model_type"]], model.info
    task = get_task(info.task, info.labels, config)
    head = family.head(task.name, config)
    dtype = model.stages[0].layers[0].dtype_policy
    inputs = {}
    if model.reads_images:
        normalization = model.image_processor.normalization
        inputs["pixels"] = PixelNormalization(**normalization, dtype=dtype, name="pixels")
    backbone = (head.backbone or family.backbone)(config, dtype, **inputs)
    modules = Modules(normalize=any(isinstance(layer, L2Normalize) for layer in model.layers))
    outputs = task.outputs(backbone, head, config, info.pooling, dtype, modules)
    student = type(model)(inputs=backbone.inputs, outputs=outputs, name=model.name)
    checkpoints = any(getattr(layer, "gradient_checkpointing", False) for layer in model.layers)
    for layer in student.layers:
        if hasattr(layer, "gradient_checkpointing"):
            layer.gradient_checkpointing = checkpoints
    return student


def _check_blocks(model: FineTuneModel, student: FineTuneModel, sources: dict[str, str]) -> None:
    """Checks that each block is computed in its new place as in its old one."""
    for name, source in sources.items():
        if _description(student, name) != _description(model, source):
            raise ModelError(
                f"{source} is another kind of block than {name} of a {model.config.model_type} "
                f"model with {len(sources)} blocks, such as one with a sliding window or with "
                "other positions. Keep other blocks, so that the kinds follow in the same order."
            )


def _description(model: FineTuneModel, name: str) -> list[Any]:
    """Returns the settings of a block, and those of the layers that make its mask and positions."""
    nodes = ordered_nodes(model)
    producers = {id(tensor): node.operation for node in nodes for tensor in node.output_tensors}
    found: list[Any] = []
    for node in nodes:
        if node.operation.name != name:
            continue
        for key, value in sorted(node.arguments.kwargs.items()):
            if key not in ("attention_mask", "positions"):
                continue
            is_tensor = isinstance(value, keras.KerasTensor)
            found.append((key, _settings(producers[id(value)]) if is_tensor else value))
        found.append(_settings(node.operation))
    return found


def _settings(operation: Any) -> dict[str, Any]:
    return {**operation.get_config(), "name": None}


def _copy_weights(
    model: FineTuneModel, student: FineTuneModel, sources: dict[str, str]
) -> dict[str, str]:
    """Copies the weights; returns the path of each variable by that of its source."""
    own = {variable.path: variable for variable in model.weights}
    dropped = {f"block_{i}" for i in range(len(own))} - set(sources.values())
    paths = {}
    for variable in student.weights:
        first, slash, rest = variable.path.partition("/")
        source = sources.get(first, first) + slash + rest
        if source not in own or own[source].shape != variable.shape:
            raise ModelError(
                f"The model has no weights for {variable.path} of a model with fewer blocks."
            )
        variable.assign(own[source])
        paths[source] = variable.path
    lost = [path for path in own if path not in paths and path.partition("/")[0] not in dropped]
    if lost:
        raise ModelError(
            f"A model of this config has no variable {lost[0]}. Merge or remove what was added to "
            "the model first."
        )
    return paths


def _info_of(
    model: FineTuneModel, config: Config, numbers: list[int], paths: dict[str, str]
) -> ModelInfo:
    info = model.info
    record = copy.deepcopy(info.record)
    record.pop("result", None)
    record["weights"] = (
        f"those of the blocks {_listed(numbers)} of a model with "
        f"{sum(stage.role == 'block' for stage in model.stages)} blocks"
    )
    loaded = info.pretrained
    return dataclasses.replace(
        info,
        config=config,
        record=record,
        initial_weights=copy.deepcopy(info.initial_weights),
        pretrained=None if loaded is None else tuple(paths[p] for p in loaded if p in paths),
    )


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
