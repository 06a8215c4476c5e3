"""MobileNet v1 (Howard et al. 2017, arXiv:1704.04861) and v2 (Sandler et al. 2018).

Equal to `transformers.MobileNetV1Model`, `MobileNetV2Model` and their classifiers. A stage of the
model is a group of convolutions at one resolution.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import keras

from finetune_tf.architectures import (
    Backbone,
    ConvNorm,
    Group,
    PixelNormalization,
    Residual,
    convolutional_encoder,
)
from finetune_tf.families import config_values as values
from finetune_tf.families import image_values
from finetune_tf.families.family import Family, Head
from finetune_tf.families.resnet import conv_norm_weights
from finetune_tf.kernels import ACTIVATIONS
from finetune_tf.weights.conversions import KERNEL, DepthwiseKernel
from finetune_tf.weights.table import Weight, linear

_STRIDES_1 = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
_STRIDES_2 = (2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1)
_CHANNELS_2 = (16, 24, 24, 32, 32, 32, 64, 64, 64, 64, 96, 96, 96, 160, 160, 160, 320)
# The share of the statistics of a batch in the new ones: far more than elsewhere, as in PyTorch.
_MOMENTUM_1, _MOMENTUM_2 = 0.9997, 0.997

#: A convolution: its module in PyTorch, and the arguments of `ConvNorm`.
_Convolution = tuple[str, dict[str, Any]]
#: A part of a group: its convolutions, and whether their output is added to their input.
_Part = tuple[list[_Convolution], bool]


def _divisible(value: float, divisor: int, least: int) -> int:
    """The closest multiple of a divisor that is at least `least` and at least 0.9 of the value."""
    rounded = max(least, int(value + divisor / 2) // divisor * divisor)
    return int(rounded + divisor if rounded < 0.9 * value else rounded)


def _scaled(config: dict, channels: int) -> int:
    multiplied = int(round(channels * config["depth_multiplier"]))
    return _divisible(multiplied, config["depth_divisible_by"], config["min_depth"])


def _depthwise(channels: int, strides: int = 1, dilation: int = 1) -> dict[str, Any]:
    arguments = {"channels": channels, "kernel_size": 3, "strides": strides, "depthwise": True}
    return arguments | {"dilation": dilation}


def _pointwise(channels: int) -> dict[str, Any]:
    return {"channels": channels, "kernel_size": 1}


_LINEAR = {"activation": None}


def _parts_1(config: dict) -> list[list[_Part]]:
    """The parts of each group of version 1; the first group is the stem."""
    depth, least = 32, config["min_depth"]
    channels = max(int(depth * config["depth_multiplier"]), least)
    stem = ("conv_stem", {"channels": channels, "kernel_size": 3, "strides": 2})
    groups: list[list[_Part]] = [[([stem], False)]]
    for i, strides in enumerate(_STRIDES_1):
        before = channels
        if strides == 2 or i == 0:
            depth *= 2
            channels = max(int(depth * config["depth_multiplier"]), least)
            groups.append([])
        convolutions = [
            (f"layer.{2 * i}", _depthwise(before, strides)),
            (f"layer.{2 * i + 1}", _pointwise(channels)),
        ]
        groups[-1].append((convolutions, False))
    return groups


def _parts_2(config: dict) -> list[list[_Part]]:
    """The parts of each group of version 2; the first group is the stem."""
    channels = [_scaled(config, each) for each in _CHANNELS_2]
    expanded = _scaled(config, 32)
    first = {"channels": expanded, "kernel_size": 3, "strides": 2}
    stem = [("conv_stem.first_conv", first)]
    if not config["first_layer_is_expansion"]:
        stem.append(("conv_stem.expand_1x1", _pointwise(expanded)))
    stem.append(("conv_stem.conv_3x3", _depthwise(expanded)))
    stem.append(("conv_stem.reduce_1x1", _pointwise(channels[0]) | _LINEAR))
    groups: list[list[_Part]] = [[(stem, False)]]
    stride, dilation = 2, 1
    for i, step in enumerate(_STRIDES_2):
        before, after = channels[i], channels[i + 1]
        if stride == config["output_stride"]:
            # Larger distances in the windows take the place of further steps.
            strides, distance = 1, dilation
            dilation *= step
        else:
            strides, distance = step, 1
            stride *= step
        if step == 2:
            groups.append([])
        expanded = int(round(before * config["expand_ratio"]))
        expanded = _divisible(expanded, config["depth_divisible_by"], config["min_depth"])
        module = f"layer.{i}"
        convolutions = [
            (f"{module}.expand_1x1", _pointwise(expanded)),
            (f"{module}.conv_3x3", _depthwise(expanded, strides, distance)),
            (f"{module}.reduce_1x1", _pointwise(after) | _LINEAR),
        ]
        groups[-1].append((convolutions, strides == 1 and before == after))
    has_all = config["finegrained_output"] and config["depth_multiplier"] < 1.0
    last = 1280 if has_all else _scaled(config, 1280)
    groups[-1].append(([("conv_1x1", _pointwise(last))], False))
    return groups


def _parts(config: dict, version: int) -> list[list[_Part]]:
    return _parts_1(config) if version == 1 else _parts_2(config)


def _backbone(config: dict, dtype: Any, pixels: PixelNormalization, version: int) -> Backbone:
    momentum = _MOMENTUM_1 if version == 1 else _MOMENTUM_2
    common = {
        "activation": config["hidden_act"],
        "padding": "same" if config["tf_padding"] else "half",
        "epsilon": config["layer_norm_eps"],
        "momentum": momentum,
        "dtype": dtype,
    }

    def make(part: _Part, name: str) -> keras.layers.Layer:
        convolutions, adds = part
        layers = [
            ConvNorm(**{**common, **arguments}, name=f"layer_{k}")
            for k, (_, arguments) in enumerate(convolutions)
        ]
        return (Residual if adds else Group)(layers, dtype=dtype, name=name)

    stages = []
    for i, parts in enumerate(_parts(config, version)):
        layers = [make(part, f"layer_{j}") for j, part in enumerate(parts)]
        name, role = (f"block_{i - 1}", "block") if i else ("embeddings", "embeddings")
        stages.append(Group(layers, role, dtype=dtype, name=name))
    return convolutional_encoder(pixels, stages)


def _weights(config: dict, version: int) -> list[Weight]:
    table = []
    for i, parts in enumerate(_parts(config, version)):
        group = f"block_{i - 1}" if i else "embeddings"
        for j, (convolutions, _) in enumerate(parts):
            for k, (module, arguments) in enumerate(convolutions):
                conversion = DepthwiseKernel() if arguments.get("depthwise") else KERNEL
                layer = f"{group}/layer_{j}/layer_{k}"
                table += conv_norm_weights(module, layer, conversion)
    return table


def _heads(config: dict) -> dict[str, Head]:
    dropout = config["classifier_dropout_prob"]
    return {
        "image-classification": Head(
            linear("classifier", "classifier/dense"), dropout, pooling="mean"
        ),
        "image-feature-extraction": Head(pooling="mean"),
    }


MOBILENET_V1 = Family(
    model_type="mobilenet_v1",
    class_prefix="MobileNetV1",
    tensor_prefix="mobilenet_v1",
    defaults={
        "num_channels": 3,
        "image_size": 224,
        "depth_multiplier": 1.0,
        "min_depth": 8,
        "hidden_act": "relu6",
        "tf_padding": True,
        "classifier_dropout_prob": 0.999,
        "initializer_range": 0.02,
        "layer_norm_eps": 0.001,
    },
    rules={
        **image_values.RULES,
        "depth_multiplier": values.Number(0, 64, above_low=True),
        "min_depth": values.FEATURES,
        "hidden_act": values.STRING,
        "tf_padding": values.BOOLEAN,
        "classifier_dropout_prob": values.RATE,
        "layer_norm_eps": values.EPSILON,
    },
    supported={"hidden_act": tuple(sorted(ACTIVATIONS))},
    dropout_keys=("classifier_dropout_prob",),
    backbone=partial(_backbone, version=1),
    weights=partial(_weights, version=1),
    heads=_heads,
    max_length=lambda config: None,
    image_processor="MobileNetV1ImageProcessor",
    has_old_classes=False,
)

MOBILENET_V2 = replace(
    MOBILENET_V1,
    model_type="mobilenet_v2",
    class_prefix="MobileNetV2",
    tensor_prefix="mobilenet_v2",
    defaults={
        **MOBILENET_V1.defaults,
        "depth_divisible_by": 8,
        "expand_ratio": 6.0,
        "output_stride": 32,
        "first_layer_is_expansion": True,
        "finegrained_output": True,
        "classifier_dropout_prob": 0.8,
    },
    rules={
        **MOBILENET_V1.rules,
        "depth_divisible_by": values.FEATURES,
        "expand_ratio": values.Number(0, 64, above_low=True),
        "output_stride": values.OneOf((2, 4, 8, 16, 32)),
        "first_layer_is_expansion": values.BOOLEAN,
        "finegrained_output": values.BOOLEAN,
    },
    backbone=partial(_backbone, version=2),
    weights=partial(_weights, version=2),
    image_processor="MobileNetV2ImageProcessor",
)
