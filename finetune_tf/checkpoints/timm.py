"""Checkpoints of timm (PyTorch Image Models): their config and names, as transformers writes them.

Of timm's many variants, the ResNets and vision transformers that transformers has as well can be
read. Whatever has another stem, other blocks or another pooling is an error, since it would compute
other numbers. Saved models have the names of transformers. torchvision and many scripts have the
same names of a ResNet; with a config of transformers, these are read as well.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from math import floor, isqrt
from typing import Any

from finetune_tf.base.arguments import shown
from finetune_tf.errors import CheckpointError
from finetune_tf.families.config_values import FEATURES, Number, integer
from finetune_tf.weights.tensors import LazyTensor, Tensors

_HEADS = {"tiny": 3, "small": 6, "base": 12, "large": 16, "huge": 16}
_ARCHITECTURES = {
    "resnet": re.compile(r"resnet(18|26|34|50|101|152)"),
    "vit": re.compile(r"(?:vit|deit)_(tiny|small|base|large|huge)_patch\d+_\d+"),
}
_POOLING = {"resnet": "avg", "vit": "token"}
_CLASSES = {"resnet": "ResNet", "vit": "ViT"}
#: Modules of timm, as patterns, and those of transformers.
_MODULES = {
    "resnet": (
        (r"conv1", r"embedder.embedder.convolution"),
        (r"bn1", r"embedder.embedder.normalization"),
        (r"layer(\d+)\.(\d+)\.conv(\d)", r"encoder.stages.{0}.layers.{1}.layer.{2}.convolution"),
        (r"layer(\d+)\.(\d+)\.bn(\d)", r"encoder.stages.{0}.layers.{1}.layer.{2}.normalization"),
        (
            r"layer(\d+)\.(\d+)\.downsample\.0",
            r"encoder.stages.{0}.layers.{1}.shortcut.convolution",
        ),
        (
            r"layer(\d+)\.(\d+)\.downsample\.1",
            r"encoder.stages.{0}.layers.{1}.shortcut.normalization",
        ),
        (r"fc|linear", r"classifier.1"),
    ),
    "vit": (
        (r"patch_embed\.proj", "embeddings.patch_embeddings.projection"),
        (r"blocks\.(\d+)\.norm1", "encoder.layer.{0}.layernorm_before"),
        (r"blocks\.(\d+)\.norm2", "encoder.layer.{0}.layernorm_after"),
        (r"blocks\.(\d+)\.attn\.proj", "encoder.layer.{0}.attention.output.dense"),
        (r"blocks\.(\d+)\.mlp\.fc1", "encoder.layer.{0}.intermediate.dense"),
        (r"blocks\.(\d+)\.mlp\.fc2", "encoder.layer.{0}.output.dense"),
        (r"norm", "layernorm"),
        (r"head", "classifier"),
    ),
}
_PARAMETERS = {"cls_token": "embeddings.cls_token", "pos_embed": "embeddings.position_embeddings"}
#: A tensor that a model with these names has, and none with those of transformers.
_MARKS = {"resnet": "layer1.0.conv1.weight", "vit": "blocks.0.norm1.weight"}
_FUSED = re.compile(r"blocks\.(\d+)\.attn\.qkv\.(weight|bias)")
_INTERPOLATIONS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}


def is_timm(config: Mapping[str, Any]) -> bool:
    """Returns whether the content of a config.json is that of timm.

    Example:
        >>> from finetune_tf.checkpoints.timm import is_timm
        >>> is_timm({"architecture": "resnet50", "num_classes": 1000})
        True
    """
    return "model_type" not in config and isinstance(config.get("architecture"), str)


def translated(
    config: Mapping[str, Any], tensors: Tensors, where: object
) -> tuple[dict[str, Any], Tensors, dict[str, Any]]:
    """Returns what transformers would have written for a checkpoint of timm.

    Args:
        config: The content of timm's config.json.
        tensors: The tensors of the checkpoint, whose shapes define the sizes of the model.
        where: Name of the config in messages.

    Returns:
        The content of config.json, the tensors by the names of transformers without the prefix of
        task models, and the content of preprocessor_config.json.

    Raises:
        CheckpointError: If the architecture is none that can be read, or if tensors or settings
            belong to a variant of it.
    """
    name = config["architecture"]
    kind = next((k for k, names in _ARCHITECTURES.items() if names.fullmatch(name)), None)
    if kind is None:
        raise CheckpointError(
            f"{where} is one of timm for the architecture {shown(name)}, which finetune_tf does "
            "not support; supported are resnet18 to resnet152 and vit_SIZE_patchN_N. Use a "
            "checkpoint of transformers."
        )
    pretrained = config.get("pretrained_cfg")
    pretrained = pretrained if isinstance(pretrained, Mapping) else {}
    _check_arguments(config, kind, where)
    found = renamed(tensors, kind, where)
    sizes = _resnet_sizes(found, where) if kind == "resnet" else _vit_sizes(found, name, where)
    classes = config.get("num_classes", pretrained.get("num_classes", 1000))
    if not integer(1_000_000, low=0).accepts(classes):
        raise CheckpointError(
            f"{where} has the num_classes {shown(classes)}; expected a number from 0 on."
        )
    names = config.get("label_names")
    labels: dict[str, Any] = {"num_labels": classes}
    if isinstance(names, list) and len(names) == classes:
        labels = {"id2label": {str(i): str(label) for i, label in enumerate(names)}}
    suffix = "ForImageClassification" if classes else "Model"
    full = {"model_type": kind, "architectures": [_CLASSES[kind] + suffix], **sizes}
    preprocessor = _preprocessor(pretrained, where)
    if kind == "vit":
        height, width = (preprocessor["crop_size"][key] for key in ("height", "width"))
        if not height == width == sizes["image_size"]:
            raise CheckpointError(
                f"{where} has an input_size of {height} x {width} pixels, but the positions of the "
                f"weights are those of {sizes['image_size']} x {sizes['image_size']}."
            )
    return full | (labels if classes else {}), found, preprocessor


def _check_arguments(config: Mapping[str, Any], kind: str, where: object) -> None:
    """Checks the keys that change what the architecture computes."""
    usual = {"in_chans": 3, "global_pool": _POOLING[kind]}
    given = {k: config[k] for k in ("global_pool",) if k in config}
    arguments = config.get("model_args") or {}
    given |= arguments if isinstance(arguments, Mapping) else {"model_args": arguments}
    harmless = ("num_classes", "img_size")  # the tensors have these sizes
    others = {k: v for k, v in given.items() if k not in harmless and usual.get(k) != v}
    if others:
        raise CheckpointError(
            f"{where} has the model arguments {shown(others, 300)}, with which the architecture is "
            f"not that of transformers; supported are {usual}. Use a checkpoint of transformers."
        )


def renamed(tensors: Tensors, kind: str, where: object) -> Tensors:
    """Returns tensors with timm's names by those of transformers; all others as they are.

    Args:
        tensors: The tensors of a checkpoint.
        kind: The model type of transformers.
        where: Name of the config in messages.

    Raises:
        CheckpointError: If some of the tensors do not belong to the model of transformers.
    """
    if kind not in _MARKS or _MARKS[kind] not in tensors:
        return tensors
    found: Tensors = {}
    unknown = []
    for name, tensor in tensors.items():
        is_joined = kind == "vit" and tensor.shape and tensor.shape[0] % 3 == 0
        if is_joined and (fused := _FUSED.fullmatch(name)):
            module = f"encoder.layer.{fused[1]}.attention.attention"
            for i, part in enumerate(("query", "key", "value")):
                found[f"{module}.{part}.{fused[2]}"] = _third(tensor, i)
        elif (theirs := _name_in_transformers(name, kind)) is not None:
            found[theirs] = tensor
        else:
            unknown.append(name)
    if unknown:
        raise CheckpointError(
            f"The checkpoint of {where} has tensors that {kind} of transformers lacks: "
            f"{shown(unknown[:3], 300)} ({len(unknown)} in all). It is a variant that is not "
            "supported; use a checkpoint of transformers."
        )
    return found


def _name_in_transformers(name: str, kind: str) -> str | None:
    if kind == "vit" and name in _PARAMETERS:
        return _PARAMETERS[name]
    module, _, leaf = name.rpartition(".")
    for pattern, theirs in _MODULES[kind]:
        if match := re.fullmatch(pattern, module):
            numbers = [int(group) for group in match.groups()]
            if kind == "resnet":
                # Groups and the convolutions of a block are counted from 1 there, blocks from 0.
                numbers = [number - (i != 1) for i, number in enumerate(numbers)]
            return f"{theirs.format(*numbers)}.{leaf}"
    return None


def _third(tensor: LazyTensor, index: int) -> LazyTensor:
    size = tensor.shape[0] // 3

    def load() -> Any:
        return tensor.load()[index * size : (index + 1) * size]

    return replace(tensor, shape=(size, *tensor.shape[1:]), load=load)


def _shape(tensors: Tensors, name: str, where: object, rank: int = 4) -> tuple[int, ...]:
    """The shape of a tensor by its name in transformers."""
    shape = tensors[name].shape if name in tensors else None
    if shape is None or len(shape) != rank:
        raise CheckpointError(
            f"The checkpoint of {where} must have a tensor with {rank} axes that becomes {name} of "
            f"transformers, found {'none' if shape is None else shape}. Download it again."
        )
    return shape


def _resnet_sizes(tensors: Tensors, where: object) -> dict[str, Any]:
    stem = _shape(tensors, "embedder.embedder.convolution.weight", where)
    if stem[1:] != (3, 7, 7):
        raise CheckpointError(
            f"The first convolution of {where} has a kernel of the shape {stem}; supported is "
            "(channels, 3, 7, 7), that of photographs."
        )
    last = 2 if "encoder.stages.0.layers.0.layer.2.convolution.weight" in tensors else 1
    blocks = [re.match(r"encoder\.stages\.(\d+)\.layers\.(\d+)\.", name) for name in tensors]
    places = {(int(match[1]), int(match[2])) for match in blocks if match}
    depths = [
        sum(stage == i for stage, _ in places) for i in range(1 + max(places, default=(-1, 0))[0])
    ]
    kernels = [
        f"encoder.stages.{i}.layers.0.layer.{last}.convolution.weight" for i in range(len(depths))
    ]
    return {
        "embedding_size": stem[0],
        "hidden_sizes": [_shape(tensors, kernel, where)[0] for kernel in kernels],
        "depths": depths,
        "layer_type": "bottleneck" if last == 2 else "basic",
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": False,
    }


def _vit_sizes(tensors: Tensors, name: str, where: object) -> dict[str, Any]:
    kernel = _shape(tensors, "embeddings.patch_embeddings.projection.weight", where)
    positions = _shape(tensors, "embeddings.position_embeddings", where, rank=3)[1] - 1
    side, patch = isqrt(positions), kernel[-1]
    if side**2 != positions or kernel[1:] != (3, patch, patch):
        raise CheckpointError(
            f"The checkpoint of {where} has {positions} positions of patches and a kernel of the "
            f"shape {kernel}; supported are square images and patches of three channels."
        )
    layers = {
        match[0] for match in map(re.compile(r"encoder\.layer\.\d+\.").match, tensors) if match
    }
    first = "encoder.layer.0"
    return {
        "hidden_size": kernel[0],
        "num_hidden_layers": len(layers),
        "num_attention_heads": _HEADS[_ARCHITECTURES["vit"].fullmatch(name)[1]],
        "intermediate_size": _shape(tensors, f"{first}.intermediate.dense.weight", where, 2)[0],
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "qkv_bias": f"{first}.attention.attention.query.bias" in tensors,
        "image_size": side * patch,
        "patch_size": patch,
    }


def _is_shape(value: Any) -> bool:
    is_list = isinstance(value, list | tuple) and len(value) == 3
    return is_list and all(map(FEATURES.accepts, value)) and value[0] == 3


def _preprocessor(pretrained: Mapping[str, Any], where: object) -> dict[str, Any]:
    """Returns the content of preprocessor_config.json for the evaluation that timm describes."""
    interpolation = pretrained.get("interpolation", "bicubic")
    mode = pretrained.get("crop_mode", "center")
    shape = pretrained.get("input_size", (3, 224, 224))
    share = pretrained.get("crop_pct", 0.875)
    is_known = str(interpolation) in _INTERPOLATIONS and mode in ("center", "squash")
    if not (is_known and _is_shape(shape) and Number(0, 1, above_low=True).accepts(share)):
        raise CheckpointError(
            f"The key pretrained_cfg of {where} has the interpolation {shown(interpolation)}, the "
            f"crop_mode {shown(mode)}, the input_size {shown(shape)} and the crop_pct "
            f"{shown(share)}; supported are {', '.join(_INTERPOLATIONS)}; center and squash; "
            "[3, height, width]; and numbers above 0 up to 1."
        )
    height, width = shape[1:]
    larger = {"height": floor(height / share), "width": floor(width / share)}
    keeps_shape = mode == "center" and height == width
    return {
        "image_processor_type": "BitImageProcessor",
        "size": {"shortest_edge": larger["height"]} if keeps_shape else larger,
        "resample": _INTERPOLATIONS[interpolation],
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
        "image_mean": pretrained.get("mean", [0.485, 0.456, 0.406]),
        "image_std": pretrained.get("std", [0.229, 0.224, 0.225]),
    }
