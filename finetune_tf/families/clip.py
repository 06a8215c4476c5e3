"""CLIP (Radford et al. 2021, arXiv:2103.00020): an encoder of images and one of texts.

Equal to `transformers.CLIPModel`, and each tower alone to `CLIPTextModelWithProjection` and
`CLIPVisionModelWithProjection`.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import keras

from finetune_tf.architectures import (
    AttentionMask,
    Backbone,
    Embeddings,
    EndToken,
    LayerNorm,
    PatchEmbeddings,
    PixelNormalization,
    bert_block,
    encoder,
    image_encoder,
)
from finetune_tf.families import config_values as values
from finetune_tf.families import image_values
from finetune_tf.families.bert import check_heads
from finetune_tf.families.family import Family, Head
from finetune_tf.families.image_values import pair
from finetune_tf.families.towers import DEFAULTS, RULES, TwoTowers
from finetune_tf.families.vit import check_patches
from finetune_tf.kernels import ACTIVATIONS
from finetune_tf.weights.conversions import KERNEL, AddedAxes
from finetune_tf.weights.table import Weight, block, embedding, norm

BLOCK = {
    "attention/query": "self_attn.q_proj",
    "attention/key": "self_attn.k_proj",
    "attention/value": "self_attn.v_proj",
    "attention/output": "self_attn.out_proj",
    "attention_norm": "layer_norm1",
    "feed_forward/intermediate": "mlp.fc1",
    "feed_forward/output": "mlp.fc2",
    "feed_forward_norm": "layer_norm2",
}
_OLD_END = 2  # the eos_token_id of early configs, which is not the id of the token


def blocks_of(config: dict, dtype: Any) -> list[keras.layers.Layer]:
    """Makes the blocks of one encoder from a config with CLIP's keys."""
    return [
        bert_block(
            hidden_size=config["hidden_size"],
            num_heads=config["num_attention_heads"],
            intermediate_size=config["intermediate_size"],
            activation=config["hidden_act"],
            dropout=0.0,
            attention_dropout=config["attention_dropout"],
            layer_norm_eps=config["layer_norm_eps"],
            initializer_range=config["initializer_range"],
            norm_first=True,
            dtype=dtype,
            name=f"block_{i}",
        )
        for i in range(config["num_hidden_layers"])
    ]


def norm_of(config: dict, dtype: Any, name: str) -> LayerNorm:
    """Makes a normalisation of an encoder."""
    return LayerNorm(config["layer_norm_eps"], dtype=dtype, name=name)


def text_encoder(config: dict, dtype: Any, causal: bool) -> Backbone:
    """Builds the encoder of texts from a config with CLIP's keys, without a pooling."""
    embeddings = Embeddings(
        vocab_size=config["vocab_size"],
        hidden_size=config["hidden_size"],
        max_positions=config["max_position_embeddings"],
        type_vocab_size=0,
        dropout=0.0,
        initializer_range=config["initializer_range"],
        has_norm=False,
        dtype=dtype,
        name="embeddings",
    )
    blocks = blocks_of(config, dtype)
    masks = [AttentionMask(causal=causal, name="mask")] * len(blocks)
    return encoder(embeddings, blocks, masks, final_norm=norm_of(config, dtype, "final_norm"))


def _text_backbone(config: dict, dtype: Any) -> Backbone:
    backbone = text_encoder(config, dtype, causal=True)
    end = config["eos_token_id"]
    pool = EndToken(None if end == _OLD_END else end, dtype=dtype, name="end_token")
    return replace(backbone, first_token=pool(backbone.hidden, backbone.inputs["input_ids"]))


def patches_of(
    config: dict, dtype: Any, special_tokens: tuple[str, ...], use_bias: bool
) -> PatchEmbeddings:
    """Makes the embeddings of patches from a config with CLIP's keys."""
    return PatchEmbeddings(
        config["hidden_size"],
        pair(config["image_size"]),
        pair(config["patch_size"]),
        special_tokens,
        initializer_range=config["initializer_range"],
        use_bias=use_bias,
        dtype=dtype,
        name="embeddings",
    )


def _image_backbone(config: dict, dtype: Any, pixels: PixelNormalization) -> Backbone:
    embeddings = patches_of(config, dtype, ("class_token",), use_bias=False)
    blocks, start = blocks_of(config, dtype), norm_of(config, dtype, "pre_norm")
    backbone = image_encoder(pixels, embeddings, blocks, start=start)
    # Only the class token is normalised, and the hidden states are not.
    pooled_norm = norm_of(config, dtype, "pooled_norm")
    return replace(backbone, first_token=pooled_norm(backbone.first_token))


