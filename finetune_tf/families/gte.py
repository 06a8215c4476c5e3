"""GTE (mGTE, Zhang et al. 2024, arXiv:2407.19669): equal to `transformers.GteModel`.

It differs from Nomic BERT in the biases of its attention.
"""

from dataclasses import replace
from typing import Any

from finetune_tf.architectures import Backbone
from finetune_tf.families import config_values as values
from finetune_tf.families.bert import BERT, DEFAULTS, RULES, TOKEN_EMBEDDINGS
from finetune_tf.families.family import Head
from finetune_tf.families.nomic_bert import (
    ROTARY_RULES,
    check_rotary,
    rotary_backbone,
    rotary_heads,
)
from finetune_tf.weights.table import Weight, block, embedding, linear, norm

_BLOCK = {
    "attention/query_key_value": "attention.qkv_proj",
    "attention/output": "attention.o_proj",
    "attention_norm": "attn_ln",
    "feed_forward/intermediate": "mlp.up_gate_proj",
    "feed_forward/output": "mlp.down_proj",
    "feed_forward_norm": "mlp_ln",
}


def _backbone(config: dict, dtype: Any) -> Backbone:
    feed_forward = {
        "gated": "first_half",
        "output_bias": True,
        "dropout": config["hidden_dropout_prob"],
    }
    return rotary_backbone(config, dtype, 160_000.0, {}, feed_forward)


def _weights(config: dict) -> list[Weight]:
    table = [
        *embedding("embeddings.word_embeddings", "embeddings/word"),
        *embedding("embeddings.token_type_embeddings", "embeddings/token_type"),
        *norm("embeddings.LayerNorm", "embeddings/norm"),
        *linear("pooler.dense", "pooler/dense"),
    ]
    for i in range(config["num_hidden_layers"]):
        table += block(f"encoder.layer.{i}", f"block_{i}", _BLOCK)
    return table


def _heads(config: dict) -> dict[str, Head]:
    rows = [
        *linear("lm_head.dense", "transform/dense"),
        *norm("lm_head.norm", "transform/norm"),
        Weight("lm_head.decoder.bias", "vocabulary_bias/bias"),
        Weight("lm_head.decoder.weight", None, tied_to=TOKEN_EMBEDDINGS),
    ]
    return rotary_heads(config, rows, "gelu")


GTE = replace(
    BERT,
    model_type="gte",
    class_prefix="Gte",
    tensor_prefix="gte",
    defaults={
        **DEFAULTS,
        "vocab_size": 250048,
        "attention_probs_dropout_prob": 0.0,
        "max_position_embeddings": 8192,
        "type_vocab_size": 1,
        "pad_token_id": 1,
    },
    rules={**RULES, **ROTARY_RULES, "type_vocab_size": values.integer(65_536, 0)},
    backbone=_backbone,
    weights=_weights,
    heads=_heads,
    check=check_rotary,
)
