"""BERT (Devlin et al. 2019, arXiv:1810.04805), and functions that related families share.

Equal to `transformers.BertModel` and its task models. Checkpoints such as MiniLM (Wang et al. 2020)
have the same architecture.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from finetune_tf.architectures import (
    Backbone,
    Embeddings,
    Transform,
    bert_block,
    encoder,
    prefix_model,
)
from finetune_tf.families import config_values as values
from finetune_tf.families.family import Family, Head, first_of, require_divisor
from finetune_tf.kernels import ACTIVATIONS
from finetune_tf.weights.table import Weight, block, embedding, linear, norm

TOKEN_EMBEDDINGS = "embeddings/word/embeddings"  # decoders are tied to this variable
BLOCK = {
    "attention/query": "attention.self.query",
    "attention/key": "attention.self.key",
    "attention/value": "attention.self.value",
    "attention/output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "feed_forward/intermediate": "intermediate.dense",
    "feed_forward/output": "output.dense",
    "feed_forward_norm": "output.LayerNorm",
}

DEFAULTS = {
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
}

RULES = {
    "vocab_size": values.VOCABULARY,
    "hidden_size": values.FEATURES,
    "num_hidden_layers": values.DEPTH,
    "num_attention_heads": values.FEATURES,
    "intermediate_size": values.INTERMEDIATE,
    "hidden_act": values.STRING,
    "hidden_dropout_prob": values.RATE,
    "attention_probs_dropout_prob": values.RATE,
    "classifier_dropout": values.RATE_OR_NULL,
    "max_position_embeddings": values.POSITIONS,
    "type_vocab_size": values.FEATURES,
    "initializer_range": values.STDDEV,
    "layer_norm_eps": values.EPSILON,
    "pad_token_id": values.TOKEN_ID_OR_NULL,
    "decoder_start_token_id": values.TOKEN_ID_OR_NULL,
}

SUPPORTED = {
    "hidden_act": tuple(sorted(ACTIVATIONS)),
    "position_embedding_type": ("absolute",),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "pruned_heads": ({}, []),
}

DROPOUT_KEYS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")


def check_heads(config: dict) -> None:
    """Checks that the number of heads divides the hidden size."""
    require_divisor(config, "hidden_size", "num_attention_heads")


def bert_block_arguments(config: dict, dtype: Any) -> dict[str, Any]:
    """Returns the arguments of `bert_block` for a config with BERT's keys."""
    return {
        "hidden_size": config["hidden_size"],
        "num_heads": config["num_attention_heads"],
        "intermediate_size": config["intermediate_size"],
        "activation": config["hidden_act"],
        "dropout": config["hidden_dropout_prob"],
        "attention_dropout": config["attention_probs_dropout_prob"],
        "layer_norm_eps": config["layer_norm_eps"],
        "initializer_range": config["initializer_range"],
        "dtype": dtype,
    }


def bert_embeddings(config: dict, dtype: Any, **options: Any) -> Embeddings:
    """Builds the embeddings from a config with BERT's keys.

    Args:
        config: Complete config.
        dtype: Keras dtype policy.
        **options: Arguments of `Embeddings` that differ from BERT's.
    """
    arguments = {
        "vocab_size": config["vocab_size"],
        "hidden_size": config["hidden_size"],
        "max_positions": config["max_position_embeddings"],
        "type_vocab_size": config["type_vocab_size"],
        "dropout": config["hidden_dropout_prob"],
        "layer_norm_eps": config["layer_norm_eps"],
        "initializer_range": config["initializer_range"],
        "padding_idx": config["pad_token_id"],
    }
    return Embeddings(**{**arguments, **options}, dtype=dtype, name="embeddings")


def bert_backbone(
    config: dict, dtype: Any, chain: Callable[..., Backbone] = encoder, **options: Any
) -> Backbone:
    """Builds embeddings and blocks.

    Args:
        config: Complete config.
        dtype: Keras dtype policy.
        chain: Calls them on symbolic inputs: `encoder` or `prefix_model`.
        **options: Arguments of `Embeddings` that differ from BERT's.
    """
    arguments = bert_block_arguments(config, dtype)
    blocks = [
        bert_block(**arguments, name=f"block_{i}") for i in range(config["num_hidden_layers"])
    ]
    return chain(bert_embeddings(config, dtype, **options), blocks)


