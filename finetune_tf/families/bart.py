"""BART (Lewis et al. 2020) and its kin mBART, Pegasus and Marian, encoder-decoders of one block.

They are transformers' `BartForConditionalGeneration`, `MBartForConditionalGeneration`,
`PegasusForConditionalGeneration` and `MarianMTModel`. They differ in their positions, in the place
of the normalisations, and in which token embeddings are shared.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from finetune_tf.architectures import (
    AttentionMask,
    Backbone,
    Embeddings,
    LayerNorm,
    PositionEmbeddings,
    Side,
    bert_block,
    encoder_decoder,
)
from finetune_tf.families import config_values as values
from finetune_tf.families.family import Family, Head, require_divisor
from finetune_tf.kernels import ACTIVATIONS
from finetune_tf.weights.conversions import KERNEL, LeadingAxis
from finetune_tf.weights.table import Weight, block, embedding, norm

_EPSILON = 1e-5  # that of torch.nn.LayerNorm, for which these configs have no key
_ENCODER_BLOCK = {
    "attention/query": "self_attn.q_proj",
    "attention/key": "self_attn.k_proj",
    "attention/value": "self_attn.v_proj",
    "attention/output": "self_attn.out_proj",
    "attention_norm": "self_attn_layer_norm",
    "feed_forward/intermediate": "fc1",
    "feed_forward/output": "fc2",
    "feed_forward_norm": "final_layer_norm",
}
_DECODER_BLOCK = {
    **_ENCODER_BLOCK,
    "cross_attention/query": "encoder_attn.q_proj",
    "cross_attention/key": "encoder_attn.k_proj",
    "cross_attention/value": "encoder_attn.v_proj",
    "cross_attention/output": "encoder_attn.out_proj",
    "cross_attention_norm": "encoder_attn_layer_norm",
}


def _is_tied(config: dict) -> bool:
    return config["tie_word_embeddings"]


def _has_one_vocabulary(config: dict) -> bool:
    return config["share_encoder_decoder_embeddings"]


@dataclass(frozen=True)
class _Kind:
    """In what the families differ.

    Attributes:
        norm_first: Whether blocks normalise the input of their sublayers, and each side ends with a
            normalisation.
        sinusoidal: Whether the positions are sinusoidal instead of learned.
        embedding_norm: Whether each side normalises its embeddings.
        shares_embeddings: Whether, by the config, both sides have the same token embeddings.
    """

    norm_first: bool = False
    sinusoidal: bool = False
    embedding_norm: bool = True
    shares_embeddings: Callable[[dict], bool] = _is_tied

    def embeddings_of(self, side: str, config: dict) -> str:
        """Returns the name of the layer with the token embeddings of a side."""
        return "embeddings" if self.shares_embeddings(config) else f"{side}_embeddings"


def _vocabulary(side: str, config: dict) -> int:
    decoder_size = config.get("decoder_vocab_size") if side == "decoder" else None
    return decoder_size or config["vocab_size"]


def _backbone(config: dict, dtype: Any, *, kind: _Kind) -> Backbone:
    size, stddev = config["d_model"], config["init_std"]
    layers: dict[str, Embeddings] = {}

    def side(name: str, is_decoder: bool) -> Side:
        layer_name = kind.embeddings_of(name, config)
        if layer_name not in layers:
            layers[layer_name] = Embeddings(
                vocab_size=_vocabulary(name, config),
                hidden_size=size,
                max_positions=0,
                type_vocab_size=0,
                dropout=0.0,
                initializer_range=stddev,
                padding_idx=config["pad_token_id"],
                has_norm=False,
                scale=size**0.5 if config["scale_embedding"] else 1.0,
                dtype=dtype,
                name=layer_name,
            )
        start = PositionEmbeddings(
            size,
            config["max_position_embeddings"],
            offset=0 if kind.sinusoidal else 2,
            sinusoidal=kind.sinusoidal,
            has_norm=kind.embedding_norm,
            dropout=config["dropout"],
            layer_norm_eps=_EPSILON,
            initializer_range=stddev,
            dtype=dtype,
            name=f"{name}_positions",
        )
        blocks = [
            bert_block(
                hidden_size=size,
                num_heads=config[f"{name}_attention_heads"],
                intermediate_size=config[f"{name}_ffn_dim"],
                activation=config["activation_function"],
                attention_dropout=config["attention_dropout"],
                feed_forward_options={"dropout": config["activation_dropout"]},
                dropout=config["dropout"],
                initializer_range=stddev,
                layer_norm_eps=_EPSILON,
                norm_first=kind.norm_first,
                has_cross_attention=is_decoder,
                dtype=dtype,
                name=f"{name}_block_{i}",
            )
            for i in range(config[f"{name}_layers"])
        ]
        mask = AttentionMask(causal=is_decoder, name=f"{name}_mask")
        end = [LayerNorm(_EPSILON, dtype=dtype, name=f"{name}_norm")] if kind.norm_first else []
        return Side(layers[layer_name], blocks, mask, start, end=end)

    return encoder_decoder(side("encoder", False), side("decoder", True))


def _weights(config: dict, *, kind: _Kind) -> list[Weight]:
    table = []
    if kind.shares_embeddings(config):
        table += embedding("shared", "embeddings/word")
    for side, parts in (("encoder", _ENCODER_BLOCK), ("decoder", _DECODER_BLOCK)):
        positions = f"{side}_positions"
        if kind.shares_embeddings(config):
            words = f"{side}.embed_tokens.weight"
            table.append(Weight(words, None, tied_to="embeddings/word/embeddings"))
        else:
            table += embedding(f"{side}.embed_tokens", f"{side}_embeddings/word")
        table.append(
            Weight(
                f"{side}.embed_positions.weight",
                f"{positions}/table",
                optional=kind.sinusoidal,
            )
        )
        if kind.embedding_norm:
            table += norm(f"{side}.layernorm_embedding", f"{positions}/norm")
        if kind.norm_first:
            table += norm(f"{side}.layer_norm", f"{side}_norm")
        for i in range(config[f"{side}_layers"]):
            table += block(f"{side}.layers.{i}", f"{side}_block_{i}", parts)
    if not kind.shares_embeddings(config):
        # transformers has this table in the file, but neither side reads it.
        table.append(Weight("shared.weight", None))
    return table


def _heads(config: dict, *, kind: _Kind) -> dict[str, Head]:
    bias = Weight("final_logits_bias", "vocabulary_bias/bias", LeadingAxis(), optional=True)
    if config["tie_word_embeddings"]:
        words = f"{kind.embeddings_of('decoder', config)}/word/embeddings"
        decoder = Weight("lm_head.weight", None, tied_to=words)
    else:
        decoder = Weight("lm_head.weight", "lm_head/dense/kernel", KERNEL)
    head = Head([decoder, bias], tied=config["tie_word_embeddings"], has_logits_bias=True)
    return dict.fromkeys(("text2text-generation", "translation", "summarization"), head)


def _check(config: dict) -> None:
    for side in ("encoder", "decoder"):
        require_divisor(config, "d_model", f"{side}_attention_heads")


def _functions(kind: _Kind) -> dict[str, Callable]:
    functions = {"backbone": _backbone, "weights": _weights, "heads": _heads}
    return {name: partial(function, kind=kind) for name, function in functions.items()}


_SIZES = {
    f"{side}_{name}": default
    for side in ("encoder", "decoder")
    for name, default in (("layers", 12), ("ffn_dim", 4096), ("attention_heads", 16))
}
_SIZE_RULES = {
    f"{side}_{name}": rule
    for side in ("encoder", "decoder")
    for name, rule in (
        ("layers", values.DEPTH),
        ("ffn_dim", values.INTERMEDIATE),
        ("attention_heads", values.FEATURES),
    )
}

BART = Family(
    model_type="bart",
    class_prefix="Bart",
    tensor_prefix="model",
    defaults={
        **_SIZES,
        "vocab_size": 50265,
        "d_model": 1024,
        "max_position_embeddings": 1024,
        "activation_function": "gelu",
        "dropout": 0.1,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
        "init_std": 0.02,
        "scale_embedding": False,
        "pad_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 2,
        "is_encoder_decoder": True,
        "forced_eos_token_id": 2,
        "tie_word_embeddings": True,
    },
    rules={
        **_SIZE_RULES,
        "vocab_size": values.VOCABULARY,
        "d_model": values.FEATURES,
        "max_position_embeddings": values.POSITIONS,
        "activation_function": values.STRING,
        "dropout": values.RATE,
        "attention_dropout": values.RATE,
        "activation_dropout": values.RATE,
        "init_std": values.STDDEV,
        "scale_embedding": values.BOOLEAN,
        "pad_token_id": values.TOKEN_ID,
        "eos_token_id": values.TOKEN_IDS,
        "decoder_start_token_id": values.TOKEN_ID_OR_NULL,
        "forced_eos_token_id": values.TOKEN_IDS,
        "is_encoder_decoder": values.BOOLEAN,
        "tie_word_embeddings": values.BOOLEAN,
    },
    supported={
        "activation_function": tuple(sorted(ACTIVATIONS)),
        "encoder_layerdrop": (0, 0.0, None),
        "decoder_layerdrop": (0, 0.0, None),
        "is_encoder_decoder": (True, None),
    },
    dropout_keys=("dropout", "attention_dropout", "activation_dropout"),
    aliases={
        "hidden_size": "d_model",
        "num_attention_heads": "encoder_attention_heads",
        "num_hidden_layers": "encoder_layers",
    },
    check=_check,
    **_functions(_Kind()),
)

MBART = replace(
    BART,
    model_type="mbart",
    class_prefix="MBart",
    defaults={**BART.defaults, "decoder_start_token_id": None},
    **_functions(_Kind(norm_first=True)),
)

PEGASUS = replace(
    BART,
    model_type="pegasus",
    class_prefix="Pegasus",
    defaults={
        **BART.defaults,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "decoder_start_token_id": 0,
        "forced_eos_token_id": 1,
    },
    **_functions(_Kind(norm_first=True, sinusoidal=True, embedding_norm=False)),
)

MARIAN = replace(
    BART,
    model_type="marian",
    class_prefix="Marian",
    class_names={"ForConditionalGeneration": "MarianMTModel"},
    defaults={
        **BART.defaults,
        "vocab_size": 58101,
        "decoder_vocab_size": None,
        "share_encoder_decoder_embeddings": True,
        "pad_token_id": 58100,
        "eos_token_id": 0,
        "decoder_start_token_id": 58100,
        "forced_eos_token_id": 0,
    },
    rules={
        **BART.rules,
        "decoder_vocab_size": values.integer(2_000_000, nullable=True),
        "share_encoder_decoder_embeddings": values.BOOLEAN,
    },
    **_functions(
        _Kind(sinusoidal=True, embedding_norm=False, shares_embeddings=_has_one_vocabulary)
    ),
)
