"""ConvNeXt (Liu et al. 2022, arXiv:2201.03545).

Equal to `transformers.ConvNextModel` and `ConvNextForImageClassification`.
"""

from functools import partial
from typing import Any

import keras
import numpy as np

from finetune_tf.architectures import (
    Backbone,
    FeedForward,
    Group,
    LayerNorm,
    PixelNormalization,
    Residual,
    convolutional_encoder,
)
from finetune_tf.errors import CheckpointError
from finetune_tf.families import config_values as values
from finetune_tf.families import image_values
from finetune_tf.families.family import Family, Head
from finetune_tf.families.image_values import pair
from finetune_tf.kernels import ACTIVATIONS
from finetune_tf.weights.conversions import DepthwiseKernel
from finetune_tf.weights.table import Weight, linear, norm

_EPSILON = 1e-6  # of all normalisations but the last one


def _check(config: dict) -> None:
    counts = {len(config["hidden_sizes"]), len(config["depths"]), config["num_stages"]}
    if len(counts) > 1:
        raise CheckpointError(
            f"The config key 'num_stages' is {config['num_stages']}, but 'hidden_sizes' has "
            f"{len(config['hidden_sizes'])} entries and 'depths' {len(config['depths'])}."
        )


def _backbone(config: dict, dtype: Any, pixels: PixelNormalization) -> Backbone:
    normal = keras.initializers.RandomNormal(stddev=config["initializer_range"])

    def convolution(channels: int, size: Any, name: str) -> keras.layers.Conv2D:
        options = {"kernel_initializer": normal, "dtype": dtype, "name": name}
        return keras.layers.Conv2D(channels, size, strides=size, **options)

    def layer_norm(name: str) -> LayerNorm:
        return LayerNorm(_EPSILON, dtype=dtype, name=name)

    def block(channels: int, drop_path: float, name: str) -> Residual:
        depthwise = keras.layers.DepthwiseConv2D(
            7, padding="same", depthwise_initializer=normal, dtype=dtype, name="depthwise"
        )
        feed_forward = FeedForward(
            4 * channels,
            channels,
            config["hidden_act"],
            config["initializer_range"],
            dtype=dtype,
            name="feed_forward",
        )
        scale = config["layer_scale_init_value"]
        return Residual(
            [depthwise, layer_norm("norm"), feed_forward],
            scale=scale if scale > 0 else None,
            drop_path=drop_path,
            dtype=dtype,
            name=name,
        )

    sizes, depths = config["hidden_sizes"], config["depths"]
    rates = iter(np.linspace(0, config["drop_path_rate"], sum(depths)).tolist())
    stem = [convolution(sizes[0], pair(config["patch_size"]), "projection"), layer_norm("norm")]
    stages = [Group(stem, "embeddings", dtype=dtype, name="embeddings")]
    for i, (channels, depth) in enumerate(zip(sizes, depths, strict=True)):
        layers = []
        if i > 0:
            layers = [layer_norm("norm"), convolution(channels, (2, 2), "projection")]
        layers += [block(channels, next(rates), f"layer_{j}") for j in range(depth)]
        stages.append(Group(layers, dtype=dtype, name=f"block_{i}"))
    return convolutional_encoder(pixels, stages)


def _weights(config: dict) -> list[Weight]:
    table = [
        *linear("embeddings.patch_embeddings", "embeddings/projection"),
        *norm("embeddings.layernorm", "embeddings/norm"),
        *norm("layernorm", "final_norm"),
    ]
    for i, depth in enumerate(config["depths"]):
        stage, group = f"encoder.stages.{i}", f"block_{i}"
        if i > 0:
            table += norm(f"{stage}.downsampling_layer.0", f"{group}/norm")
            table += linear(f"{stage}.downsampling_layer.1", f"{group}/projection")
        for j in range(depth):
            module, layer = f"{stage}.layers.{j}", f"{group}/layer_{j}"
            kernel, bias = (f"{layer}/depthwise/{name}" for name in ("kernel", "bias"))
            table += [
                Weight(f"{module}.dwconv.weight", kernel, DepthwiseKernel()),
                Weight(f"{module}.dwconv.bias", bias),
                *norm(f"{module}.layernorm", f"{layer}/norm"),
                *linear(f"{module}.pwconv1", f"{layer}/feed_forward/intermediate"),
                *linear(f"{module}.pwconv2", f"{layer}/feed_forward/output"),
                Weight(f"{module}.layer_scale_parameter", f"{layer}/scale"),
            ]
    return table


def _heads(config: dict) -> dict[str, Head]:
    final_norm = partial(LayerNorm, config["layer_norm_eps"], name="final_norm")
    classifier = linear("classifier", "classifier/dense")
    return {
        "image-classification": Head(classifier, transform=final_norm, pooling="mean"),
        "image-feature-extraction": Head(transform=final_norm, pooling="mean"),
    }


CONVNEXT = Family(
    model_type="convnext",
    class_prefix="ConvNext",
    tensor_prefix="convnext",
    defaults={
        "num_channels": 3,
        "patch_size": 4,
        "num_stages": 4,
        "hidden_sizes": [96, 192, 384, 768],
        "depths": [3, 3, 9, 3],
        "hidden_act": "gelu",
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-12,
        "layer_scale_init_value": 1e-6,
        "drop_path_rate": 0.0,
        "image_size": 224,
    },
    rules={
        **image_values.RULES,
        "patch_size": image_values.SIZE,
        "num_stages": values.DEPTH,
        "hidden_sizes": image_values.CHANNELS,
        "depths": image_values.DEPTHS,
        "hidden_act": values.STRING,
        "layer_norm_eps": values.EPSILON,
        "layer_scale_init_value": values.Number(-1e3, 1e3),
        "drop_path_rate": values.RATE,
    },
    supported={"hidden_act": tuple(sorted(ACTIVATIONS))},
    dropout_keys=("drop_path_rate",),
    aliases={"num_hidden_layers": "num_stages"},
    backbone=_backbone,
    weights=_weights,
    heads=_heads,
    max_length=lambda config: None,
    check=_check,
    image_processor="ConvNextImageProcessor",
)
