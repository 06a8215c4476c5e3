"""One small odd configuration of every family of encoders, as transformers spells them."""

from __future__ import annotations

from typing import Any

_SMALL = {
    "vocab_size": 23,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 13,
    "max_position_embeddings": 17,
    "layer_norm_eps": 1e-4,
}

_DECODER = {
    "vocab_size": 23,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 13,
    "max_position_embeddings": 17,
    "rms_norm_eps": 1e-4,
    "pad_token_id": 3,
}

_ENCODER_DECODER = {
    "vocab_size": 23,
    "d_model": 12,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 13,
    "decoder_ffn_dim": 11,
    "max_position_embeddings": 17,
    "pad_token_id": 3,
    "eos_token_id": 2,
    "decoder_start_token_id": 5,
    "forced_eos_token_id": None,
}

_T5 = {
    "vocab_size": 23,
    "d_model": 12,
    "d_kv": 5,
    "d_ff": 13,
    "num_layers": 2,
    "num_heads": 3,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 12,
    "layer_norm_epsilon": 1e-4,
    "pad_token_id": 3,
    "eos_token_id": 2,
    "decoder_start_token_id": 5,
}

FIXED: dict[str, dict[str, Any]] = {
    "bert": _SMALL | {"hidden_act": "quick_gelu", "type_vocab_size": 3, "pad_token_id": 5},
    "distilbert": {
        "vocab_size": 23,
        "dim": 15,
        "n_layers": 2,
        "n_heads": 5,
        "hidden_dim": 14,
        "max_position_embeddings": 13,
        "activation": "mish",
        "pad_token_id": 2,
        "sinusoidal_pos_embds": True,
    },
    "roberta": _SMALL | {"hidden_act": "relu6", "type_vocab_size": 1, "pad_token_id": 3},
    "xlm-roberta": _SMALL | {"hidden_act": "leaky_relu", "type_vocab_size": 2},
    "camembert": _SMALL | {"hidden_act": "tanh", "type_vocab_size": 3, "pad_token_id": 0},
    "electra": _SMALL | {"hidden_act": "relu2", "embedding_size": 11, "type_vocab_size": 3},
    # Five layers in two groups of unequal size, each of two layers of its own.
    "albert": _SMALL
    | {
        "hidden_act": "gelu_fast",
        "hidden_size": 8,
        "num_attention_heads": 2,
        "intermediate_size": 9,
        "embedding_size": 7,
        "num_hidden_layers": 5,
        "num_hidden_groups": 2,
        "inner_group_num": 2,
        "type_vocab_size": 1,
        "pad_token_id": 3,
    },
    "mpnet": _SMALL | {"hidden_act": "silu", "max_position_embeddings": 48},
    "deberta": _SMALL
    | {
        "hidden_act": "gelu_new",
        "embedding_size": 9,
        "type_vocab_size": 3,
        "relative_attention": True,
        "max_relative_positions": 7,
        "pos_att_type": ["c2p", "p2c"],
        "pooler_hidden_act": "sigmoid",
        "talking_head": True,
        "pad_token_id": 4,
    },
    "deberta-v2": _SMALL
    | {
        "hidden_act": "gelu_pytorch_tanh",
        "max_position_embeddings": 48,
        "type_vocab_size": 0,
        "relative_attention": True,
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
        "position_biased_input": False,
        "pos_att_type": "p2c|c2p",
        "conv_kernel_size": 3,
        "conv_groups": 3,
        "conv_act": "silu",
        "pooler_hidden_act": "tanh",
        "legacy": False,
    },
    "modernbert": {
        "vocab_size": 23,
        "hidden_size": 12,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "intermediate_size": 11,
        "max_position_embeddings": 17,
        "hidden_activation": "sigmoid",
        "norm_eps": 1e-3,
        "norm_bias": True,
        "attention_bias": True,
        "mlp_bias": True,
        "classifier_bias": True,
        "classifier_activation": "silu",
        "classifier_pooling": "mean",
        "local_attention": 4,
        "global_attn_every_n_layers": 2,
        "global_rope_theta": 500.0,
        "local_rope_theta": 30.0,
        **dict.fromkeys(["bos_token_id", "cls_token_id", "eos_token_id", "sep_token_id"], 1),
        "pad_token_id": 2,
    },
    "nomic_bert": _SMALL
    | {
        "hidden_act": "gelu_fast",
        "type_vocab_size": 3,
        "pad_token_id": 4,
        "rope_parameters": {"rope_type": "default", "rope_theta": 40.0},
    },
    "gte": _SMALL
    | {
        "hidden_act": "mish",
        "type_vocab_size": 2,
        "pad_token_id": 3,
        "rope_parameters": {"rope_type": "default", "rope_theta": 20.0},
    },
    "eurobert": _DECODER
    | {
        "hidden_act": "gelu_fast",
        "num_key_value_heads": 2,
        "head_dim": 6,
        "attention_bias": True,
        "mlp_bias": True,
        "classifier_pooling": "late",
        **dict.fromkeys(["bos_token_id", "eos_token_id", "mask_token_id"], 1),
        "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 30.0},
    },
    "gpt2": {
        "vocab_size": 23,
        "n_embd": 12,
        "n_layer": 2,
        "n_head": 3,
        "n_inner": 13,
        "n_positions": 17,
        "activation_function": "gelu_fast",
        "layer_norm_epsilon": 1e-4,
        "pad_token_id": 5,
        "tie_word_embeddings": False,
    },
    "llama": _DECODER
    | {
        "hidden_act": "gelu_new",
        "num_key_value_heads": 2,
        "head_dim": 6,
        "attention_bias": True,
        "mlp_bias": True,
        "tie_word_embeddings": True,
        "rope_theta": 30.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8,
        },
    },
    "mistral": _DECODER
    | {
        "num_key_value_heads": 1,
        "sliding_window": 4,
        "rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 50.0},
    },
    "qwen2": _DECODER
    | {
        "hidden_act": "relu2",
        "num_key_value_heads": 4,
        "use_sliding_window": True,
        "sliding_window": 3,
        "max_window_layers": 1,
        "rope_parameters": {
            "rope_type": "yarn",
            "factor": 2.0,
            "rope_theta": 100.0,
            "original_max_position_embeddings": 9,
        },
    },
    "qwen3": _DECODER
    | {
        "num_key_value_heads": 2,
        "head_dim": 6,
        "attention_bias": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 20.0},
    },
    "t5": _T5 | {"feed_forward_proj": "relu"},
    "mt5": _T5 | {"feed_forward_proj": "gated-gelu"},
    "bart": _ENCODER_DECODER | {"activation_function": "gelu_fast", "scale_embedding": True},
    "mbart": _ENCODER_DECODER | {"activation_function": "relu", "tie_word_embeddings": True},
    "pegasus": _ENCODER_DECODER
    | {"activation_function": "silu", "scale_embedding": True, "tie_word_embeddings": False},
    "marian": _ENCODER_DECODER
    | {
        "activation_function": "swish",
        "scale_embedding": True,
        "share_encoder_decoder_embeddings": False,
        "decoder_vocab_size": 29,
    },
}


def fixed_config(family: str, task: str) -> dict[str, Any]:
    """The family's own configuration in `FIXED`, with three classes where there are classes."""
    classes = {"num_labels": 3} if task.endswith("classification") else {}
    return FIXED[family] | classes
