"""DeBERTa v2 (He et al. 2021) and v3 (He et al. 2023, arXiv:2111.09543).

Equal to `transformers.DebertaV2Model`.
"""

from dataclasses import replace
from typing import Any

from finetune_tf.architectures import Backbone, ConvolutionBlock
from finetune_tf.families import config_values as values
from finetune_tf.families.bert import BLOCK
from finetune_tf.families.deberta import (
    DEBERTA,
    check_sizes,
    deberta_backbone,
    deberta_weights,
    position_range,
    position_terms,
    split_terms,
)
from finetune_tf.families.family import require_divisor, unsupported
from finetune_tf.kernels import ACTIVATIONS
from finetune_tf.weights.table import Weight, linear, norm

_BLOCK = {
    **BLOCK,
    "attention/query": "attention.self.query_proj",
    "attention/key": "attention.self.key_proj",
    "attention/value": "attention.self.value_proj",
    "attention/position_key": "attention.self.pos_key_proj",
    "attention/position_query": "attention.self.pos_query_proj",
}


def _backbone(config: dict, dtype: Any) -> Backbone:
    terms = set(position_terms(config)) & {"c2p", "p2c"}
    has_norm = "layer_norm" in split_terms(config["norm_rel_ebd"])
    convolution = {
        "block_class": ConvolutionBlock,
        "kernel_size": config["conv_kernel_size"],
        "groups": config["conv_groups"],
        "convolution_activation": config["conv_act"],
        "convolution_initializer_range": config["initializer_range"],
    }
    return deberta_backbone(
        config,
        dtype,
        {"score_parts": 1 + len(terms), "share_projections": config["share_att_key"]},
        {
            "num_buckets": config["position_buckets"] if config["position_buckets"] > 0 else None,
            "layer_norm_eps": config["layer_norm_eps"] if has_norm else None,
        },
        convolution if config["conv_kernel_size"] > 0 else None,
    )


def _check(config: dict) -> None:
    """Refuses sizes that transformers accepts although it fails or returns wrong results."""
    check_sizes(config)
    size, heads = config["hidden_size"], config["num_attention_heads"]
    if config["conv_kernel_size"] > 0:
        require_divisor(config, "hidden_size", "conv_groups")
    if config.get("attention_head_size", size // heads) != size // heads:
        raise unsupported(config, "attention_head_size", f"{size // heads}")
    if config["conv_kernel_size"] > 0 and config["conv_kernel_size"] % 2 == 0:
        raise unsupported(config, "conv_kernel_size", "odd numbers, and 0 for no convolution")
    half, distance = config["position_buckets"] // 2, position_range(config)
    if config["position_buckets"] > 0 and not 0 < half < distance - 1:
        ranges = f"from 2 to below twice the largest distance {distance - 1}, and -1 for no buckets"
        raise unsupported(config, "position_buckets", ranges)


def _is_norm_rel_ebd(value: Any) -> bool:
    return isinstance(value, str) and set(split_terms(value)) <= {"none", "layer_norm", ""}


def _weights(config: dict) -> list[Weight]:
    return [
        *deberta_weights(config, _BLOCK),
        *linear("encoder.conv.conv", "block_0/convolution"),
        *norm("encoder.conv.LayerNorm", "block_0/convolution_norm"),
    ]


DEBERTA_V2 = replace(
    DEBERTA,
    model_type="deberta-v2",
    class_prefix="DebertaV2",
    defaults={
        **{key: value for key, value in DEBERTA.defaults.items() if key != "talking_head"},
        "vocab_size": 128100,
        "hidden_size": 1536,
        "num_hidden_layers": 24,
        "num_attention_heads": 24,
        "intermediate_size": 6144,
        "position_buckets": -1,
        "norm_rel_ebd": "none",
        "share_att_key": False,
        "conv_kernel_size": 0,
        "conv_groups": 1,
        "conv_act": "tanh",
    },
    rules={
        **DEBERTA.rules,
        "attention_head_size": values.FEATURES_OR_NULL,
        "position_buckets": values.integer(1_000_000, -1),
        "norm_rel_ebd": values.Predicate('"none" or "layer_norm"', _is_norm_rel_ebd),
        "share_att_key": values.BOOLEAN,
        "conv_kernel_size": values.integer(65_536, 0),
        "conv_groups": values.FEATURES,
        "conv_act": values.STRING,
    },
    supported={**DEBERTA.supported, "conv_act": tuple(sorted(ACTIVATIONS))},
    backbone=_backbone,
    weights=_weights,
    check=_check,
)
