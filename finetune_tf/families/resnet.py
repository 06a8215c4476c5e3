"""ResNet v1.5 (He et al. 2016, arXiv:1512.03385), as in microsoft/resnet-50.

Equal to `transformers.ResNetModel` and `ResNetForImageClassification`. The keys `small_stem` and
`padded_shortcuts`, which transformers does not have, make it the ResNet for images of 32 x 32
pixels of section 4.2 there, as in many scripts for CIFAR-10.
"""

from typing import Any

import numpy as np

from finetune_tf.architectures import (
    Backbone,
    ConvNorm,
    Group,
    PaddedShortcut,
    PixelNormalization,
    Residual,
    Stem,
    convolutional_encoder,
)
from finetune_tf.errors import CheckpointError
from finetune_tf.families import config_values as values
from finetune_tf.families import image_values
from finetune_tf.families.family import Family, Head
from finetune_tf.kernels import ACTIVATIONS
from finetune_tf.weights.conversions import KERNEL, Constant, Conversion
from finetune_tf.weights.table import Weight, linear, norm


def _check(config: dict) -> None:
    sizes, depths = config["hidden_sizes"], config["depths"]
    if len(sizes) != len(depths):
        raise CheckpointError(
            f"The config key 'hidden_sizes' has {len(sizes)} entries, but 'depths' {len(depths)}; "
            "each group of blocks needs one of both."
        )
    if config["layer_type"] == "bottleneck" and any(size % 4 for size in sizes):
        raise CheckpointError(
            f"The config key 'hidden_sizes' is {list(sizes)}, but a bottleneck needs multiples of "
            "4."
        )
    if config["padded_shortcuts"] and not config["small_stem"]:
        # transformers rejects the weights of a small stem, but would add shortcuts that are random.
        raise CheckpointError(
            "The config key 'padded_shortcuts' is true, which needs 'small_stem' true as well."
        )


def _blocks(config: dict) -> list[list[dict[str, Any]]]:
    """The arguments of the blocks of each group."""
    groups, before = [], config["embedding_size"]
    for i, (channels, depth) in enumerate(
        zip(config["hidden_sizes"], config["depths"], strict=True)
    ):
        strides = 2 if i or config["downsample_in_first_stage"] else 1
        first = {"strides": strides, "projects": strides != 1 or before != channels}
        groups.append([{"channels": channels, **(first if j == 0 else {})} for j in range(depth)])
        before = channels
    return groups


def _backbone(config: dict, dtype: Any, pixels: PixelNormalization) -> Backbone:
    groups = [
        Group(
            [_block(config, dtype, f"layer_{j}", **block) for j, block in enumerate(blocks)],
            dtype=dtype,
            name=f"block_{i}",
        )
        for i, blocks in enumerate(_blocks(config))
    ]
    stem = Stem(
        config["embedding_size"],
        config["hidden_act"],
        small=config["small_stem"],
        dtype=dtype,
        name="embeddings",
    )
    return convolutional_encoder(pixels, [stem, *groups])


def _block(
    config: dict, dtype: Any, name: str, channels: int, strides: int = 1, projects: bool = False
) -> Residual:
    # Within a block transformers always uses ReLU; `hidden_act` is that of the stem and of sums.
    inner = channels // 4
    layers = [(channels, 3, strides, "relu"), (channels, 3, 1, None)]
    if config["layer_type"] == "bottleneck":
        # In version 1.5 the second convolution has the step of the block, in version 1 the first.
        first, second = (strides, 1) if config["downsample_in_bottleneck"] else (1, strides)
        layers = [(inner, 1, first, "relu"), (inner, 3, second, "relu")]
        layers.append((channels, 1, 1, None))
    shortcut = None
    if projects:
        options = {"dtype": dtype, "name": "shortcut"}
        is_padded = config["padded_shortcuts"]
        shortcut = (
            PaddedShortcut(channels, strides, **options)
            if is_padded
            else ConvNorm(channels, 1, strides, **options)
        )
    layers = [ConvNorm(*each, dtype=dtype, name=f"layer_{i}") for i, each in enumerate(layers)]
    return Residual(layers, shortcut, config["hidden_act"], dtype=dtype, name=name)


def conv_norm_weights(module: str, layer: str, conversion: Conversion = KERNEL) -> list[Weight]:
    """Returns the rows of a convolution without bias and of its batch normalisation."""
    stored = f"{module}.normalization"
    return [
        Weight(f"{module}.convolution.weight", f"{layer}/convolution/kernel", conversion),
        *norm(stored, f"{layer}/norm"),
        Weight(f"{stored}.running_mean", f"{layer}/norm/mean"),
        Weight(f"{stored}.running_var", f"{layer}/norm/variance"),
        Weight(f"{stored}.num_batches_tracked", None, Constant(np.int64(0))),
    ]


def _weights(config: dict) -> list[Weight]:
    table = conv_norm_weights("embedder.embedder", "embeddings/layer")
    count = 3 if config["layer_type"] == "bottleneck" else 2
    for i, blocks in enumerate(_blocks(config)):
        for j, arguments in enumerate(blocks):
            module, layer = f"encoder.stages.{i}.layers.{j}", f"block_{i}/layer_{j}"
            if arguments.get("projects") and not config["padded_shortcuts"]:
                table += conv_norm_weights(f"{module}.shortcut", f"{layer}/shortcut")
            for k in range(count):
                table += conv_norm_weights(f"{module}.layer.{k}", f"{layer}/layer_{k}")
    return table


def _heads(config: dict) -> dict[str, Head]:
    classifier = linear("classifier.1", "classifier/dense")
    return {
        "image-classification": Head(classifier, pooling="mean"),
        "image-feature-extraction": Head(pooling="mean"),
    }


RESNET = Family(
    model_type="resnet",
    class_prefix="ResNet",
    tensor_prefix="resnet",
    defaults={
        "num_channels": 3,
        "embedding_size": 64,
        "hidden_sizes": [256, 512, 1024, 2048],
        "depths": [3, 4, 6, 3],
        "layer_type": "bottleneck",
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": False,
        "small_stem": False,
        "padded_shortcuts": False,
    },
    rules={
        **image_values.RULES,
        "embedding_size": values.FEATURES,
        "hidden_sizes": image_values.CHANNELS,
        "depths": image_values.DEPTHS,
        "layer_type": values.STRING,
        "hidden_act": values.STRING,
        "downsample_in_first_stage": values.BOOLEAN,
        "downsample_in_bottleneck": values.BOOLEAN,
        "small_stem": values.BOOLEAN,
        "padded_shortcuts": values.BOOLEAN,
    },
    supported={
        "layer_type": ("basic", "bottleneck"),
        "hidden_act": tuple(sorted(ACTIVATIONS)),
    },
    dropout_keys=(),
    backbone=_backbone,
    weights=_weights,
    heads=_heads,
    max_length=lambda config: None,
    check=_check,
    image_processor="ConvNextImageProcessor",
    own_keys={"small_stem": False, "padded_shortcuts": False},
)
