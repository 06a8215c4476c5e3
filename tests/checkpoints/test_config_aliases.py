"""Config keys under other names, and settings that transformers reads from several places."""

import numpy as np
import pytest
from helpers_decoders import write_decoder
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

import finetune_tf as ft
from finetune_tf.errors import CheckpointError
from finetune_tf.families.registry import FAMILIES
from finetune_tf.families.rotary_scaling import rotary_positions
from finetune_tf.messages import quiet

IDS = {"input_ids": np.array([[3, 4, 5, 6, 7]])}
ENCODER = {
    "vocab_size": 9,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 6,
    "pad_token_id": 0,
}


@pytest.mark.parametrize("model_type", FAMILIES)
def test_aliases_are_those_of_transformers(model_type):
    family = FAMILIES[model_type]
    known = CONFIG_MAPPING[model_type].attribute_map
    assert family.aliases == {alias: key for alias, key in known.items() if key in family.rules}


@pytest.mark.parametrize("model_type", [name for name, row in FAMILIES.items() if row.aliases])
def test_an_alias_means_the_key_of_the_family(model_type):
    family = FAMILIES[model_type]
    for alias, key in family.aliases.items():
        value = family.defaults[key]
        changed = value[:-1] if isinstance(value, list) else value * 2
        try:
            complete = family.complete({alias: changed})
        except CheckpointError as error:  # a value that another key contradicts
            assert key in str(error)
            continue
        assert complete == family.complete({key: changed})


def test_heads_under_another_name_change_the_logits(tmp_path):
    with quiet():
        logits = [
            np.asarray(ft.load(write_decoder(tmp_path / name, **heads))(IDS))
            for name, heads in {
                "as before": {},
                "own": {"n_head": 2},
                "other": {"n_head": None, "num_attention_heads": 2},
            }.items()
        ]
    np.testing.assert_array_equal(logits[1], logits[2])
    assert np.abs(logits[0] - logits[1]).max() > 1e-3


def test_a_model_from_a_config_with_common_names():
    common = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    with quiet():
        gpt = ft.load({"model_type": "gpt2", "vocab_size": 9, **common}, "text-generation")
    assert [stage.name for stage in gpt.stages][:2] == ["embeddings", "block_0"]
    assert (gpt.config.n_embd, gpt.config.n_layer, gpt.config.n_head) == (8, 1, 2)


def test_two_names_with_different_values(tmp_path):
    message = "'n_head' and 'num_attention_heads' mean the same, but have the values 3 and 2"
    with pytest.raises(CheckpointError, match=message):
        ft.load(write_decoder(tmp_path, num_attention_heads=2))
    # transformers 4 wrote this key for BART without reading it.
    config = FAMILIES["bart"].complete({"encoder_layers": 6, "num_hidden_layers": 12})
    assert config["encoder_layers"] == 6 and "num_hidden_layers" not in config


@pytest.mark.parametrize("model_type", ["gte", "nomic_bert"])
def test_the_base_of_rotary_positions_in_all_places(model_type):
    def theta(**rope):
        config = {"model_type": model_type, **ENCODER, **rope}
        with quiet():
            model = ft.load(config, "feature-extraction")
        return model.get_layer("positions").get_config()["theta"]

    default = 160_000.0 if model_type == "gte" else 1000.0
    assert theta() == theta(rope_parameters={"rope_type": "default"}) == default
    assert theta(rope_theta=7.0) == theta(rope_parameters={"rope_theta": 7.0}) == 7.0
    assert theta(rope_theta=7.0, rope_parameters={"rope_theta": 9.0}) == 9.0
    assert theta(rope_scaling={"rope_theta": 7.0}, rope_parameters={"rope_theta": 9.0}) == 7.0
    with pytest.raises(CheckpointError, match="'rope_scaling' has the value .* 'default'"):
        theta(rope_scaling={"rope_type": "linear", "factor": 2.0})


@pytest.mark.parametrize("kind", ["llama3", "yarn"])
def test_the_original_length_outside_of_the_settings_counts(kind):
    rope = {"rope_type": kind, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}

    def frequencies(inside, **outside):
        length = {"original_max_position_embeddings": inside}
        config = {"model_type": "llama", "rope_scaling": rope | length, **outside}
        complete = FAMILIES["llama"].complete(config)
        return rotary_positions(complete, 16).get_config()["frequencies"]

    both = frequencies(512, original_max_position_embeddings=32)
    assert both == frequencies(32) != frequencies(512)


def test_settings_of_single_blocks_are_refused():
    message = "'per_layer_config' gives blocks settings of their own: .* only models whose "
    with pytest.raises(CheckpointError, match=message):
        FAMILIES["llama"].complete({"per_layer_config": {"0": {"rms_norm_eps": 0.5}}})
