"""Random configurations of every family of encoder-decoders, as transformers spells them.

Left out is what PyTorch's classes read and cannot run: numbers of blocks that differ between the
sides, with which `generate` fails, are drawn only where nothing is generated.
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


def _t5(choose: Choose) -> dict[str, Any]:
    return {
        "vocab_size": choose([7, 40, 101]),
        "d_model": choose([8, 13, 24]),
        "d_kv": choose([3, 4, 9]),
        "d_ff": choose([5, 33]),
        "num_layers": choose([1, 2, 3]),
        "num_decoder_layers": choose([None, 1, 2]),
        "num_heads": choose([1, 2, 3]),
        "relative_attention_num_buckets": choose([4, 8, 32]),
        "relative_attention_max_distance": choose([20, 128]),
        "layer_norm_epsilon": choose([1e-7, 1e-6, 1e-2]),
        "dropout_rate": choose(DROPOUT),
        "feed_forward_proj": choose(["relu", "gated-gelu", "gated-silu", "gelu", "tanh"]),
        "pad_token_id": choose([0, 3]),
        "eos_token_id": choose([1, 2]),
        "decoder_start_token_id": choose([0, 5]),
        **choose([{}, {"tie_word_embeddings": choose([True, False])}]),
    }


def _bart(choose: Choose) -> dict[str, Any]:
    heads = {side: choose([1, 2, 3]) for side in ("encoder", "decoder")}
    config = {
        "vocab_size": choose([7, 40, 101]),
        "d_model": 6 * choose([1, 2, 4]),
        "max_position_embeddings": choose([17, 48]),
        "activation_function": choose(ACTIVATIONS),
        "dropout": choose(DROPOUT),
        "attention_dropout": choose(DROPOUT),
        "activation_dropout": choose(DROPOUT),
        "scale_embedding": choose([True, False]),
        "pad_token_id": choose([0, 3]),
        "eos_token_id": choose([1, 2]),
        "decoder_start_token_id": choose([0, 5]),
        "forced_eos_token_id": None,
        "tie_word_embeddings": choose([True, True, False]),
    }
    for side, number in heads.items():
        config[f"{side}_attention_heads"] = number
        config[f"{side}_layers"] = choose([1, 2, 3])
        config[f"{side}_ffn_dim"] = choose([5, 33])
    return config


def _marian(choose: Choose) -> dict[str, Any]:
    shared = choose([True, False])
    config = _bart(choose) | {"share_encoder_decoder_embeddings": shared}
    return config | ({} if shared else {"decoder_vocab_size": choose([11, 50])})


ENCODER_DECODER_DRAWS: dict[str, Callable[[Choose], dict[str, Any]]] = {
    "t5": _t5,
    "mt5": _t5,
    "bart": _bart,
    "mbart": _bart,
    "pegasus": _bart,
    "marian": _marian,
}
