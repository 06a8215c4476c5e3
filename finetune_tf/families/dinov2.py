"""DINOv2 (Oquab et al. 2023, arXiv:2304.07193), a vision transformer without labels.

Equal to `transformers.Dinov2Model` and `Dinov2ForImageClassification`.
"""

from typing import Any

from finetune_tf.architectures import (
    Backbone,
    LayerNorm,
    PixelNormalization,
    bert_block,
    image_encoder,
)
from finetune_tf.families import config_values as values
from finetune_tf.families.family import Family, Head
from finetune_tf.families.vit import VIT, check_patches, patch_embeddings, patch_weights
from finetune_tf.kernels import ACTIVATIONS
from finetune_tf.weights.table import Weight, block, linear, norm

_BLOCK = {
    "attention/query": "attention.attention.query",
    "attention/key": "attention.attention.key",
    "attention/value": "attention.attention.value",
    "attention/output": "attention.output.dense",
    "attention_norm": "norm1",
    "feed_forward_norm": "norm2",
}
_MLP = {"feed_forward/intermediate": "mlp.fc1", "feed_forward/output": "mlp.fc2"}
# One tensor holds the gate, which the activation is applied to, and then the other half.
_SWIGLU = {"feed_forward/intermediate": "mlp.weights_in", "feed_forward/output": "mlp.weights_out"}
_TOKENS = {"class_token": "cls_token", "mask_token": "mask_token"}


def _width(config: dict) -> int:
    """The width of the feed-forward part; a gated one has two thirds of it, in multiples of 8."""
    width = int(config["hidden_size"] * config["mlp_ratio"])
    return (int(width * 2 / 3) + 7) // 8 * 8 if config["use_swiglu_ffn"] else width


def _backbone(config: dict, dtype: Any, pixels: PixelNormalization) -> Backbone:
    gated = config["use_swiglu_ffn"]
    blocks = [
        bert_block(
            hidden_size=config["hidden_size"],
            num_heads=config["num_attention_heads"],
            intermediate_size=_width(config),
            activation="silu" if gated else config["hidden_act"],
            dropout=0.0,
            drop_path=config["drop_path_rate"],
            attention_dropout=config["attention_probs_dropout_prob"],
            layer_norm_eps=config["layer_norm_eps"],
            initializer_range=config["initializer_range"],
            attention_options={"use_bias": config["qkv_bias"], "output_bias": True},
            feed_forward_options={"gated": "second_half" if gated else None},
            layer_scale=config["layerscale_value"],
            norm_first=True,
            dtype=dtype,
            name=f"block_{i}",
        )
        for i in range(config["num_hidden_layers"])
    ]
    embeddings = patch_embeddings(config, dtype, has_mask_token=config["use_mask_token"])
    final_norm = LayerNorm(config["layer_norm_eps"], dtype=dtype, name="final_norm")
    return image_encoder(pixels, embeddings, blocks, final_norm)


def _weights(config: dict) -> list[Weight]:
    table = [*patch_weights(_TOKENS), *norm("layernorm", "final_norm")]
    parts = _BLOCK | (_SWIGLU if config["use_swiglu_ffn"] else _MLP)
    for i in range(config["num_hidden_layers"]):
        module, layer = f"encoder.layer.{i}", f"block_{i}"
        table += block(module, layer, parts)
        table += [
            Weight(f"{module}.layer_scale1.lambda1", f"{layer}/attention_scale"),
            Weight(f"{module}.layer_scale2.lambda1", f"{layer}/feed_forward_scale"),
        ]
    return table


def _heads(config: dict) -> dict[str, Head]:
    classifier = linear("classifier", "classifier/dense")
    return {
        "image-classification": Head(classifier, pooling="cls_and_mean"),
        "image-feature-extraction": Head(),
    }


_OWN = {
    "mlp_ratio": 4,
    "layer_norm_eps": 1e-6,
    "patch_size": 14,
    "layerscale_value": 1.0,
    "drop_path_rate": 0.0,
    "use_swiglu_ffn": False,
    "use_mask_token": True,
}
_WITHOUT = ("intermediate_size", "pooler_output_size", "pooler_act")

DINOV2 = Family(
    model_type="dinov2",
    class_prefix="Dinov2",
    tensor_prefix="dinov2",
    defaults={k: v for k, v in VIT.defaults.items() if k not in _WITHOUT} | _OWN,
    rules={k: v for k, v in VIT.rules.items() if k not in _WITHOUT}
    | {
        "mlp_ratio": values.Number(0, 64, above_low=True),
        "layerscale_value": values.Number(-1e3, 1e3),
        "drop_path_rate": values.RATE,
        "use_swiglu_ffn": values.BOOLEAN,
        "use_mask_token": values.BOOLEAN,
    },
    supported={"hidden_act": tuple(sorted(ACTIVATIONS))},
    dropout_keys=("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate"),
    backbone=_backbone,
    weights=_weights,
    heads=_heads,
    max_length=lambda config: None,
    check=check_patches,
    image_processor="BitImageProcessor",
    has_old_classes=False,
)
