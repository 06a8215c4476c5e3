"""GPT-2 (Radford et al. 2019) and DistilGPT-2: transformers' GPT2LMHeadModel and its kin."""

from typing import Any

from finetune_tf.architectures import AttentionMask, Backbone, Embeddings, bert_block, encoder
from finetune_tf.architectures.layers import LayerNorm
from finetune_tf.families import config_values as values
from finetune_tf.families.bert import TOKEN_EMBEDDINGS
from finetune_tf.families.family import Family, Head, require_divisor
from finetune_tf.kernels import ACTIVATIONS
from finetune_tf.weights.conversions import KERNEL
from finetune_tf.weights.table import Weight, embedding, linear, norm

_BLOCK = {
    "attention/query_key_value": "attn.c_attn",
    "attention/output": "attn.c_proj",
    "feed_forward/intermediate": "mlp.c_fc",
    "feed_forward/output": "mlp.c_proj",
}


def _backbone(config: dict, dtype: Any) -> Backbone:
    size, depth = config["n_embd"], config["n_layer"]
    embeddings = Embeddings(
        vocab_size=config["vocab_size"],
        hidden_size=size,
        max_positions=config["n_positions"],
        type_vocab_size=0,
        dropout=config["embd_pdrop"],
        initializer_range=config["initializer_range"],
        has_norm=False,
        dtype=dtype,
        name="embeddings",
    )
    blocks = [
        bert_block(
            hidden_size=size,
            num_heads=config["n_head"],
            intermediate_size=config["n_inner"] or 4 * size,
            activation=config["activation_function"],
            attention_dropout=config["attn_pdrop"],
            dropout=config["resid_pdrop"],
            layer_norm_eps=config["layer_norm_epsilon"],
            initializer_range=config["initializer_range"],
            attention_options={"fused": True},
            norm_first=True,
            dtype=dtype,
            name=f"block_{i}",
        )
        for i in range(depth)
    ]
    final_norm = LayerNorm(config["layer_norm_epsilon"], dtype=dtype, name="final_norm")
    mask = AttentionMask(causal=True, name="mask")
    return encoder(embeddings, blocks, masks=[mask] * depth, final_norm=final_norm)


def _weights(config: dict) -> list[Weight]:
    table = [
        *embedding("wte", "embeddings/word"),
        *embedding("wpe", "embeddings/position"),
        *norm("ln_f", "final_norm"),
    ]
    for i in range(config["n_layer"]):
        module, layer = f"h.{i}", f"block_{i}"
        table += norm(f"{module}.ln_1", f"{layer}/attention_norm")
        table += norm(f"{module}.ln_2", f"{layer}/feed_forward_norm")
        # Buffers with the causal mask, stored by old releases.
        table += [Weight(f"{module}.attn.{name}", None) for name in ("bias", "masked_bias")]
        for ours, theirs in _BLOCK.items():
            # PyTorch's Conv1D keeps its kernels as Keras does, (inputs, outputs).
            table += [
                Weight(f"{module}.{theirs}.weight", f"{layer}/{ours}/kernel"),
                Weight(f"{module}.{theirs}.bias", f"{layer}/{ours}/bias"),
            ]
    return table


def language_model_head(config: dict) -> Head:
    """The head of a causal language model, tied to the token embeddings or not."""
    if config["tie_word_embeddings"]:
        return Head([Weight("lm_head.weight", None, tied_to=TOKEN_EMBEDDINGS)])
    return Head([Weight("lm_head.weight", "lm_head/dense/kernel", KERNEL)], tied=False)


def _heads(config: dict) -> dict[str, Head]:
    score = [Weight("score.weight", "classifier/dense/kernel", KERNEL)]
    dropout = config.get("classifier_dropout")
    dropout = config.get("hidden_dropout", 0.1) if dropout is None else dropout
    return {
        "text-generation": language_model_head(config),
        "text-classification": Head(score, pooling="last", output_bias=False),
        "token-classification": Head(linear("classifier", "classifier/dense"), dropout),
        "question-answering": Head(linear("qa_outputs", "classifier/dense")),
        "feature-extraction": Head(),
    }


GPT2 = Family(
    model_type="gpt2",
    class_prefix="GPT2",
    class_names={"ForCausalLM": "GPT2LMHeadModel"},
    tensor_prefix="transformer",
    defaults={
        "vocab_size": 50257,
        "n_positions": 1024,
        "n_embd": 768,
        "n_layer": 12,
        "n_head": 12,
        "n_inner": None,
        "activation_function": "gelu_new",
        "resid_pdrop": 0.1,
        "embd_pdrop": 0.1,
        "attn_pdrop": 0.1,
        "layer_norm_epsilon": 1e-5,
        "initializer_range": 0.02,
        "pad_token_id": None,
        "tie_word_embeddings": True,
    },
    rules={
        "vocab_size": values.VOCABULARY,
        "n_positions": values.POSITIONS,
        "n_embd": values.FEATURES,
        "n_layer": values.DEPTH,
        "n_head": values.FEATURES,
        "n_inner": values.integer(1_000_000, nullable=True),
        "activation_function": values.STRING,
        "resid_pdrop": values.RATE,
        "embd_pdrop": values.RATE,
        "attn_pdrop": values.RATE,
        "classifier_dropout": values.RATE_OR_NULL,
        "hidden_dropout": values.RATE,
        "layer_norm_epsilon": values.EPSILON,
        "initializer_range": values.STDDEV,
        "pad_token_id": values.TOKEN_ID_OR_NULL,
        "tie_word_embeddings": values.COMMON["tie_word_embeddings"],
    },
    supported={
        "activation_function": tuple(sorted(ACTIVATIONS)),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
        "is_causal": (True, None),
    },
    dropout_keys=("resid_pdrop", "embd_pdrop", "attn_pdrop", "classifier_dropout"),
    aliases={
        "hidden_size": "n_embd",
        "max_position_embeddings": "n_positions",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    },
    backbone=_backbone,
    weights=_weights,
    heads=_heads,
    max_length=lambda config: config["n_positions"],
    check=lambda config: require_divisor(config, "n_embd", "n_head"),
)
