"""EuroBERT (Boizard et al. 2025, arXiv:2503.05500): equal to `transformers.EuroBertModel`.

It is an encoder of Llama's blocks, in which every token sees all others.
"""

from dataclasses import replace
from functools import partial
from typing import Any

from finetune_tf.architectures import Backbone, Transform
from finetune_tf.families import config_values as values
from finetune_tf.families.family import Head
from finetune_tf.families.gpt2 import language_model_head
from finetune_tf.families.llama import LLAMA, llama_backbone
from finetune_tf.weights.table import Weight, linear

_POOLINGS = {"bos": "cls", "mean": "mean", "late": "late"}


def _backbone(config: dict, dtype: Any) -> Backbone:
    return llama_backbone(config, dtype, causal=False)


def _heads(config: dict) -> dict[str, Head]:
    pooler = partial(
        Transform,
        config["hidden_size"],
        "gelu",
        initializer_range=config["initializer_range"],
        name="pooler",
    )
    classifier = linear("classifier", "classifier/dense")
    decoder = language_model_head(config)
    bias = [Weight("lm_head.bias", "vocabulary_bias/bias")] if config["mlp_bias"] else []
    return {
        "text-classification": Head(
            [*linear("dense", "pooler/dense"), *classifier],
            transform=pooler,
            pooling=_POOLINGS[config["classifier_pooling"]],
        ),
        "token-classification": Head(classifier),
        "fill-mask": replace(decoder, weights=[*decoder.weights, *bias]),
        "feature-extraction": Head(),
    }


_OTHER_DROPOUTS = ("classifier_dropout", "hidden_dropout")  # Llama's, which EuroBERT does not read

EUROBERT = replace(
    LLAMA,
    model_type="eurobert",
    class_prefix="EuroBert",
    defaults={
        **LLAMA.defaults,
        "vocab_size": 128256,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "pad_token_id": 128001,
        "classifier_pooling": "late",
    },
    rules={
        **{key: rule for key, rule in LLAMA.rules.items() if key not in _OTHER_DROPOUTS},
        "classifier_pooling": values.STRING,
    },
    supported={
        **{key: allowed for key, allowed in LLAMA.supported.items() if key != "is_causal"},
        "classifier_pooling": tuple(_POOLINGS),
    },
    dropout_keys=("attention_dropout",),
    backbone=_backbone,
    heads=_heads,
)
