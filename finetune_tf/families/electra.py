"""ELECTRA (Clark et al. 2020, arXiv:2003.10555): equal to `transformers.ElectraModel`."""

from dataclasses import replace
from typing import Any

from finetune_tf.architectures import Backbone
from finetune_tf.families import config_values as values
from finetune_tf.families.bert import (
    BERT,
    DEFAULTS,
    RULES,
    TOKEN_EMBEDDINGS,
    bert_backbone,
    bert_weights,
    vocabulary_transform,
    with_prefix_models,
)
from finetune_tf.families.family import Head
from finetune_tf.families.roberta import roberta_heads
from finetune_tf.weights.table import Weight, linear, norm


def _backbone(config: dict, dtype: Any, **options: Any) -> Backbone:
    size = config["embedding_size"]
    project = "after" if size != config["hidden_size"] else None
    return bert_backbone(config, dtype, embedding_size=size, project=project, **options)


def _weights(config: dict) -> list[Weight]:
    return [*bert_weights(config), *linear("embeddings_project", "embeddings/projection")]


def _heads(config: dict) -> dict[str, Head]:
    masked = Head(
        [
            *linear("generator_predictions.dense", "transform/dense"),
            *norm("generator_predictions.LayerNorm", "transform/norm"),
            Weight("generator_lm_head.bias", "vocabulary_bias/bias"),
            Weight("generator_lm_head.weight", None, tied_to=TOKEN_EMBEDDINGS),
        ],
        transform=vocabulary_transform(config, "gelu", config["embedding_size"]),
    )
    heads = roberta_heads(config, activation="gelu")
    # The bare model has no pooler, and only the generator has a masked-language-model head.
    heads |= {"feature-extraction": Head(), "fill-mask": masked}
    return with_prefix_models(heads, _backbone)


ELECTRA = replace(
    BERT,
    model_type="electra",
    class_prefix="Electra",
    tensor_prefix="electra",
    defaults={
        **DEFAULTS,
        "embedding_size": 128,
        "hidden_size": 256,
        "num_attention_heads": 4,
        "intermediate_size": 1024,
    },
    rules={**RULES, "embedding_size": values.FEATURES},
    backbone=_backbone,
    weights=_weights,
    heads=_heads,
)
