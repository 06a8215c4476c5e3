"""BERT (Devlin et al. 2019), and MiniLM and others that share its layout."""

from typing import Any

import keras

from finetune_tf.architectures import Backbone, Pooler, encoder
from finetune_tf.checkpoints.family import Family
from finetune_tf.checkpoints.weights import Weight, embedding, linear, norm
from finetune_tf.errors import CheckpointError
from finetune_tf.kernels import ACTIVATIONS


def _backbone(config: dict, dtype: Any) -> Backbone:
    size, heads = config["hidden_size"], config["num_attention_heads"]
    if size % heads:
        raise CheckpointError(
            f"The config key 'num_attention_heads' is {heads}, which does not divide "
            f"'hidden_size' {size}."
        )
    return encoder(
        vocab_size=config["vocab_size"],
        hidden_size=size,
        num_layers=config["num_hidden_layers"],
        num_heads=heads,
        intermediate_size=config["intermediate_size"],
        max_positions=config["max_position_embeddings"],
        type_vocab_size=config["type_vocab_size"],
        activation=config["hidden_act"],
        dropout=config["hidden_dropout_prob"],
        attention_dropout=config["attention_probs_dropout_prob"],
        layer_norm_eps=config["layer_norm_eps"],
        initializer_range=config["initializer_range"],
        dtype=dtype,
    )


def _pooler(config: dict, dtype: Any) -> keras.layers.Layer:
    return Pooler(
        config["hidden_size"],
        "tanh",
        initializer_range=config["initializer_range"],
        dtype=dtype,
        name="pooler",
    )


def _weights(config: dict) -> list[Weight]:
    table = [
        Weight("embeddings.position_ids", None),  # 0, 1, 2 …, stored by old releases
        *embedding("embeddings.word_embeddings", "embeddings/word"),
        *embedding("embeddings.position_embeddings", "embeddings/position"),
        *embedding("embeddings.token_type_embeddings", "embeddings/token_type"),
        *norm("embeddings.LayerNorm", "embeddings/norm"),
        *linear("pooler.dense", "pooler/dense"),
    ]
    for i in range(config["num_hidden_layers"]):
        theirs, ours = f"encoder.layer.{i}", f"block_{i}"
        table += [
            *linear(f"{theirs}.attention.self.query", f"{ours}/attention/query"),
            *linear(f"{theirs}.attention.self.key", f"{ours}/attention/key"),
            *linear(f"{theirs}.attention.self.value", f"{ours}/attention/value"),
            *linear(f"{theirs}.attention.output.dense", f"{ours}/attention/output"),
            *norm(f"{theirs}.attention.output.LayerNorm", f"{ours}/attention_norm"),
            *linear(f"{theirs}.intermediate.dense", f"{ours}/feed_forward/intermediate"),
            *linear(f"{theirs}.output.dense", f"{ours}/feed_forward/output"),
            *norm(f"{theirs}.output.LayerNorm", f"{ours}/feed_forward_norm"),
        ]
    return table


BERT = Family(
    model_type="bert",
    class_prefix="Bert",
    tensor_prefix="bert",
    defaults={
        "vocab_size": 30522,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
    },
    supported={
        "hidden_act": tuple(sorted(ACTIVATIONS)),
        "position_embedding_type": ("absolute",),
        "is_decoder": (False,),
        "add_cross_attention": (False,),
        "pruned_heads": ({}, []),
    },
    dropout_keys=("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"),
    backbone=_backbone,
    pooler=_pooler,
    weights=_weights,
    heads={"text-classification": linear("classifier", "classifier/dense")},
)
