"""Configs of DeBERTa and ModernBERT: older spellings, and what is refused by name."""

import re

import keras
import pytest

from finetune_tf.errors import CheckpointError
from finetune_tf.families.registry import FAMILIES

SIZES = {
    "vocab_size": 9,
    "hidden_size": 8,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 6,
    "max_position_embeddings": 16,
}
ROPE = {"rope_type": "default", "rope_theta": 7.0}


def complete(model_type, **config):
    return FAMILIES[model_type].complete({"model_type": model_type, **SIZES, **config})


def blocks(model_type, **config):
    """The call of each block in the graph of the backbone."""
    backbone = FAMILIES[model_type].backbone(complete(model_type, **config), None)
    model = keras.Model(backbone.inputs, backbone.hidden)
    layers = [model.get_layer(f"block_{i}") for i in range(SIZES["num_hidden_layers"])]
    return [layer._inbound_nodes[0] for layer in layers]


def attentions(model_type, **config):
    """The config of the attention of each block."""
    return [node.operation.attention.get_config() for node in blocks(model_type, **config)]


def made_by(node, argument):
    """The config of the layer whose output a block gets as an argument."""
    return node.arguments.kwargs[argument]._keras_history.operation.get_config()


@pytest.mark.parametrize(
    ("config", "windows", "thetas"),
    [
        ({}, [None, 64, 64, None], [160000.0, 10000.0, 10000.0, 160000.0]),
        (
            {"global_attn_every_n_layers": 2, "local_rope_theta": 5.0, "local_attention": 9},
            [None, 4, None, 4],
            [160000.0, 5.0, 160000.0, 5.0],
        ),
        (
            {
                "layer_types": ["sliding_attention", "full_attention"] * 2,
                "global_attn_every_n_layers": 1,
                "rope_parameters": {"full_attention": ROPE, "sliding_attention": None},
                "global_rope_theta": 3.0,
                "local_rope_theta": 5.0,
            },
            [64, None, 64, None],
            [5.0, 7.0, 5.0, 7.0],
        ),
        ({"sliding_window": 3}, [None, 3, 3, None], [160000.0, 10000.0, 10000.0, 160000.0]),
    ],
)
def test_modernbert_says_which_attention_in_older_and_newer_words(config, windows, thetas):
    found = blocks("modernbert", **config)
    assert [made_by(node, "attention_mask")["window"] for node in found] == windows
    assert [made_by(node, "positions")["theta"] for node in found] == thetas


@pytest.mark.slow
@pytest.mark.parametrize(
    ("terms", "parts_in_v1"), [("C2P | p2c", 3), (["c2p", "p2c"], 3), (["c2p", "p2c", "p2p"], 4)]
)
def test_deberta_says_which_terms_in_words_or_in_a_list(terms, parts_in_v1):
    config = {"pos_att_type": terms, "relative_attention": True}
    for model_type, parts in [("deberta", parts_in_v1), ("deberta-v2", 3)]:
        layer = attentions(model_type, **config)[0]
        assert layer["content_to_position"] and layer["position_to_content"]
        assert layer["score_parts"] == parts


def test_without_relative_attention_the_terms_only_scale():
    layer = attentions("deberta-v2", pos_att_type=["c2p"])[0]
    assert not layer["content_to_position"]
    assert layer["score_parts"] == 2


@pytest.mark.parametrize(
    ("model_type", "config", "supported"),
    [
        ("deberta", {"hidden_act": "softsign"}, "'gelu', "),
        ("deberta", {"pooler_hidden_act": "softsign"}, "'gelu', "),
        ("deberta", {"pooler_hidden_size": 5}, "the hidden_size, 8"),
        ("deberta-v2", {"conv_act": "softsign"}, "'gelu', "),
        ("deberta-v2", {"conv_kernel_size": 4}, "odd numbers, and 0 for no convolution"),
        ("deberta-v2", {"attention_head_size": 3}, "4"),
        ("deberta-v2", {"position_buckets": 1}, "from 2 to below twice the largest distance 15"),
        ("deberta-v2", {"position_buckets": 30}, "from 2 to below twice the largest distance 15"),
        ("modernbert", {"hidden_activation": "softsign"}, "'gelu', "),
        ("modernbert", {"classifier_activation": "softsign"}, "'gelu', "),
        ("modernbert", {"classifier_pooling": "max"}, "'cls', 'mean'"),
        ("eurobert", {"classifier_pooling": "max"}, "'bos', 'mean', 'late'"),
        ("modernbert", {"layer_types": ["full_attention"]}, "4 times 'full_attention' or "),
        ("modernbert", {"rope_scaling": {"type": "linear"}}, "the rope_type 'default'"),
        (
            "modernbert",
            {"rope_parameters": {"full_attention": {**ROPE, "rope_type": "yarn"}}},
            "the rope_type 'default'",
        ),
    ],
)
def test_what_is_refused_is_named(model_type, config, supported):
    ((key, value),) = config.items()
    message = (
        f"The config key {key!r} has the value {value!r}, which {model_type} models do not "
        f"support here; supported: {supported}"
    )
    with pytest.raises(CheckpointError, match=re.escape(message)):
        attentions(model_type, **config)


def test_modernbert_may_have_a_decoder_without_bias():
    for bias in (True, False):
        config = complete("modernbert", decoder_bias=bias)
        rows = FAMILIES["modernbert"].head("fill-mask", config).weights
        assert bias == (any(row.belongs_to(["vocabulary_bias"]) for row in rows))