def bert_weights(config: dict, parts: Mapping[str, str] = BLOCK) -> list[Weight]:
    """Returns the weight table of a backbone with BERT's module names, except inside blocks."""
    table = [
        Weight("embeddings.position_ids", None),  # a constant that old releases store
        *embedding("embeddings.word_embeddings", "embeddings/word"),
        *embedding("embeddings.position_embeddings", "embeddings/position"),
        *embedding("embeddings.token_type_embeddings", "embeddings/token_type"),
        *norm("embeddings.LayerNorm", "embeddings/norm"),
        *linear("pooler.dense", "pooler/dense"),
    ]
    for i in range(config["num_hidden_layers"]):
        table += block(f"encoder.layer.{i}", f"block_{i}", parts)
    return table


def vocabulary_transform(config: dict, activation: str, size: int | None = None) -> partial:
    """Returns a factory of the layer below the tied decoder of a masked-language-model head."""
    return partial(
        Transform,
        size or config["hidden_size"],
        activation,
        layer_norm_eps=config["layer_norm_eps"],
        initializer_range=config["initializer_range"],
        name="transform",
    )


def vocabulary_weights(module: str, norm_name: str = "layer_norm") -> list[Weight]:
    """Returns the rows of a masked-language-model head whose parts are in one module."""
    return [
        *linear(f"{module}.dense", "transform/dense"),
        *norm(f"{module}.{norm_name}", "transform/norm"),
        *decoder_weights(module),
    ]


def decoder_weights(module: str) -> list[Weight]:
    """Returns the rows of a tied decoder, whose bias may be stored under two names."""
    return [
        Weight(f"{module}.bias", "vocabulary_bias/bias"),
        Weight(f"{module}.decoder.bias", "vocabulary_bias/bias"),
        Weight(f"{module}.decoder.weight", None, tied_to=TOKEN_EMBEDDINGS),
    ]


def with_prefix_models(
    heads: dict[str, Head], backbone: Callable[..., Backbone]
) -> dict[str, Head]:
    """Adds the heads of tasks from text to text: that of fill-mask on a `prefix_model`.

    Args:
        heads: The heads of the family.
        backbone: Its backbone, with the argument `chain` of `bert_backbone`.
    """
    head = replace(heads["fill-mask"], backbone=partial(backbone, chain=prefix_model))
    return heads | dict.fromkeys(("text2text-generation", "translation", "summarization"), head)


def bert_heads(config: dict) -> dict[str, Head]:
    """Returns the heads of PyTorch's classes."""
    dropout = first_of(config, "classifier_dropout", "hidden_dropout_prob")
    pooler = partial(
        Transform,
        config["hidden_size"],
        "tanh",
        initializer_range=config["initializer_range"],
        name="pooler",
    )
    classifier = linear("classifier", "classifier/dense")
    masked = "cls.predictions"
    return {
        "text-classification": Head(classifier, dropout, pooler),
        "token-classification": Head(classifier, dropout),
        "question-answering": Head(linear("qa_outputs", "classifier/dense")),
        "fill-mask": Head(
            [
                *linear(f"{masked}.transform.dense", "transform/dense"),
                *norm(f"{masked}.transform.LayerNorm", "transform/norm"),
                *decoder_weights(masked),
            ],
            transform=vocabulary_transform(config, config["hidden_act"]),
        ),
        "feature-extraction": Head(transform=pooler),
    }


def _heads(config: dict) -> dict[str, Head]:
    return with_prefix_models(bert_heads(config), bert_backbone)


BERT = Family(
    model_type="bert",
    class_prefix="Bert",
    tensor_prefix="bert",
    defaults=DEFAULTS,
    rules=RULES,
    supported=SUPPORTED,
    dropout_keys=DROPOUT_KEYS,
    backbone=bert_backbone,
    weights=bert_weights,
    heads=_heads,
    check=check_heads,
    class_names={"ForConditionalGeneration": "{prefix}ForMaskedLM"},
)
