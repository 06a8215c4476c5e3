"""Llama (Touvron et al. 2023) and its kin: Mistral, Qwen2 and Qwen3, decoders of one block.

They are transformers' `LlamaForCausalLM`, `MistralForCausalLM`, `Qwen2ForCausalLM` and
`Qwen3ForCausalLM`.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from finetune_tf.architectures import AttentionMask, Backbone, Embeddings, encoder, rotary_block
from finetune_tf.architectures.layers import RMSNorm
from finetune_tf.families import config_values as values
from finetune_tf.families.family import Family, Head, require_divisor, unsupported
from finetune_tf.families.gpt2 import language_model_head
from finetune_tf.families.rotary import ROPE
from finetune_tf.families.rotary_scaling import check_rope, rotary_positions
from finetune_tf.kernels import ACTIVATIONS
from finetune_tf.weights.conversions import KERNEL
from finetune_tf.weights.table import Weight, block, embedding, linear, norm

_BLOCK = {
    "attention/query": "self_attn.q_proj",
    "attention/key": "self_attn.k_proj",
    "attention/value": "self_attn.v_proj",
    "attention/output": "self_attn.o_proj",
    "attention/query_norm": "self_attn.q_norm",
    "attention/key_norm": "self_attn.k_norm",
    "attention_norm": "input_layernorm",
    "feed_forward/intermediate": "mlp.gate_proj",
    "feed_forward/gate": "mlp.up_proj",
    "feed_forward/output": "mlp.down_proj",
    "feed_forward_norm": "post_attention_layernorm",
}


WINDOW = values.integer(1_000_000, nullable=True)
LAYER_TYPES = values.Predicate(
    "a list of 'full_attention' and 'sliding_attention', or null",
    lambda kinds: (
        kinds is None
        or (isinstance(kinds, list) and set(kinds) <= {"full_attention", "sliding_attention"})
    ),
)


def _head_size(config: Mapping[str, Any]) -> int:
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def _no_windows(config: dict) -> list[None]:
    return [None] * config["num_hidden_layers"]


def _one_window(config: dict) -> list[int | None]:
    return [config["sliding_window"]] * config["num_hidden_layers"]


def _upper_windows(config: dict) -> list[int | None]:
    """Qwen's: by default in the blocks from `max_window_layers` on, if at all."""
    window = config["sliding_window"] if config["use_sliding_window"] else None
    kinds = config.get("layer_types")
    if kinds is not None:
        return [window if kind == "sliding_attention" else None for kind in kinds]
    first = config["max_window_layers"]
    return [window if i >= first else None for i in range(config["num_hidden_layers"])]


def llama_backbone(
    config: dict,
    dtype: Any,
    *,
    biases: tuple[str, ...] = ("attention_bias", "mlp_bias"),
    query_bias: bool = False,
    qk_norm: bool = False,
    windows: Callable[[dict], list[int | None]] = _no_windows,
    causal: bool = True,
) -> Backbone:
    """Embeddings, blocks and a last normalisation.

    Args:
        config: Complete.
        dtype: Keras dtype policy.
        biases: The keys about biases that the family reads.
        query_bias: Whether queries, keys and values have a bias whatever the config says.
        qk_norm: Whether queries and keys are normalised.
        windows: Config to the sliding window of each block; None where every earlier token is
            seen.
        causal: Whether a token sees only the tokens before it.
    """
    attention_bias, mlp_bias = (
        key in biases and config[key] for key in ("attention_bias", "mlp_bias")
    )
    epsilon, stddev = config["rms_norm_eps"], config["initializer_range"]
    embeddings = Embeddings(
        vocab_size=config["vocab_size"],
        hidden_size=config["hidden_size"],
        max_positions=0,
        type_vocab_size=0,
        dropout=0.0,
        initializer_range=stddev,
        padding_idx=config["pad_token_id"],
        has_norm=False,
        dtype=dtype,
        name="embeddings",
    )
    attention = {
        "num_kv_heads": config["num_key_value_heads"] or config["num_attention_heads"],
        "head_size": _head_size(config),
        "use_bias": attention_bias or query_bias,
        "output_bias": attention_bias,
        "qk_norm_eps": epsilon if qk_norm else None,
    }
    blocks = [
        rotary_block(
            hidden_size=config["hidden_size"],
            num_heads=config["num_attention_heads"],
            intermediate_size=config["intermediate_size"],
            activation=config["hidden_act"],
            attention_dropout=config["attention_dropout"] or 0.0,
            initializer_range=stddev,
            use_bias=mlp_bias,
            attention_options=attention,
            layer_norm_eps=epsilon,
            dtype=dtype,
            name=f"block_{i}",
        )
        for i in range(config["num_hidden_layers"])
    ]
    seen = windows(config)
    masks = {
        window: AttentionMask(
            causal=causal,
            window=None if window is None else window - 1,
            name="mask" if window is None else "window_mask",
        )
        for window in dict.fromkeys(seen)
    }
    return encoder(
        embeddings,
        blocks,
        masks=[masks[window] for window in seen],
        positions=[rotary_positions(config, _head_size(config))] * len(blocks),
        final_norm=RMSNorm(epsilon, dtype=dtype, name="final_norm"),
    )


