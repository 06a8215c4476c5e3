"""Nomic BERT (Nussbaum et al. 2024, arXiv:2402.01613): equal to `transformers.NomicBertModel`."""

from dataclasses import replace
from typing import Any

from finetune_tf.architectures import Backbone, RotaryPositions, bert_block, encoder
from finetune_tf.families import config_values as values
from finetune_tf.families.bert import (
    BERT,
    DEFAULTS,
    RULES,
    bert_block_arguments,
    bert_embeddings,
    bert_heads,
    decoder_weights,
)
from finetune_tf.families.family import Head, unsupported
from finetune_tf.families.rotary import ROPE, check_rope_type, check_rotary_heads
from finetune_tf.weights.table import Weight, block, embedding, linear, norm

#: Keys of configs with rotary positions, beside those of BERT.
ROTARY_RULES = {
    "rope_parameters": ROPE,
    "rope_scaling": ROPE,
    "rope_theta": values.THETA_OR_NULL,
    "head_dim": values.FEATURES_OR_NULL,
}
_BLOCK = {
    "attention/query_key_value": "attn.Wqkv",
    "attention/output": "attn.out_proj",
    "attention_norm": "norm1",
    "feed_forward/intermediate": "mlp.fc12",
    "feed_forward/gate": "mlp.fc11",
    "feed_forward/output": "mlp.fc2",
    "feed_forward_norm": "norm2",
}


def rotary_backbone(
    config: dict, dtype: Any, theta: float, attention: dict, feed_forward: dict
) -> Backbone:
    """Builds BERT's embeddings without positions, and blocks with rotary positions.

    Args:
        config: Complete config with BERT's keys.
        dtype: Keras dtype policy.
        theta: Base of the rotary positions if the config defines none.
        attention: Arguments of `MultiHeadAttention` that differ between families.
        feed_forward: Arguments of `FeedForward` that differ between families.
    """
    arguments = bert_block_arguments(config, dtype) | {
        "attention_options": {"rotary": True, "fused": True, **attention},
        "feed_forward_options": {"use_bias": False, **feed_forward},
    }
    depth, size = config["num_hidden_layers"], config["hidden_size"]
    theta = (_rope(config)[1] or {}).get("rope_theta") or config.get("rope_theta") or theta
    positions = RotaryPositions(size // config["num_attention_heads"], theta, name="positions")
    blocks = [bert_block(**arguments, name=f"block_{i}") for i in range(depth)]
    first = bert_embeddings(config, dtype, max_positions=0)
    return encoder(first, blocks, positions=[positions] * depth)


def _backbone(config: dict, dtype: Any) -> Backbone:
    return rotary_backbone(config, dtype, 1000.0, {"use_bias": False}, {"gated": "apart"})


def check_rotary(config: dict) -> None:
    """Refuses an odd head size, and rotary positions that are scaled."""
    check_rotary_heads(config)
    size = config["hidden_size"] // config["num_attention_heads"]
    if config.get("head_dim") not in (None, size):
        raise unsupported(config, "head_dim", f"hidden_size / num_attention_heads, {size}")
    check_rope_type(config, *_rope(config))


def _rope(config: dict) -> tuple[str, dict | None]:
    """Returns the settings of rotary positions, and the key that has them, as in transformers."""
    key = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
    return key, config.get(key)


def _weights(config: dict) -> list[Weight]:
    table = [
        *embedding("embeddings.word_embeddings", "embeddings/word"),
        *embedding("embeddings.token_type_embeddings", "embeddings/token_type"),
        *norm("emb_ln", "embeddings/norm"),
        *linear("pooler.dense", "pooler/dense"),
    ]
    for i in range(config["num_hidden_layers"]):
        table += block(f"encoder.layers.{i}", f"block_{i}", _BLOCK)
    return table


def rotary_heads(config: dict, masked: list[Weight], activation: str) -> dict[str, Head]:
    """Returns BERT's heads without question answering, and without a pooler in the bare model.

    Args:
        config: Complete config.
        masked: Rows of the masked-language-model head.
        activation: Activation of that head.
    """
    heads = {**bert_heads({**config, "hidden_act": activation}), "feature-extraction": Head()}
    heads["fill-mask"] = replace(heads["fill-mask"], weights=masked)
    return {task: head for task, head in heads.items() if task != "question-answering"}


def _heads(config: dict) -> dict[str, Head]:
    module = "cls.predictions"
    below = linear(f"{module}.transform.dense", "transform/dense")
    below += norm(f"{module}.transform.layer_norm", "transform/norm")
    return rotary_heads(config, [*below, *decoder_weights(module)], config["hidden_act"])


NOMIC_BERT = replace(
    BERT,
    model_type="nomic_bert",
    class_prefix="NomicBert",
    tensor_prefix="nomic_bert",
    defaults={
        **DEFAULTS,
        "vocab_size": 30528,
        "hidden_act": "silu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "max_position_embeddings": 2048,
    },
    rules={**RULES, **ROTARY_RULES},
    backbone=_backbone,
    weights=_weights,
    heads=_heads,
    check=check_rotary,
)
