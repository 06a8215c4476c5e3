"""T5 (Raffel et al. 2020) with its later versions 1.1 and FLAN, and mT5 (Xue et al. 2021).

They are transformers' `T5ForConditionalGeneration` and `MT5ForConditionalGeneration`.
"""

from dataclasses import replace
from typing import Any

import keras

from finetune_tf.architectures import (
    AttentionMask,
    Backbone,
    Embeddings,
    RelativePositionBias,
    RMSNorm,
    Side,
    bert_block,
    encoder_decoder,
)
from finetune_tf.families import config_values as values
from finetune_tf.families.bert import TOKEN_EMBEDDINGS
from finetune_tf.families.family import Family, Head, unsupported
from finetune_tf.kernels import ACTIVATIONS
from finetune_tf.weights.conversions import KERNEL
from finetune_tf.weights.table import Weight, embedding
from finetune_tf.weights.tensors import Tensors

_ATTENTION = {"query": "q", "key": "k", "value": "v", "output": "o"}


def _activation(config: dict) -> tuple[str, bool]:
    """Returns the activation of the feed-forward sublayer, and whether it is gated."""
    kind = config["feed_forward_proj"]
    if kind == "gated-gelu":
        return "gelu_new", True
    return kind.removeprefix("gated-"), kind.startswith("gated-")


def _is_scaled(config: dict) -> bool:
    """Whether the decoder's output is scaled before the head, as with the tied head of T5 1.0."""
    return config.get("scale_decoder_outputs", config["tie_word_embeddings"])


def _depth(side: str, config: dict) -> int:
    depth = config["num_decoder_layers"] if side == "decoder" else None
    return config["num_layers"] if depth is None else depth


def _backbone(config: dict, dtype: Any) -> Backbone:
    size, rate, epsilon = config["d_model"], config["dropout_rate"], config["layer_norm_epsilon"]
    stddev = min(1.0, config["initializer_factor"] * size**-0.5)
    activation, gated = _activation(config)
    embeddings = Embeddings(
        vocab_size=config["vocab_size"],
        hidden_size=size,
        max_positions=0,
        type_vocab_size=0,
        dropout=rate,
        initializer_range=config["initializer_factor"],
        has_norm=False,
        dtype=dtype,
        name="embeddings",
    )

    def side(name: str, is_decoder: bool) -> Side:
        blocks = [
            bert_block(
                hidden_size=size,
                num_heads=config["num_heads"],
                intermediate_size=config["d_ff"],
                activation=activation,
                attention_dropout=rate,
                attention_options={
                    "head_size": config["d_kv"],
                    "use_bias": False,
                    "scaled": False,
                },
                feed_forward_options={
                    "gated": "apart" if gated else None,
                    "use_bias": False,
                    "dropout": rate,
                },
                dropout=rate,
                initializer_range=stddev,
                layer_norm_eps=epsilon,
                norm_first=True,
                rms_norm=True,
                has_cross_attention=is_decoder,
                dtype=dtype,
                name=f"{name}_block_{i}",
            )
            for i in range(_depth(name, config))
        ]
        positions = RelativePositionBias(
            config["num_heads"],
            num_buckets=config["relative_attention_num_buckets"],
            used_buckets=config["relative_attention_num_buckets"],
            max_distance=config["relative_attention_max_distance"],
            initializer_range=stddev,
            bidirectional=not is_decoder,
            dtype=dtype,
            name=f"{name}_positions",
        )
        mask = AttentionMask(causal=is_decoder, name=f"{name}_mask")
        end = [
            RMSNorm(epsilon, dtype=dtype, name=f"{name}_norm"),
            keras.layers.Dropout(rate, dtype=dtype, name=f"{name}_dropout"),
        ]
        if is_decoder and _is_scaled(config):
            end.append(keras.layers.Rescaling(size**-0.5, dtype=dtype, name="decoder_scale"))
        return Side(embeddings, blocks, mask, positions=positions, end=end)

    return encoder_decoder(side("encoder", False), side("decoder", True))


def _weights(config: dict) -> list[Weight]:
    table = embedding("shared", "embeddings/word")
    _, gated = _activation(config)
    intermediate = {"intermediate": "wi_0", "gate": "wi_1"} if gated else {"intermediate": "wi"}
    for side in ("encoder", "decoder"):
        table += [
            Weight(f"{side}.embed_tokens.weight", None, tied_to=TOKEN_EMBEDDINGS),
            Weight(f"{side}.final_layer_norm.weight", f"{side}_norm/gamma"),
            Weight(
                f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
                f"{side}_positions/table/embeddings",
            ),
        ]
        attentions = {"attention": "SelfAttention"}
        if side == "decoder":
            attentions["cross_attention"] = "EncDecAttention"
        for i in range(_depth(side, config)):
            layer, module = f"{side}_block_{i}", f"{side}.block.{i}.layer"
            for j, (ours, theirs) in enumerate(attentions.items()):
                table += _linear(f"{module}.{j}.{theirs}", f"{layer}/{ours}", _ATTENTION)
                table.append(
                    Weight(f"{module}.{j}.layer_norm.weight", f"{layer}/{ours}_norm/gamma")
                )
            last = f"{module}.{len(attentions)}"
            parts = {**intermediate, "output": "wo"}
            table += _linear(f"{last}.DenseReluDense", f"{layer}/feed_forward", parts)
            table.append(Weight(f"{last}.layer_norm.weight", f"{layer}/feed_forward_norm/gamma"))
    # Stored by old releases, although the cross-attention has no positions.
    unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    return [*table, Weight(unused, None)]