def _weights(config: dict) -> list[Weight]:
    table = [*embedding("embed_tokens", "embeddings/word"), *norm("norm", "final_norm")]
    for i in range(config["num_hidden_layers"]):
        table += block(f"layers.{i}", f"block_{i}", _BLOCK)
        # Buffers with the frequencies, stored by old releases.
        table.append(Weight(f"layers.{i}.self_attn.rotary_emb.inv_freq", None))
    return table


def _heads(config: dict) -> dict[str, Head]:
    score = [Weight("score.weight", "classifier/dense/kernel", KERNEL)]
    dropout = config.get("classifier_dropout")
    dropout = config.get("hidden_dropout", 0.1) if dropout is None else dropout
    return {
        "text-generation": language_model_head(config),
        "text-classification": Head(score, pooling="last", output_bias=False),
        "token-classification": Head(linear("score", "classifier/dense"), dropout),
        "feature-extraction": Head(),
    }


def _check(config: dict) -> None:
    if config.get("head_dim") is None:
        require_divisor(config, "hidden_size", "num_attention_heads")
    if config["num_key_value_heads"] is not None:
        heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
        if heads % groups:
            raise unsupported(
                config, "num_key_value_heads", f"a divisor of num_attention_heads, {heads}"
            )
    if _head_size(config) % 2:
        raise unsupported(config, "head_dim", f"heads of an even size, found {_head_size(config)}")
    check_rope(config)


def _check_layer_types(config: dict) -> None:
    _check(config)
    kinds, depth = config.get("layer_types"), config["num_hidden_layers"]
    if kinds is not None and len(kinds) != depth:
        raise unsupported(config, "layer_types", f"one for each of the {depth} layers")
    has_window = config.get("use_sliding_window") and config.get("sliding_window")
    if "sliding_attention" in (kinds or ()) and not has_window:
        raise unsupported(
            config, "layer_types", "'full_attention', since the config has no sliding window"
        )


LLAMA = Family(
    model_type="llama",
    class_prefix="Llama",
    tensor_prefix="model",
    defaults={
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": None,
        "hidden_act": "silu",
        "max_position_embeddings": 2048,
        "initializer_range": 0.02,
        "rms_norm_eps": 1e-6,
        "pad_token_id": None,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
    },
    rules={
        "vocab_size": values.VOCABULARY,
        "hidden_size": values.FEATURES,
        "intermediate_size": values.INTERMEDIATE,
        "num_hidden_layers": values.DEPTH,
        "num_attention_heads": values.FEATURES,
        "num_key_value_heads": values.FEATURES_OR_NULL,
        "head_dim": values.FEATURES_OR_NULL,
        "hidden_act": values.STRING,
        "max_position_embeddings": values.POSITIONS,
        "initializer_range": values.STDDEV,
        "rms_norm_eps": values.EPSILON,
        "pad_token_id": values.TOKEN_ID_OR_NULL,
        "tie_word_embeddings": values.COMMON["tie_word_embeddings"],
        "attention_bias": values.BOOLEAN,
        "attention_dropout": values.RATE_OR_NULL,
        "mlp_bias": values.BOOLEAN,
        "classifier_dropout": values.RATE_OR_NULL,
        "hidden_dropout": values.RATE,
        "rope_parameters": ROPE,
        "rope_scaling": ROPE,
        "rope_theta": values.THETA_OR_NULL,
    },
    supported={
        "hidden_act": tuple(sorted(ACTIVATIONS)),
        "pretraining_tp": (1, None),
        "is_causal": (True, None),
        "partial_rotary_factor": (None, 1, 1.0),
    },
    dropout_keys=("attention_dropout", "classifier_dropout"),
    backbone=llama_backbone,
    weights=_weights,
    heads=_heads,
    check=_check,
)

MISTRAL = replace(
    LLAMA,
    model_type="mistral",
    class_prefix="Mistral",
    defaults={
        **LLAMA.defaults,
        "intermediate_size": 14336,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "sliding_window": 4096,
    },
    rules={**LLAMA.rules, "sliding_window": WINDOW},
    # With layer_types, transformers makes another model of it (Ministral).
    supported={**LLAMA.supported, "layer_types": (None,)},
    backbone=partial(llama_backbone, biases=(), windows=_one_window),
)

_QWEN = replace(
    LLAMA,
    defaults={
        **LLAMA.defaults,
        "vocab_size": 151936,
        "intermediate_size": 22016,
        "num_key_value_heads": 32,
        "max_position_embeddings": 32768,
        "sliding_window": 4096,
        "use_sliding_window": False,
        "max_window_layers": 28,
    },
    rules={
        **LLAMA.rules,
        "sliding_window": WINDOW,
        "use_sliding_window": values.BOOLEAN,
        "max_window_layers": values.integer(values.MAX_DEPTH, 0),
        "layer_types": LAYER_TYPES,
    },
    check=_check_layer_types,
)

QWEN2 = replace(
    _QWEN,
    model_type="qwen2",
    class_prefix="Qwen2",
    backbone=partial(llama_backbone, biases=(), query_bias=True, windows=_upper_windows),
)

QWEN3 = replace(
    _QWEN,
    model_type="qwen3",
    class_prefix="Qwen3",
    defaults={**_QWEN.defaults, "head_dim": 128},
    backbone=partial(
        llama_backbone, biases=("attention_bias",), qk_norm=True, windows=_upper_windows
    ),
)