def text_weights(config: dict) -> list[Weight]:
    """The weight table of the encoder of texts."""
    table = [
        Weight("embeddings.position_ids", None),  # a constant that old releases store
        *embedding("embeddings.token_embedding", "embeddings/word"),
        *embedding("embeddings.position_embedding", "embeddings/position"),
        *norm("final_layer_norm", "final_norm"),
    ]
    return table + block_weights(config)


def block_weights(config: dict) -> list[Weight]:
    """The weight table of the blocks of one encoder."""
    return [
        row
        for i in range(config["num_hidden_layers"])
        for row in block(f"encoder.layers.{i}", f"block_{i}", BLOCK)
    ]


def patch_weights(config: dict) -> list[Weight]:
    """The weight table of the embeddings of patches and of the blocks of the encoder of images."""
    return [
        Weight("embeddings.position_ids", None),  # a constant that old releases store
        Weight("embeddings.patch_embedding.weight", "embeddings/kernel", KERNEL),
        Weight("embeddings.patch_embedding.bias", "embeddings/bias"),
        Weight("embeddings.position_embedding.weight", "embeddings/positions", AddedAxes(1)),
        *block_weights(config),
    ]


def _image_weights(config: dict) -> list[Weight]:
    return [
        Weight("embeddings.class_embedding", "embeddings/class_token", AddedAxes(2)),
        *norm("pre_layrnorm", "pre_norm"),  # the name has this spelling
        *norm("post_layernorm", "pooled_norm"),
        *patch_weights(config),
    ]


_SHARED = {
    "intermediate_size": values.INTERMEDIATE,
    "num_hidden_layers": values.DEPTH,
    "num_attention_heads": values.FEATURES,
    "hidden_size": values.FEATURES,
    "hidden_act": values.STRING,
    "layer_norm_eps": values.EPSILON,
    "attention_dropout": values.RATE,
    "initializer_range": values.STDDEV,
}
_SHARED_DEFAULTS = {
    "num_hidden_layers": 12,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
}

CLIP_TEXT = Family(
    model_type="clip_text_model",
    class_prefix="CLIPText",
    tensor_prefix="text_model",
    defaults={
        **_SHARED_DEFAULTS,
        "vocab_size": 49408,
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_attention_heads": 8,
        "max_position_embeddings": 77,
        "eos_token_id": 49407,
        "pad_token_id": 1,
    },
    rules={
        **_SHARED,
        "vocab_size": values.VOCABULARY,
        "max_position_embeddings": values.POSITIONS,
        "eos_token_id": values.TOKEN_ID,
    },
    supported={"hidden_act": tuple(sorted(ACTIVATIONS))},
    dropout_keys=("attention_dropout",),
    backbone=_text_backbone,
    weights=text_weights,
    heads=lambda config: {"feature-extraction": Head()},
    check=check_heads,
)

CLIP_IMAGE = Family(
    model_type="clip_vision_model",
    class_prefix="CLIPVision",
    tensor_prefix="vision_model",
    defaults={
        **_SHARED_DEFAULTS,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
        "image_size": 224,
        "patch_size": 32,
        "num_channels": 3,
    },
    rules={**_SHARED, **image_values.RULES, "patch_size": image_values.SIZE},
    supported={"hidden_act": tuple(sorted(ACTIVATIONS))},
    dropout_keys=("attention_dropout",),
    backbone=_image_backbone,
    weights=_image_weights,
    heads=lambda config: {"image-feature-extraction": Head()},
    max_length=lambda config: None,
    check=check_patches,
    image_processor="CLIPImageProcessor",
)

_FAMILIES = {"image": CLIP_IMAGE, "text": CLIP_TEXT}


def two_towers(
    model_type: str, towers: TwoTowers, families: Mapping[str, Family], **options: Any
) -> Family:
    """Makes the family of a model with two encoders.

    Args:
        model_type: The `model_type` of config.json.
        towers: Its functions.
        families: The families of both encoders.
        **options: Other fields of `Family`.
    """
    return Family(
        model_type=model_type,
        tensor_prefix="",
        rules=RULES,
        supported={},
        dropout_keys=(),
        backbone=towers.backbone,
        weights=towers.weights,
        heads=towers.heads,
        max_length=lambda config: families["text"].max_length(config["text_config"]),
        image_processor=families["image"].image_processor,
        towers={
            "vision_config": lambda config: families["image"],
            "text_config": lambda config: families["text"],
        },
        **options,
    )


CLIP = two_towers(
    "clip",
    TwoTowers(
        lambda name, config: _FAMILIES[name],
        projections={"image": "visual_projection", "text": "text_projection"},
        class_names={
            "image": "CLIPVisionModelWithProjection",
            "text": "CLIPTextModelWithProjection",
        },
    ),
    _FAMILIES,
    class_prefix="CLIP",
    defaults=DEFAULTS,
    tower_keys=("projection_dim",),
)