def _linear(module: str, layer: str, parts: dict[str, str]) -> list[Weight]:
    return [
        Weight(f"{module}.{theirs}.weight", f"{layer}/{ours}/kernel", KERNEL)
        for ours, theirs in parts.items()
    ]


def _heads(config: dict) -> dict[str, Head]:
    if config["tie_word_embeddings"]:
        decoder = Weight("lm_head.weight", None, tied_to=TOKEN_EMBEDDINGS)
    else:
        decoder = Weight("lm_head.weight", "lm_head/dense/kernel", KERNEL)
    head = Head([decoder], tied=config["tie_word_embeddings"])
    return dict.fromkeys(("text2text-generation", "translation", "summarization"), head)


def _complete_from_weights(config: dict, tensors: Tensors) -> dict:
    """Decides by the weights whether the head is tied, as transformers does.

    In config.json, `tie_word_embeddings` says whether the decoder's output is scaled.
    """
    config = {**config, "scale_decoder_outputs": _is_scaled(config)}
    if "shared.weight" in tensors:
        head = tensors.get("lm_head.weight")
        config["tie_word_embeddings"] = head is None or head.equals(tensors["shared.weight"])
    return config


def _check(config: dict) -> None:
    if _activation(config)[0] not in ACTIVATIONS:
        supported = f"'relu', 'gated-gelu', and others of {', '.join(sorted(ACTIVATIONS))}"
        raise unsupported(config, "feed_forward_proj", supported)


T5 = Family(
    model_type="t5",
    class_prefix="T5",
    tensor_prefix="",
    defaults={
        "vocab_size": 32128,
        "d_model": 512,
        "d_kv": 64,
        "d_ff": 2048,
        "num_layers": 6,
        "num_decoder_layers": None,
        "num_heads": 8,
        "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128,
        "dropout_rate": 0.1,
        "layer_norm_epsilon": 1e-6,
        "initializer_factor": 1.0,
        "feed_forward_proj": "relu",
        "pad_token_id": 0,
        "eos_token_id": 1,
        "decoder_start_token_id": 0,
        "is_encoder_decoder": True,
        "tie_word_embeddings": True,
    },
    rules={
        "vocab_size": values.VOCABULARY,
        "d_model": values.FEATURES,
        "d_kv": values.FEATURES,
        "d_ff": values.INTERMEDIATE,
        "num_layers": values.DEPTH,
        "num_decoder_layers": values.integer(values.MAX_DEPTH, nullable=True),
        "num_heads": values.FEATURES,
        "relative_attention_num_buckets": values.FEATURES,
        "relative_attention_max_distance": values.POSITIONS,
        "dropout_rate": values.RATE,
        "layer_norm_epsilon": values.EPSILON,
        "initializer_factor": values.STDDEV,
        "feed_forward_proj": values.STRING,
        "scale_decoder_outputs": values.BOOLEAN,
        "pad_token_id": values.TOKEN_ID,
        "eos_token_id": values.TOKEN_IDS,
        "decoder_start_token_id": values.TOKEN_ID_OR_NULL,
        "is_encoder_decoder": values.BOOLEAN,
        "tie_word_embeddings": values.BOOLEAN,
    },
    supported={"is_encoder_decoder": (True, None)},
    dropout_keys=("dropout_rate",),
    aliases={
        "hidden_size": "d_model",
        "num_attention_heads": "num_heads",
        "num_hidden_layers": "num_layers",
        "head_dim": "d_kv",
    },
    backbone=_backbone,
    weights=_weights,
    heads=_heads,
    # Relative positions have no limit; that of the tokenizer remains.
    max_length=lambda config: 1_000_000,
    check=_check,
    complete_from_weights=_complete_from_weights,
)

MT5 = replace(
    T5,
    model_type="mt5",
    class_prefix="MT5",
    defaults={
        **T5.defaults,
        "vocab_size": 250112,
        "d_ff": 1024,
        "num_layers": 8,
        "num_heads": 6,
        "feed_forward_proj": "gated-gelu",
        "scale_decoder_outputs": False,
    },
    supported={**T5.supported, "scale_decoder_outputs": (False,)},
)
