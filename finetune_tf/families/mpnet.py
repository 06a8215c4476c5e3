"""MPNet (Song et al. 2020, arXiv:2004.09297): equal to `transformers.MPNetModel`.

It is RoBERTa with a relative position bias that all blocks share.
"""

from dataclasses import replace
from typing import Any

from finetune_tf.architectures import Backbone, RelativePositionBias, bert_block, encoder
from finetune_tf.errors import CheckpointError
from finetune_tf.families import config_values as values
from finetune_tf.families.bert import (
    BLOCK,
    DEFAULTS,
    RULES,
    bert_block_arguments,
    bert_embeddings,
    bert_weights,
    check_heads,
)
from finetune_tf.families.family import unsupported
from finetune_tf.families.roberta import ROBERTA, roberta_heads
from finetune_tf.weights.table import Weight, embedding, without

_BUCKETS = 32  # transformers hard-codes this, whatever the config contains
_PADDING = 1  # hard-coded as well
_BLOCK = {
    **BLOCK,
    "attention/query": "attention.attn.q",
    "attention/key": "attention.attn.k",
    "attention/value": "attention.attn.v",
    "attention/output": "attention.attn.o",
    "attention_norm": "attention.LayerNorm",
}


def _backbone(config: dict, dtype: Any) -> Backbone:
    embeddings = bert_embeddings(
        config, dtype, type_vocab_size=0, padding_idx=_PADDING, skip_padding=True
    )
    arguments = bert_block_arguments(config, dtype)
    positions = RelativePositionBias(
        config["num_attention_heads"],
        config["relative_attention_num_buckets"],
        _BUCKETS,
        initializer_range=config["initializer_range"],
        dtype=dtype,
        name="relative_positions",
    )
    blocks = [
        bert_block(**arguments, name=f"block_{i}") for i in range(config["num_hidden_layers"])
    ]
    return encoder(embeddings, blocks, positions=[positions] * len(blocks))


def _weights(config: dict) -> list[Weight]:
    return [
        *without(bert_weights(config, _BLOCK), "pooler"),
        *embedding("encoder.relative_attention_bias", "relative_positions/table"),
    ]


def _usable_positions(config: dict) -> int:
    return config["max_position_embeddings"] - _PADDING - 1


def _check(config: dict) -> None:
    check_heads(config)
    rows = config["relative_attention_num_buckets"]
    if rows < _BUCKETS:
        raise CheckpointError(
            f"The config key 'relative_attention_num_buckets' is {rows}, but MPNet always uses "
            f"{_BUCKETS} buckets of distances, and transformers fails with fewer as well. Set "
            f"it to {_BUCKETS} or more."
        )
    if _usable_positions(config) < 1:
        raise unsupported(config, "max_position_embeddings", f"more than {_PADDING + 1}")


MPNET = replace(
    ROBERTA,
    model_type="mpnet",
    class_prefix="MPNet",
    tensor_prefix="mpnet",
    defaults={
        **DEFAULTS,
        "vocab_size": 30527,
        "pad_token_id": 1,
        "relative_attention_num_buckets": 32,
    },
    rules={**RULES, "relative_attention_num_buckets": values.POSITIONS},
    backbone=_backbone,
    weights=_weights,
    heads=lambda config: roberta_heads({**config, "classifier_dropout": None}),
    max_length=_usable_positions,
    check=_check,
)
