"""Types and ranges of config values, and sizes that are checked before the model is built."""

import json
import math
import re
import resource

import pytest
from helpers_checkpoints import TESTS, copy_checkpoint, main_task, reference

import finetune_tf as ft
from finetune_tf.base.arguments import Number
from finetune_tf.errors import CheckpointError, DataTypeError
from finetune_tf.families.config_values import MAX_DEPTH
from finetune_tf.families.registry import FAMILIES

FOLDER, _ = reference("relu")
INVALID = (
    *(None, "24", "", "x|y", [], [1], {}, {"a": 1}, -2, 2.5, math.nan, math.inf, -math.inf),
    *(True, 10**9, 10**5000, -0.5, 1.5, ["x"], b"gelu", object()),
)
TINY = {"hidden_size": 8, "num_attention_heads": 1, "intermediate_size": 8, "vocab_size": 9}


def folder_of(family):
    return TESTS / "references" / family / main_task(family)


def config_of(family):
    return json.loads((folder_of(family) / "config.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_key_with_a_default_has_a_rule(family):
    row = FAMILIES[family]
    assert {*row.defaults, *row.dropout_keys} - row.rules.keys() == set()
    complete = row.complete({"model_type": family})
    for key, family_of in row.towers.items():
        tower = complete.pop(key)
        assert all(tower.pop(name) == complete[name] for name in row.tower_keys)
        assert tower == family_of(tower).complete({}) | {"model_type": tower["model_type"]}
    assert complete == {**row.defaults, "model_type": family}


@pytest.mark.parametrize("family", FAMILIES)
def test_invalid_values_are_refused_with_their_key(family):
    row, base = FAMILIES[family], config_of(family)
    refused = 0
    for key, rule in row.rules.items():
        for value in INVALID:
            try:
                found = row.complete({**base, key: value}, "here/config.json")
            except CheckpointError as error:
                refused += 1
                assert str(error).startswith("here/config.json: The config key '"), error
            else:
                assert rule.accepts(value)
                assert key not in found or found[key] is value
    assert refused > 15 * len(row.rules)


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_that_differ_from_the_tensors_are_refused_before_allocation(family):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for key, rule in FAMILIES[family].rules.items():
        if isinstance(rule, Number) and rule.whole and rule.high not in (MAX_DEPTH, None):
            try:
                ft.load(folder_of(family), config={key: rule.high})
            except CheckpointError as error:
                assert re.search(f"{key}|the config requires|lacks", str(error))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"vocab_size": 60_000_000},
            "'vocab_size' has the value 60000000, but has to be an integer",
        ),
        ({"num_hidden_layers": 10**8}, "but has to be an integer >= 1 and <= 256. Correct it"),
        ({"num_hidden_layers": 0}, "'num_hidden_layers' has the value 0"),
        ({"hidden_size": "24"}, "'hidden_size' has the value '24', but has to be an integer"),
        ({"hidden_size": 24.5}, "'hidden_size' has the value 24.5, but has to be an integer"),
        ({"num_attention_heads": True}, "'num_attention_heads' has the value True"),
        ({"hidden_dropout_prob": 1.5}, "has the value 1.5, but has to be a number >= 0 and <"),
        ({"layer_norm_eps": math.nan}, "'layer_norm_eps' has the value nan"),
        ({"layer_norm_eps": None}, "'layer_norm_eps' has the value None, but has to be a number"),
        ({"vocab_size": 10**5000}, "'vocab_size' has the value an unprintable int"),
        ({"hidden_act": ["gelu"]}, r"'hidden_act' has the value \['gelu'\], but has to be a strin"),
        ({"pad_token_id": 31}, "'pad_token_id' has the value 31, .* ids below the vocab_size, 31"),
        ({"architectures": "Bert"}, "'architectures' has the value 'Bert', but has to be a list"),
        ({"id2label": ["no", "yes"]}, "'id2label' .* has to be a mapping from ids to names"),
        ({"id2label": {"1": "no", "2": "yes"}}, "'id2label' .* a mapping from ids to names"),
        ({"id2label": {"0": "no", "1": None}}, "'id2label' .* a mapping from ids to names"),
        ({"id2label": {"zero": "no"}}, "'id2label' .* a mapping from ids to names"),
        ({"label2id": [0, 1]}, "'label2id' .* has to be a mapping from names to"),
        ({"num_labels": 10**9}, "'num_labels' .* integer >= 1 and <= 1,000,000, or None"),
        ({"problem_type": 3}, "'problem_type' .* has to be \"single_label_classification\" or"),
        ({"is_decoder": 1}, "'is_decoder' has the value 1, which bert models do not support"),
        (
            {"quantization_config": {"load_in_8bit": True}},
            "'quantization_config' states that the weights are quantized: .*load_in_8bit.* use the "
            "checkpoint that is not quantized",
        ),
    ],
)
def test_messages_name_the_source_of_the_value(config, message):
    with pytest.raises(CheckpointError, match=f"relu/config.json with config=: .*{message}"):
        ft.load(FOLDER, config=config)


