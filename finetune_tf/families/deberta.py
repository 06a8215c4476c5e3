"""DeBERTa (He et al. 2021, arXiv:2006.03654), and functions that all of its versions share.

Equal to `transformers.DebertaModel`.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NoReturn

from finetune_tf.architectures import (
    AttentionMask,
    Backbone,
    DisentangledAttention,
    RelativePositions,
    Transform,
    bert_block,
    encoder,
)
from finetune_tf.families import config_values as values
from finetune_tf.families.bert import (
    BLOCK,
    DEFAULTS,
    RULES,
    bert_block_arguments,
    bert_embeddings,
    bert_weights,
    check_heads,
    decoder_weights,
    vocabulary_transform,
)
from finetune_tf.families.family import Family, Head, first_of, unsupported
from finetune_tf.kernels import ACTIVATIONS
from finetune_tf.weights.table import Weight, embedding, linear, norm, without

_POSITIONS = "relative_positions"
_BLOCK = {
    **{layer: module for layer, module in BLOCK.items() if ".self." not in module},
    "attention/query_key_value": "attention.self.in_proj",
    "attention/position_key": "attention.self.pos_proj",
    "attention/position_query": "attention.self.pos_q_proj",
    "attention/scores_mix": "attention.self.head_logits_proj",
    "attention/weights_mix": "attention.self.head_weights_proj",
}


def position_terms(config: dict) -> list[str]:
    """Returns the position terms of the attention scores: "c2p", "p2c" (section 3.1)."""
    terms = config["pos_att_type"] or []
    return split_terms(terms) if isinstance(terms, str) else terms


def split_terms(text: str) -> list[str]:
    """Splits a config value such as "c2p|p2c"."""
    return [term.strip() for term in text.lower().split("|")]


def _is_pos_att_type(value: Any) -> bool:
    if isinstance(value, str):
        value = split_terms(value)
    known = ("c2p", "p2c", "p2p", "none", "")
    return value is None or (isinstance(value, list | tuple) and all(v in known for v in value))


def position_range(config: dict) -> int:
    """Returns how many distances are distinguished in each direction (k in the paper)."""
    distance = config["max_relative_positions"]
    return distance if distance > 0 else config["max_position_embeddings"]


def _uses_positions(config: dict) -> bool:
    return bool(config["relative_attention"] and {"c2p", "p2c"} & set(position_terms(config)))


def deberta_backbone(
    config: dict,
    dtype: Any,
    attention: Mapping[str, Any],
    positions: Mapping[str, Any] | None = None,
    first_block: Mapping[str, Any] | None = None,
) -> Backbone:
    """Builds embeddings and blocks.

    Args:
        config: Complete config.
        dtype: Keras dtype policy.
        attention: Arguments of `DisentangledAttention` that differ between versions.
        positions: Arguments of `RelativePositions` that differ between versions.
        first_block: Arguments of `bert_block` that only the first block has.
    """
    size = config["hidden_size"]
    width = config.get("embedding_size", size)
    embeddings = bert_embeddings(
        config,
        dtype,
        max_positions=config["max_position_embeddings"] if config["position_biased_input"] else 0,
        embedding_size=width,
        project="before" if width != size else None,
        mask_padding=True,
    )
    arguments = bert_block_arguments(config, dtype)
    table, terms = None, ()
    if _uses_positions(config):
        terms = position_terms(config)
        table = RelativePositions(
            size,
            position_range(config),
            initializer_range=config["initializer_range"],
            **(positions or {}),
            dtype=dtype,
            name=_POSITIONS,
        )
    blocks = []
    for i in range(config["num_hidden_layers"]):
        disentangled = DisentangledAttention(
            size,
            arguments["num_heads"],
            content_to_position="c2p" in terms,
            position_to_content="p2c" in terms,
            dropout=config["attention_probs_dropout_prob"],
            position_dropout=config["hidden_dropout_prob"],
            initializer_range=config["initializer_range"],
            **attention,
            dtype=dtype,
            name="attention",
        )
        extra = first_block if first_block and i == 0 else {}
        blocks.append(bert_block(**arguments, attention=disentangled, **extra, name=f"block_{i}"))
    mask = AttentionMask(mask_queries=True, name="mask")
    return encoder(embeddings, blocks, [mask] * len(blocks), [table] * len(blocks))


def deberta_weights(config: dict, parts: Mapping[str, str]) -> list[Weight]:
    """Returns the weight table of a backbone; `parts` maps layers of a block to modules."""
    table = without(bert_weights(config, parts), "pooler")
    table += linear("embeddings.embed_proj", "embeddings/projection")
    if not config["position_biased_input"]:
        # Later versions store position embeddings that the model does not use.
        table.append(Weight("embeddings.position_embeddings.weight", None))
    if _uses_positions(config):
        table += embedding("encoder.rel_embeddings", f"{_POSITIONS}/table")
        return table + norm("encoder.LayerNorm", f"{_POSITIONS}/norm")
    unused = ("rel_embeddings.weight", "LayerNorm.weight", "LayerNorm.bias")
    return table + [Weight(f"encoder.{name}", None) for name in unused]


def deberta_heads(config: dict) -> dict[str, Head]:
    """Returns the heads, which are the same in all versions."""
    size = config["hidden_size"]
    pooler = partial(
        Transform,
        size,
        config["pooler_hidden_act"],
        config["pooler_dropout"],
        config["initializer_range"],
        name="pooler",
    )
    classifier = linear("classifier", "classifier/dense")
    if config["legacy"]:
        masked, width = "cls.predictions", config.get("embedding_size", size)
        below = f"{masked}.transform"  # the module below the decoder
    else:
        masked = below = "lm_predictions.lm_head"
        width = size
    transform = vocabulary_transform(config, config["hidden_act"], width)
    if width != config.get("embedding_size", size):
        transform = partial(_refuse_untied_decoder, config)
    return {
        "text-classification": Head(
            [*linear("pooler.dense", "pooler/dense"), *classifier],
            first_of(config, "cls_dropout", "hidden_dropout_prob"),
            pooler,
        ),
        "token-classification": Head(classifier, config["hidden_dropout_prob"]),
        "question-answering": Head(linear("qa_outputs", "classifier/dense")),
        "fill-mask": Head(
            [
                *linear(f"{below}.dense", "transform/dense"),
                *norm(f"{below}.LayerNorm", "transform/norm"),
                *decoder_weights(masked),
            ],
            transform=transform,
        ),
        "feature-extraction": Head(),
    }


def _refuse_untied_decoder(config: dict, dtype: Any) -> NoReturn:
    raise unsupported(
        config, "legacy", "true for fill-mask where the embedding_size differs from the hidden_size"
    )


def _backbone(config: dict, dtype: Any) -> Backbone:
    return deberta_backbone(
        config,
        dtype,
        {
            "score_parts": 1 + len(position_terms(config)),
            "fused": True,
            "talking_heads": config["talking_head"],
        },
    )


def _weights(config: dict) -> list[Weight]:
    table = deberta_weights(config, _BLOCK)
    for i in range(config["num_hidden_layers"]):
        for variable, name in (("query_bias", "q_bias"), ("value_bias", "v_bias")):
            tensor = f"encoder.layer.{i}.attention.self.{name}"
            table.append(Weight(tensor, f"block_{i}/attention/{variable}"))
    return table


def check_sizes(config: dict) -> None:
    """Checks that sizes do not contradict each other."""
    check_heads(config)
    size = config["hidden_size"]
    if config.get("pooler_hidden_size", size) != size:
        raise unsupported(config, "pooler_hidden_size", f"the hidden_size, {size}")


DEBERTA = Family(
    model_type="deberta",
    class_prefix="Deberta",
    tensor_prefix="deberta",
    defaults={
        **DEFAULTS,
        "vocab_size": 50265,
        "type_vocab_size": 0,
        "layer_norm_eps": 1e-7,
        "relative_attention": False,
        "max_relative_positions": -1,
        "position_biased_input": True,
        "pos_att_type": [],
        "talking_head": False,
        "pooler_dropout": 0.0,
        "pooler_hidden_act": "gelu",
        "legacy": True,
    },
    rules={
        **RULES,
        "embedding_size": values.FEATURES_OR_NULL,
        "type_vocab_size": values.integer(65_536, 0),
        "relative_attention": values.BOOLEAN,
        "max_relative_positions": values.integer(1_000_000, -1),
        "position_biased_input": values.BOOLEAN,
        "pos_att_type": values.Predicate(
            'a list of "c2p", "p2c" and "p2p", a string such as "c2p|p2c", or null',
            _is_pos_att_type,
        ),
        "talking_head": values.BOOLEAN,
        "pooler_dropout": values.RATE,
        "pooler_hidden_act": values.STRING,
        "pooler_hidden_size": values.FEATURES_OR_NULL,
        "cls_dropout": values.RATE_OR_NULL,
        "legacy": values.BOOLEAN,
    },
    supported={
        "hidden_act": tuple(sorted(ACTIVATIONS)),
        "pooler_hidden_act": tuple(sorted(ACTIVATIONS)),
    },
    dropout_keys=(
        "hidden_dropout_prob",
        "attention_probs_dropout_prob",
        "pooler_dropout",
        "cls_dropout",
    ),
    backbone=_backbone,
    weights=_weights,
    heads=deberta_heads,
    check=check_sizes,
)
