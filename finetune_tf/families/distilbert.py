"""DistilBERT (Sanh et al. 2019, arXiv:1910.01108): BERT without token types and pooler.

Equal to `transformers.DistilBertModel`, which has its own names of config keys and tensors.
"""

from functools import partial
from typing import Any

from finetune_tf.architectures import Backbone, Embeddings, Transform, bert_block, encoder
from finetune_tf.families import config_values as values
from finetune_tf.families.bert import TOKEN_EMBEDDINGS, vocabulary_transform
from finetune_tf.families.family import Family, Head, require_divisor
from finetune_tf.kernels import ACTIVATIONS
from finetune_tf.weights.table import Weight, block, embedding, linear, norm

_EPSILON = 1e-12  # of every layer normalization; there is no config key for it
_BLOCK = {
    "attention/query": "attention.q_lin",
    "attention/key": "attention.k_lin",
    "attention/value": "attention.v_lin",
    "attention/output": "attention.out_lin",
    "attention_norm": "sa_layer_norm",
    "feed_forward/intermediate": "ffn.lin1",
    "feed_forward/output": "ffn.lin2",
    "feed_forward_norm": "output_layer_norm",
}


def _backbone(config: dict, dtype: Any) -> Backbone:
    size, heads = config["dim"], config["n_heads"]
    embeddings = Embeddings(
        config["vocab_size"],
        size,
        config["max_position_embeddings"],
        type_vocab_size=0,
        dropout=config["dropout"],
        layer_norm_eps=_EPSILON,
        initializer_range=config["initializer_range"],
        padding_idx=config["pad_token_id"],
        dtype=dtype,
        name="embeddings",
    )
    blocks = [
        bert_block(
            hidden_size=size,
            num_heads=heads,
            intermediate_size=config["hidden_dim"],
            activation=config["activation"],
            dropout=config["dropout"],
            attention_output_dropout=0.0,
            attention_dropout=config["attention_dropout"],
            layer_norm_eps=_EPSILON,
            initializer_range=config["initializer_range"],
            dtype=dtype,
            name=f"block_{i}",
        )
        for i in range(config["n_layers"])
    ]
    return encoder(embeddings, blocks)


def _weights(config: dict) -> list[Weight]:
    table = [
        *embedding("embeddings.word_embeddings", "embeddings/word"),
        *embedding("embeddings.position_embeddings", "embeddings/position"),
        *norm("embeddings.LayerNorm", "embeddings/norm"),
    ]
    for i in range(config["n_layers"]):
        table += block(f"transformer.layer.{i}", f"block_{i}", _BLOCK)
    return table


def _heads(config: dict) -> dict[str, Head]:
    classifier = linear("classifier", "classifier/dense")
    pooler = partial(
        Transform,
        config["dim"],
        "relu",
        initializer_range=config["initializer_range"],
        name="pooler",
    )
    masked = {**config, "hidden_size": config["dim"], "layer_norm_eps": _EPSILON}
    return {
        "text-classification": Head(
            [*linear("pre_classifier", "pooler/dense"), *classifier],
            config["seq_classif_dropout"],
            pooler,
        ),
        "token-classification": Head(classifier, config["dropout"]),
        "question-answering": Head(linear("qa_outputs", "classifier/dense"), config["qa_dropout"]),
        "fill-mask": Head(
            [
                *linear("vocab_transform", "transform/dense"),
                *norm("vocab_layer_norm", "transform/norm"),
                Weight("vocab_projector.bias", "vocabulary_bias/bias"),
                Weight("vocab_projector.weight", None, tied_to=TOKEN_EMBEDDINGS),
            ],
            transform=vocabulary_transform(masked, config["activation"]),
        ),
        "feature-extraction": Head(),
    }


DISTILBERT = Family(
    model_type="distilbert",
    class_prefix="DistilBert",
    tensor_prefix="distilbert",
    defaults={
        "vocab_size": 30522,
        "max_position_embeddings": 512,
        "n_layers": 6,
        "n_heads": 12,
        "dim": 768,
        "hidden_dim": 3072,
        "dropout": 0.1,
        "attention_dropout": 0.1,
        "activation": "gelu",
        "initializer_range": 0.02,
        "qa_dropout": 0.1,
        "seq_classif_dropout": 0.2,
        "pad_token_id": 0,
    },
    rules={
        "vocab_size": values.VOCABULARY,
        "max_position_embeddings": values.POSITIONS,
        "n_layers": values.DEPTH,
        "n_heads": values.FEATURES,
        "dim": values.FEATURES,
        "hidden_dim": values.INTERMEDIATE,
        "dropout": values.RATE,
        "attention_dropout": values.RATE,
        "activation": values.STRING,
        "initializer_range": values.STDDEV,
        "qa_dropout": values.RATE,
        "seq_classif_dropout": values.RATE,
        "pad_token_id": values.TOKEN_ID_OR_NULL,
    },
    supported={"activation": tuple(sorted(ACTIVATIONS)), "pruned_heads": ({}, [])},
    dropout_keys=("dropout", "attention_dropout", "qa_dropout", "seq_classif_dropout"),
    aliases={
        "hidden_size": "dim",
        "num_attention_heads": "n_heads",
        "num_hidden_layers": "n_layers",
    },
    backbone=_backbone,
    weights=_weights,
    heads=_heads,
    check=lambda config: require_divisor(config, "dim", "n_heads"),
)