@pytest.mark.parametrize(
    ("family", "config", "message"),
    [
        ("roberta", {"pad_token_id": None}, "'pad_token_id' has the value None"),
        ("roberta", {"max_position_embeddings": 2}, "supported: more than the pad_token_id . 1, 4"),
        ("mpnet", {"max_position_embeddings": 2}, "more than 2"),
        ("albert", {"num_hidden_layers": 100, "inner_group_num": 3}, "inner_group_num 3 at most"),
        ("deberta", {"pos_att_type": ["c2c"]}, "'pos_att_type' .* a list of \"c2p\""),
        ("deberta", {"pos_att_type": {"c2p": 1}}, "'pos_att_type' .* a list of \"c2p\""),
        ("deberta-v2", {"norm_rel_ebd": "batch_norm"}, "'norm_rel_ebd' .* \"none\" or"),
        ("deberta-v2", {"conv_groups": 5, "conv_kernel_size": 3}, "'conv_groups' is 5, which does"),
        ("modernbert", {"global_attn_every_n_layers": 0}, "'global_attn_every_n_layers' .* 0, but"),
        ("modernbert", {"rope_parameters": {"rope_theta": 3.0}}, "settings by layer type"),
        ("modernbert", {"rope_scaling": {"rope_theta": "x"}}, "settings of rotary positions"),
        ("modernbert", {"layer_types": [None]}, "'layer_types' .* a list of strings, or null"),
        ("modernbert", {"hidden_size": 9, "num_attention_heads": 3}, "heads of an even size"),
    ],
)
def test_keys_of_single_families(family, config, message):
    with pytest.raises(CheckpointError, match=message):
        ft.load({**config_of(family), **config}, "text-classification")


def test_integers_may_be_written_as_floats(tmp_path):
    folder = copy_checkpoint(FOLDER, tmp_path / "float", hidden_size=24.0, num_hidden_layers=2.0)
    model = ft.load(folder)
    assert model.config["hidden_size"] == 24
    assert type(model.config["hidden_size"]) is int


def test_null_is_retained_only_for_keys_with_a_default():
    complete = FAMILIES["modernbert"].complete({"local_rope_theta": None, "sliding_window": None})
    assert complete["local_rope_theta"] is None
    assert "sliding_window" not in complete


def test_a_new_model_larger_than_the_memory_is_refused():
    config = {"model_type": "bert", "vocab_size": 2_000_000, "hidden_size": 49_152}
    message = (
        r"The weights of a new bert model would take [\d,.]+ GB of memory, of which [\d,.]+ GB are "
        r"available; the largest is embeddings/word/embeddings with 393.2 GB. Check the sizes"
    )
    with pytest.raises(CheckpointError, match=message):
        ft.load(config)
    model = ft.load(
        {"model_type": "bert", **TINY, "num_hidden_layers": 1}
    )  # the refused model left nothing behind
    assert model.count_params() < 10_000


def test_depth_is_limited_for_shared_blocks_too():
    with pytest.raises(CheckpointError, match="'num_hidden_layers' has the value 257"):
        ft.load({"model_type": "albert", **TINY, "num_hidden_layers": 257})


@pytest.mark.parametrize("name", [None, 5, b"folder", ["folder"]])
def test_checkpoint_arguments_of_wrong_types(name):
    with pytest.raises(DataTypeError, match="A checkpoint is a folder, a Hub id, a file .* found "):
        ft.load(name)
    with pytest.raises(DataTypeError, match="config is a dict of keys of config.json, found"):
        ft.load(FOLDER, config=name or "x")


@pytest.mark.parametrize("name", ["a" * 5000, "\0", "~nobody-of-this-name/x", "x/" * 600])
def test_checkpoint_names_that_are_no_valid_paths(name, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        CheckpointError, match="There is no folder|is neither a folder nor"
    ) as error:
        ft.load(name)
    assert len(str(error.value)) < 1000


def test_model_type_that_is_not_a_string():
    with pytest.raises(CheckpointError, match=r"has the model_type \['bert'\], which finetune_tf"):
        ft.load({"model_type": ["bert"]})
