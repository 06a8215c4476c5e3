"""RoBERTa (Liu et al. 2019), XLM-RoBERTa (Conneau et al. 2020), CamemBERT (Martin et al. 2020).

Equal to `transformers.RobertaModel`, `XLMRobertaModel` and `CamembertModel` (arXiv:1907.11692,
1911.02116, 1911.03894). Positions start at pad_token_id + 1; the classifier has its own pooler.
"""

from dataclasses import replace
from functools import partial
from typing import Any

from finetune_tf.architectures import Backbone, Transform
from finetune_tf.families import config_values as values
from finetune_tf.families.bert import (
    BERT,
    DEFAULTS,
    RULES,
    bert_backbone,
    bert_weights,
    check_heads,
    vocabulary_transform,
    vocabulary_weights,
    with_prefix_models,
)
from finetune_tf.families.family import Head, first_of, unsupported
from finetune_tf.weights.table import Weight, linear, without


def roberta_heads(config: dict, activation: str = "tanh") -> dict[str, Head]:
    """Returns the heads of RoBERTa and of families with the same heads.

    Args:
        config: Complete config.
        activation: Activation of the classifier's pooler.
    """
    dropout = first_of(config, "classifier_dropout", "hidden_dropout_prob")
    pooler = partial(
        Transform,
        config["hidden_size"],
        initializer_range=config["initializer_range"],
        name="pooler",
    )
    classifier_pooler = partial(pooler, activation=activation, dropout=dropout)
    return {
        "text-classification": Head(classifier_weights(), dropout, classifier_pooler),
        "token-classification": Head(linear("classifier", "classifier/dense"), dropout),
        "question-answering": Head(linear("qa_outputs", "classifier/dense")),
        "fill-mask": Head(
            vocabulary_weights("lm_head"), transform=vocabulary_transform(config, "gelu")
        ),
        "feature-extraction": Head(
            linear("pooler.dense", "pooler/dense"), transform=partial(pooler, activation="tanh")
        ),
    }


def classifier_weights() -> list[Weight]:
    """Returns the rows of a classifier module that contains its own pooler."""
    return [
        *linear("classifier.dense", "pooler/dense"),
        *linear("classifier.out_proj", "classifier/dense"),
    ]


def _backbone(config: dict, dtype: Any, **options: Any) -> Backbone:
    return bert_backbone(config, dtype, skip_padding=True, **options)


def _heads(config: dict) -> dict[str, Head]:
    return with_prefix_models(roberta_heads(config), _backbone)


def _weights(config: dict) -> list[Weight]:
    """Returns BERT's table without the pooler of the bare model, which classifiers do not use."""
    return without(bert_weights(config), "pooler")


def usable_positions(config: dict) -> int:
    """Returns the maximum length; position embeddings up to pad_token_id are never used."""
    return config["max_position_embeddings"] - config["pad_token_id"] - 1


def _check(config: dict) -> None:
    check_heads(config)
    if usable_positions(config) < 1:
        supported = f"more than the pad_token_id + 1, {config['pad_token_id'] + 1}"
        raise unsupported(config, "max_position_embeddings", supported)


ROBERTA = replace(
    BERT,
    model_type="roberta",
    class_prefix="Roberta",
    tensor_prefix="roberta",
    defaults={**DEFAULTS, "vocab_size": 50265, "pad_token_id": 1},
    rules={**RULES, "pad_token_id": values.TOKEN_ID},  # positions start behind it
    backbone=_backbone,
    weights=_weights,
    heads=_heads,
    max_length=usable_positions,
    check=_check,
)
XLM_ROBERTA = replace(ROBERTA, model_type="xlm-roberta", class_prefix="XLMRoberta")
CAMEMBERT = replace(ROBERTA, model_type="camembert", class_prefix="Camembert")
