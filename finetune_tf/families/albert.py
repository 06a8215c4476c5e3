"""ALBERT (Lan et al. 2020, arXiv:1909.11942): factorized embeddings, and shared blocks.

Equal to `transformers.AlbertModel`.
"""

from dataclasses import replace
from functools import partial
from typing import Any

from finetune_tf.architectures import Backbone, Transform, bert_block, encoder
from finetune_tf.families import config_values as values
from finetune_tf.families.bert import (
    BERT,
    DEFAULTS,
    RULES,
    bert_block_arguments,
    bert_embeddings,
    check_heads,
    vocabulary_transform,
    vocabulary_weights,
)
from finetune_tf.families.family import Head, unsupported
from finetune_tf.weights.table import Weight, block, embedding, linear, norm

_BLOCK = {
    "attention/query": "attention.query",
    "attention/key": "attention.key",
    "attention/value": "attention.value",
    "attention/output": "attention.dense",
    "attention_norm": "attention.LayerNorm",
    "feed_forward/intermediate": "ffn",
    "feed_forward/output": "ffn_output",
    "feed_forward_norm": "full_layer_layer_norm",
}


def _backbone(config: dict, dtype: Any) -> Backbone:
    embeddings = bert_embeddings(
        config, dtype, embedding_size=config["embedding_size"], project="after"
    )
    arguments = bert_block_arguments(config, dtype) | {
        "attention_output_dropout": config["hidden_dropout_prob"],
        "dropout": 0.0,
    }
    inner, groups = config["inner_group_num"], config["num_hidden_groups"]
    shared = [bert_block(**arguments, name=f"block_{i}") for i in range(groups * inner)]
    depth = config["num_hidden_layers"]
    # Layer i applies all blocks of its group, one after the other.
    order = [int(i / (depth / groups)) * inner + j for i in range(depth) for j in range(inner)]
    return encoder(embeddings, [shared[i] for i in order])


def _weights(config: dict) -> list[Weight]:
    table = [
        Weight("embeddings.position_ids", None),
        *embedding("embeddings.word_embeddings", "embeddings/word"),
        *embedding("embeddings.position_embeddings", "embeddings/position"),
        *embedding("embeddings.token_type_embeddings", "embeddings/token_type"),
        *norm("embeddings.LayerNorm", "embeddings/norm"),
        *linear("encoder.embedding_hidden_mapping_in", "embeddings/projection"),
        *linear("pooler", "pooler/dense"),
    ]
    inner = config["inner_group_num"]
    for i in range(config["num_hidden_groups"] * inner):
        group, layer = divmod(i, inner)
        module = f"encoder.albert_layer_groups.{group}.albert_layers.{layer}"
        table += block(module, f"block_{i}", _BLOCK)
    return table


def _heads(config: dict) -> dict[str, Head]:
    dropout = config["classifier_dropout_prob"]
    classifier = linear("classifier", "classifier/dense")
    pooler = partial(
        Transform,
        config["hidden_size"],
        "tanh",
        initializer_range=config["initializer_range"],
        name="pooler",
    )
    return {
        "text-classification": Head(classifier, dropout, pooler),
        "token-classification": Head(classifier, dropout),
        "question-answering": Head(linear("qa_outputs", "classifier/dense")),
        "fill-mask": Head(
            vocabulary_weights("predictions", "LayerNorm"),
            transform=vocabulary_transform(config, config["hidden_act"], config["embedding_size"]),
        ),
        "feature-extraction": Head(transform=pooler),
    }


def _check(config: dict) -> None:
    check_heads(config)
    # Blocks are shared, so the shapes of the tensors do not limit the number of layers.
    inner = config["inner_group_num"]
    for key in ("num_hidden_layers", "num_hidden_groups"):
        if config[key] * inner > values.MAX_DEPTH:
            supported = f"with inner_group_num {inner} at most {values.MAX_DEPTH // inner}"
            raise unsupported(config, key, supported)


ALBERT = replace(
    BERT,
    model_type="albert",
    class_prefix="Albert",
    tensor_prefix="albert",
    defaults={
        **DEFAULTS,
        "vocab_size": 30000,
        "embedding_size": 128,
        "hidden_size": 4096,
        "num_hidden_groups": 1,
        "inner_group_num": 1,
        "num_attention_heads": 64,
        "intermediate_size": 16384,
        "hidden_act": "gelu_new",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "classifier_dropout_prob": 0.1,
    },
    rules={
        **RULES,
        "embedding_size": values.FEATURES,
        "num_hidden_groups": values.DEPTH,
        "inner_group_num": values.DEPTH,
        "classifier_dropout_prob": values.RATE,
    },
    dropout_keys=(
        "hidden_dropout_prob",
        "attention_probs_dropout_prob",
        "classifier_dropout_prob",
    ),
    backbone=_backbone,
    weights=_weights,
    heads=_heads,
    check=_check,
)
