"""Random configurations of every family of decoders, as transformers spells them.

Drawn are the keys that PyTorch's classes read, with values that they can run: heads of an even
size, and a padding token, without which PyTorch classifies no batch of texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Choose = Callable[[Sequence[Any]], Any]

# fmt: off
ACTIVATIONS = [
    "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "quick_gelu", "relu", "relu6",
    "silu", "tanh", "sigmoid", "leaky_relu", "mish", "relu2", "linear",
]
# fmt: on
DROPOUT = [0.0, 0.1, 0.5]
POSITIONS = [16, 17, 48]


def _gpt2(choose: Choose) -> dict[str, Any]:
    heads = choose([1, 2, 3])
    return {
        "vocab_size": choose([7, 40, 101]),
        "n_embd": heads * choose([4, 7, 8] if heads > 1 else [8, 13]),
        "n_head": heads,
        "n_layer": choose([1, 2, 3]),
        "n_inner": choose([None, 5, 33]),
        "n_positions": choose(POSITIONS),
        "activation_function": choose(ACTIVATIONS),
        "layer_norm_epsilon": choose([1e-7, 1e-5, 1e-2]),
        "resid_pdrop": choose(DROPOUT),
        "embd_pdrop": choose(DROPOUT),
        "attn_pdrop": choose(DROPOUT),
        "pad_token_id": choose([0, 3]),
        "tie_word_embeddings": choose([True, False]),
        **choose([{}, {"classifier_dropout": choose([0.0, 0.4])}]),
    }


def _rope(choose: Choose, positions: int) -> dict[str, Any]:
    """Rotary positions in the words of transformers 5 or of earlier releases."""
    theta, factor = choose([10.0, 1000.0, 160000.0]), choose([1.5, 4.0])
    original = {"original_max_position_embeddings": positions // 2}
    scaling = choose(
        [
            {"rope_type": "default"},
            {"rope_type": "linear", "factor": factor},
            {"rope_type": "dynamic", "factor": factor},
            {"rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0}
            | {"high_freq_factor": choose([2.0, 4.0])}
            | original,
            {"rope_type": "yarn", "factor": factor} | original,
            {"rope_type": "yarn", "factor": factor, "beta_fast": 8.0, "beta_slow": 2.0} | original,
            {"rope_type": "yarn", "factor": factor, "attention_factor": 0.7} | original,
        ]
    )
    return choose(
        [
            {},
            {"rope_theta": theta},
            {"rope_parameters": {**scaling, "rope_theta": theta}},
            {"rope_theta": theta, "rope_scaling": scaling},
        ]
    )


def _llama(choose: Choose) -> dict[str, Any]:
    groups, each, positions = choose([1, 2]), choose([1, 2, 3]), choose(POSITIONS)
    heads, size = groups * each, choose([4, 6, 8])
    return {
        "vocab_size": choose([7, 40, 101]),
        "hidden_size": heads * size,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "num_hidden_layers": choose([1, 2, 3]),
        "intermediate_size": choose([5, 16, 33]),
        "max_position_embeddings": positions,
        "hidden_act": choose(ACTIVATIONS),
        "rms_norm_eps": choose([1e-7, 1e-5, 1e-2]),
        "attention_dropout": choose(DROPOUT),
        "pad_token_id": choose([0, 3]),
        "tie_word_embeddings": choose([True, False]),
        "attention_bias": choose([True, False]),
        "mlp_bias": choose([True, False]),
        **choose([{}, {"head_dim": choose([4, 10])}]),
        **_rope(choose, positions),
    }


def _mistral(choose: Choose) -> dict[str, Any]:
    return _llama(choose) | {"sliding_window": choose([None, 2, 5, 4096])}


def _qwen2(choose: Choose) -> dict[str, Any]:
    config = _llama(choose) | {
        "use_sliding_window": choose([True, False]),
        "sliding_window": choose([None, 2, 5]),
        "max_window_layers": choose([0, 1, 2]),
    }
    config.pop("head_dim", None)
    kinds = ["full_attention", "sliding_attention"]
    listed = {"layer_types": [choose(kinds) for _ in range(config["num_hidden_layers"])]}
    windowed = config["use_sliding_window"] and config["sliding_window"]
    return config | (choose([{}, listed]) if windowed else {})  # else PyTorch cannot run them


def _qwen3(choose: Choose) -> dict[str, Any]:
    return _qwen2(choose) | {"head_dim": choose([4, 6, 10])}


DECODER_DRAWS: dict[str, Callable[[Choose], dict[str, Any]]] = {
    "gpt2": _gpt2,
    "llama": _llama,
    "mistral": _mistral,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
}
