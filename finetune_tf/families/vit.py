"""ViT (Dosovitskiy et al. 2021, arXiv:2010.11929) and DeiT (Touvron et al. 2021).

Equal to `transformers.ViTModel`, `DeiTModel` and their classifiers.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from finetune_tf.architectures import (
    Backbone,
    LayerNorm,
    PatchEmbeddings,
    PixelNormalization,
    Transform,
    bert_block,
    image_encoder,
)
from finetune_tf.families import config_values as values
from finetune_tf.families import image_values
from finetune_tf.families.bert import bert_block_arguments, check_heads
from finetune_tf.families.family import Family, Head, unsupported
from finetune_tf.families.image_values import pair
from finetune_tf.kernels import ACTIVATIONS
from finetune_tf.weights.conversions import KERNEL
from finetune_tf.weights.table import Weight, block, linear, norm

BLOCK = {
    "attention/query": "attention.attention.query",
    "attention/key": "attention.attention.key",
    "attention/value": "attention.attention.value",
    "attention/output": "attention.output.dense",
    "attention_norm": "layernorm_before",
    "feed_forward/intermediate": "intermediate.dense",
    "feed_forward/output": "output.dense",
    "feed_forward_norm": "layernorm_after",
}


def check_patches(config: dict) -> None:
    """Checks that heads divide the hidden size, and that an image has at least one patch."""
    check_heads(config)
    sizes = zip(pair(config["image_size"]), pair(config["patch_size"]), strict=True)
    if any(image < patch for image, patch in sizes):
        raise unsupported(config, "patch_size", "at most the image_size")


def patch_embeddings(
    config: dict,
    dtype: Any,
    special_tokens: Sequence[str] = ("class_token",),
    has_mask_token: bool = False,
) -> PatchEmbeddings:
    """Builds the embeddings from a config with ViT's keys; see `PatchEmbeddings`."""
    return PatchEmbeddings(
        config["hidden_size"],
        pair(config["image_size"]),
        pair(config["patch_size"]),
        special_tokens,
        config["hidden_dropout_prob"],
        config["initializer_range"],
        has_mask_token,
        dtype=dtype,
        name="embeddings",
    )


def vit_backbone(
    config: dict,
    dtype: Any,
    pixels: PixelNormalization,
    special_tokens: Sequence[str] = ("class_token",),
) -> Backbone:
    """Builds embeddings, blocks and the final normalisation.

    Args:
        config: Complete config.
        dtype: Keras dtype policy.
        pixels: The normalisation of pixels.
        special_tokens: As for `PatchEmbeddings`.
    """
    arguments = bert_block_arguments(config, dtype)
    attention = {"use_bias": config["qkv_bias"], "output_bias": True}
    blocks = [
        bert_block(**arguments, attention_options=attention, norm_first=True, name=f"block_{i}")
        for i in range(config["num_hidden_layers"])
    ]
    final_norm = LayerNorm(config["layer_norm_eps"], dtype=dtype, name="final_norm")
    embeddings = patch_embeddings(config, dtype, special_tokens)
    return image_encoder(pixels, embeddings, blocks, final_norm)


def patch_weights(tokens: dict[str, str]) -> list[Weight]:
    """Returns the rows of the embeddings; `tokens` maps special tokens to their tensors."""
    embeddings = "embeddings"
    return [
        *(Weight(f"{embeddings}.{row}", f"{embeddings}/{ours}") for ours, row in tokens.items()),
        Weight(f"{embeddings}.position_embeddings", f"{embeddings}/positions"),
        Weight(f"{embeddings}.patch_embeddings.projection.weight", f"{embeddings}/kernel", KERNEL),
        Weight(f"{embeddings}.patch_embeddings.projection.bias", f"{embeddings}/bias"),
    ]


def _weights(tokens: dict[str, str], config: dict) -> list[Weight]:
    table = [
        Weight("embeddings.mask_token", None),  # of masked image modeling
        *patch_weights(tokens),
        *norm("layernorm", "final_norm"),
        *linear("pooler.dense", "pooler/dense"),
    ]
    for i in range(config["num_hidden_layers"]):
        table += block(f"encoder.layer.{i}", f"block_{i}", BLOCK)
    return table


def _heads(config: dict) -> dict[str, Head]:
    pooler = partial(
        Transform,
        config["pooler_output_size"] or config["hidden_size"],
        config["pooler_act"],
        initializer_range=config["initializer_range"],
        name="pooler",
    )
    return {
        "image-classification": Head(linear("classifier", "classifier/dense")),
        "image-feature-extraction": Head(transform=pooler),
    }


VIT = Family(
    model_type="vit",
    class_prefix="ViT",
    tensor_prefix="vit",
    defaults={
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-12,
        "image_size": 224,
        "patch_size": 16,
        "num_channels": 3,
        "qkv_bias": True,
        "pooler_output_size": None,
        "pooler_act": "tanh",
    },
    rules={
        **image_values.RULES,
        "hidden_size": values.FEATURES,
        "num_hidden_layers": values.DEPTH,
        "num_attention_heads": values.FEATURES,
        "intermediate_size": values.INTERMEDIATE,
        "hidden_act": values.STRING,
        "hidden_dropout_prob": values.RATE,
        "attention_probs_dropout_prob": values.RATE,
        "layer_norm_eps": values.EPSILON,
        "patch_size": image_values.SIZE,
        "qkv_bias": values.BOOLEAN,
        "pooler_output_size": values.FEATURES_OR_NULL,
        "pooler_act": values.STRING,
    },
    supported={
        "hidden_act": tuple(sorted(ACTIVATIONS)),
        "pooler_act": tuple(sorted(ACTIVATIONS)),
    },
    dropout_keys=("hidden_dropout_prob", "attention_probs_dropout_prob"),
    backbone=vit_backbone,
    weights=partial(_weights, {"class_token": "cls_token"}),
    heads=_heads,
    max_length=lambda config: None,
    check=check_patches,
    image_processor="ViTImageProcessor",
)

DEIT = replace(
    VIT,
    model_type="deit",
    class_prefix="DeiT",
    tensor_prefix="deit",
    backbone=partial(vit_backbone, special_tokens=("class_token", "distillation_token")),
    weights=partial(
        _weights, {"class_token": "cls_token", "distillation_token": "distillation_token"}
    ),
    image_processor="DeiTImageProcessor",
)
