"""ModernBERT (Warner et al. 2024, arXiv:2412.13663): equal to `transformers.ModernBertModel`.

It has rotary positions, gated feed-forward layers, and sliding-window attention in most blocks.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from finetune_tf.architectures import (
    AttentionMask,
    Backbone,
    Embeddings,
    EncoderBlock,
    FeedForward,
    LayerNorm,
    MultiHeadAttention,
    RotaryPositions,
    Transform,
    encoder,
)
from finetune_tf.families import config_values as values
from finetune_tf.families.bert import TOKEN_EMBEDDINGS
from finetune_tf.families.family import Family, Head, unsupported
from finetune_tf.families.rotary import ROPE, check_rope_type, check_rotary_heads, is_rope
from finetune_tf.kernels import ACTIVATIONS
from finetune_tf.weights.table import Weight, block, embedding, linear, norm

_FULL, _SLIDING = "full_attention", "sliding_attention"
_BLOCK = {
    "attention/query_key_value": "attn.Wqkv",
    "attention/output": "attn.Wo",
    "attention_norm": "attn_norm",
    "feed_forward/intermediate": "mlp.Wi",
    "feed_forward/output": "mlp.Wo",
    "feed_forward_norm": "mlp_norm",
}


def _layer_types(config: dict) -> list[str]:
    """Returns the attention type of each block; older configs define only the period."""
    layers, period = config["num_hidden_layers"], config["global_attn_every_n_layers"]
    types = config.get("layer_types") or [_SLIDING if i % period else _FULL for i in range(layers)]
    if len(types) != layers or not set(types) <= {_FULL, _SLIDING}:
        raise unsupported(config, "layer_types", f"{layers} times {_FULL!r} or {_SLIDING!r}")
    return types


def _rope_theta(config: dict, layer_type: str) -> float:
    """Returns the base of the rotary positions, which older configs define in separate keys."""
    rope = (config.get("rope_parameters") or {}).get(layer_type) or {}
    rope = {**rope, **(config.get("rope_scaling") or {})}
    if (theta := rope.get("rope_theta")) is not None:
        return theta
    # An older config may define no separate base for sliding windows.
    full, local = config["global_rope_theta"], config["local_rope_theta"]
    return full if layer_type == _FULL or local is None else local


def _is_rope_by_type(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return value is None
    return set(value) <= {_FULL, _SLIDING} and all(map(is_rope, value.values()))


def _check(config: dict) -> None:
    check_rotary_heads(config)
    _layer_types(config)
    for rope in (config.get("rope_parameters") or {}).values():
        check_rope_type(config, "rope_parameters", rope)
    check_rope_type(config, "rope_scaling", config.get("rope_scaling"))


def _backbone(config: dict, dtype: Any) -> Backbone:
    size, heads = config["hidden_size"], config["num_attention_heads"]
    common = {"initializer_range": config["initializer_range"], "dtype": dtype}
    norms = {"layer_norm_eps": config["norm_eps"], "norm_bias": config["norm_bias"]}
    embeddings = Embeddings(
        config["vocab_size"],
        size,
        max_positions=0,
        type_vocab_size=0,
        dropout=config["embedding_dropout"],
        padding_idx=config["pad_token_id"],
        **norms,
        **common,
        name="embeddings",
    )
    types = _layer_types(config)
    windows = {_FULL: None, _SLIDING: config.get("sliding_window", config["local_attention"] // 2)}
    masks = {kind: AttentionMask(window=windows[kind], name=f"{kind}_mask") for kind in windows}
    positions = {
        kind: RotaryPositions(size // heads, _rope_theta(config, kind), name=f"{kind}_positions")
        for kind in windows
    }
    blocks = []
    for i in range(len(types)):
        attention = MultiHeadAttention(
            size,
            heads,
            config["attention_dropout"],
            use_bias=config["attention_bias"],
            fused=True,
            rotary=True,
            **common,
            name="attention",
        )
        feed_forward = FeedForward(
            config["intermediate_size"],
            size,
            config["hidden_activation"],
            gated="second_half",
            use_bias=config["mlp_bias"],
            dropout=config["mlp_dropout"],
            **common,
            name="feed_forward",
        )
        blocks.append(
            EncoderBlock(
                attention,
                feed_forward,
                dropout=0.0,
                attention_output_dropout=config["attention_dropout"],
                norm_first=True,
                has_attention_norm=i > 0,
                **norms,
                dtype=dtype,
                name=f"block_{i}",
            )
        )
    final_norm = LayerNorm(config["norm_eps"], config["norm_bias"], dtype=dtype, name="final_norm")
    return encoder(
        embeddings,
        blocks,
        [masks[kind] for kind in types],
        [positions[kind] for kind in types],
        final_norm,
    )


def _weights(config: dict) -> list[Weight]:
    table = [
        *embedding("embeddings.tok_embeddings", "embeddings/word"),
        *norm("embeddings.norm", "embeddings/norm"),
        *norm("final_norm", "final_norm"),
    ]
    for i in range(config["num_hidden_layers"]):
        table += block(f"layers.{i}", f"block_{i}", _BLOCK)
    return table


def _heads(config: dict) -> dict[str, Head]:
    dropout = config["classifier_dropout"]

    def transform(name: str) -> tuple[list[Weight], partial]:
        """Returns rows and factory of the layer below the output layer, the same in all tasks."""
        rows = [*linear("head.dense", f"{name}/dense"), *norm("head.norm", f"{name}/norm")]
        return rows, partial(
            Transform,
            config["hidden_size"],
            config["classifier_activation"],
            initializer_range=config["initializer_range"],
            use_bias=config["classifier_bias"],
            layer_norm_eps=config["norm_eps"],
            norm_bias=config["norm_bias"],
            name=name,
        )

    classifier = linear("classifier", "classifier/dense")
    pooler_rows, pooler = transform("pooler")
    rows, below = transform("transform")
    token_head = Head([*rows, *classifier], dropout, below)
    bias = [Weight("decoder.bias", "vocabulary_bias/bias")] if config["decoder_bias"] else []
    return {
        "text-classification": Head(
            [*pooler_rows, *classifier], dropout, pooler, config["classifier_pooling"]
        ),
        "token-classification": token_head,
        "question-answering": token_head,
        "fill-mask": Head(
            [*rows, *bias, Weight("decoder.weight", None, tied_to=TOKEN_EMBEDDINGS)],
            transform=below,
        ),
        "feature-extraction": Head(),
    }


MODERNBERT = Family(
    model_type="modernbert",
    class_prefix="ModernBert",
    tensor_prefix="model",
    defaults={
        "vocab_size": 50368,
        "hidden_size": 768,
        "intermediate_size": 1152,
        "num_hidden_layers": 22,
        "num_attention_heads": 12,
        "hidden_activation": "gelu",
        "max_position_embeddings": 8192,
        "initializer_range": 0.02,
        "norm_eps": 1e-5,
        "norm_bias": False,
        "pad_token_id": 50283,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "global_attn_every_n_layers": 3,
        "global_rope_theta": 160_000.0,
        "local_rope_theta": 10_000.0,
        "local_attention": 128,
        "embedding_dropout": 0.0,
        "mlp_bias": False,
        "mlp_dropout": 0.0,
        "decoder_bias": True,
        "classifier_pooling": "cls",
        "classifier_dropout": 0.0,
        "classifier_bias": False,
        "classifier_activation": "gelu",
    },
    rules={
        "vocab_size": values.VOCABULARY,
        "hidden_size": values.FEATURES,
        "intermediate_size": values.INTERMEDIATE,
        "num_hidden_layers": values.DEPTH,
        "num_attention_heads": values.FEATURES,
        "hidden_activation": values.STRING,
        "max_position_embeddings": values.POSITIONS,
        "initializer_range": values.STDDEV,
        "norm_eps": values.EPSILON,
        "norm_bias": values.BOOLEAN,
        "pad_token_id": values.TOKEN_ID_OR_NULL,
        "attention_bias": values.BOOLEAN,
        "attention_dropout": values.RATE,
        "global_attn_every_n_layers": values.POSITIONS,
        "global_rope_theta": values.THETA,
        "local_rope_theta": values.THETA_OR_NULL,
        "local_attention": values.POSITIONS,
        "sliding_window": values.integer(1_000_000, 0, nullable=True),
        "layer_types": values.Predicate(
            "a list of strings, or null", lambda v: v is None or values.STRINGS.accepts(v)
        ),
        "rope_parameters": values.Predicate(
            f'settings by layer type, {{"{_FULL}": {{"rope_theta": 160000.0}}, "{_SLIDING}": …}}, '
            "or null",
            _is_rope_by_type,
        ),
        "rope_scaling": ROPE,
        "embedding_dropout": values.RATE,
        "mlp_bias": values.BOOLEAN,
        "mlp_dropout": values.RATE,
        "decoder_bias": values.BOOLEAN,
        "classifier_pooling": values.STRING,
        "classifier_dropout": values.RATE,
        "classifier_bias": values.BOOLEAN,
        "classifier_activation": values.STRING,
    },
    supported={
        "hidden_activation": tuple(sorted(ACTIVATIONS)),
        "classifier_activation": tuple(sorted(ACTIVATIONS)),
        "classifier_pooling": ("cls", "mean"),
    },
    dropout_keys=("attention_dropout", "embedding_dropout", "mlp_dropout", "classifier_dropout"),
    backbone=_backbone,
    weights=_weights,
    heads=_heads,
    check=_check,
)
