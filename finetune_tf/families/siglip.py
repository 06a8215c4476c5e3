"""SigLIP (Zhai et al. 2023, arXiv:2303.15343): CLIP with a loss for each pair of image and text.

Equal to `transformers.SiglipModel`, `SiglipTextModel` and `SiglipVisionModel`. Texts are padded to
64 tokens, which all attend to each other, and are pooled by the last one.
"""

from dataclasses import replace
from typing import Any

from finetune_tf.architectures import (
    AttentionPooling,
    Backbone,
    FeedForward,
    FinalPosition,
    MultiHeadAttention,
    PixelNormalization,
    Transform,
    image_encoder,
)
from finetune_tf.errors import CheckpointError
from finetune_tf.families import config_values as values
from finetune_tf.families.clip import (
    CLIP_IMAGE,
    CLIP_TEXT,
    blocks_of,
    norm_of,
    patch_weights,
    patches_of,
    text_encoder,
    text_weights,
    two_towers,
)
from finetune_tf.families.family import Head
from finetune_tf.families.towers import DEFAULTS, TwoTowers
from finetune_tf.weights.conversions import KERNEL
from finetune_tf.weights.table import Weight, linear, norm


def _text_backbone(config: dict, dtype: Any) -> Backbone:
    backbone = text_encoder(config, dtype, causal=False)
    pool = FinalPosition(dtype=dtype, name="final_position")
    return replace(backbone, first_token=pool(backbone.hidden))


def _text_heads(config: dict) -> dict[str, Head]:
    size = config["projection_size"] or config["hidden_size"]

    def head(dtype: Any) -> Transform:
        stddev = config["initializer_range"]
        return Transform(size, "linear", initializer_range=stddev, dtype=dtype, name="pooler")

    return {"feature-extraction": Head(linear("head", "pooler/dense"), transform=head)}


def _image_backbone(config: dict, dtype: Any, pixels: PixelNormalization) -> Backbone:
    size, stddev = config["hidden_size"], config["initializer_range"]
    embeddings = patches_of(config, dtype, (), use_bias=True)
    blocks, final_norm = blocks_of(config, dtype), norm_of(config, dtype, "final_norm")
    backbone = image_encoder(pixels, embeddings, blocks, final_norm)
    heads, width = config["num_attention_heads"], config["intermediate_size"]
    pool = AttentionPooling(
        MultiHeadAttention(size, heads, 0.0, stddev, fused=True, dtype=dtype, name="attention"),
        FeedForward(width, size, config["hidden_act"], stddev, dtype=dtype, name="feed_forward"),
        config["layer_norm_eps"],
        dtype=dtype,
        name="pooler",
    )
    return replace(backbone, first_token=pool(backbone.hidden))


def _image_weights(config: dict) -> list[Weight]:
    attention = "pooler/attention/query_key_value"
    return [
        *patch_weights(config),
        *norm("post_layernorm", "final_norm"),
        Weight("head.probe", "pooler/probe"),
        Weight("head.attention.in_proj_weight", f"{attention}/kernel", KERNEL),
        Weight("head.attention.in_proj_bias", f"{attention}/bias"),
        *linear("head.attention.out_proj", "pooler/attention/output"),
        *norm("head.layernorm", "pooler/norm"),
        *linear("head.mlp.fc1", "pooler/feed_forward/intermediate"),
        *linear("head.mlp.fc2", "pooler/feed_forward/output"),
    ]


_OWN = {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6, "hidden_size": 768}
_OWN |= {"intermediate_size": 3072, "num_attention_heads": 12}

SIGLIP_TEXT = replace(
    CLIP_TEXT,
    model_type="siglip_text_model",
    class_prefix="SiglipText",
    defaults={
        **CLIP_TEXT.defaults,
        **_OWN,
        "vocab_size": 32000,
        "max_position_embeddings": 64,
        "projection_size": None,
    },
    rules={**CLIP_TEXT.rules, "projection_size": values.FEATURES_OR_NULL},
    backbone=_text_backbone,
    weights=text_weights,
    heads=_text_heads,
    pads_texts=True,
)

SIGLIP_IMAGE = replace(
    CLIP_IMAGE,
    model_type="siglip_vision_model",
    class_prefix="SiglipVision",
    defaults={**CLIP_IMAGE.defaults, **_OWN, "patch_size": 16},
    supported={**CLIP_IMAGE.supported, "vision_use_head": (True,)},
    backbone=_image_backbone,
    weights=_image_weights,
    image_processor="SiglipImageProcessor",
)

_FAMILIES = {"image": SIGLIP_IMAGE, "text": SIGLIP_TEXT}


def _check(config: dict) -> None:
    """Checks that both towers return vectors of the same size."""
    text, image = config["text_config"], config["vision_config"]
    size = text["projection_size"] or text["hidden_size"]
    if size != image["hidden_size"]:
        raise CheckpointError(
            f"The towers return vectors of different sizes, which cannot be compared: those of "
            f"texts have {size} features ('projection_size' or 'hidden_size' in 'text_config'), "
            f"and those of images {image['hidden_size']} ('hidden_size' in 'vision_config')."
        )


SIGLIP = two_towers(
    "siglip",
    TwoTowers(
        lambda name, config: _FAMILIES[name],
        class_names={"image": "SiglipVisionModel", "text": "SiglipTextModel"},
        has_logits_bias=True,
    ),
    _FAMILIES,
    class_prefix="Siglip",
    has_old_classes=False,
    pads_texts=True,
    check=_check,
    defaults={key: value for key, value in DEFAULTS.items() if key != "projection_dim"}
    | {"logit_scale_init_value": 2.302585},
)
