"""Models with several chains: encoder-decoders, two towers, vision models."""

import re

import keras
import numpy as np
import pytest
from helpers_graphs import (
    t5_data,
    t5_like,
    tower_data,
    two_towers,
    vit_like,
)

import finetune_tf as ft
from finetune_tf import select
from finetune_tf.architectures import EndOfChain
from finetune_tf.errors import ModelError
from finetune_tf.graph.hidden_states import states_of_chains
from finetune_tf.graph.pieces import pieces


def names_and_roles(model):
    return [(stage.name, stage.role) for stage in ft.stages(model)]


def layers_that_learn(model):
    return {variable.path.partition("/")[0] for variable in model.trainable_variables}


ENCODER = [
    ("encoder/shared", "embeddings"),
    ("encoder/block_0", "block"),
    ("encoder/block_1", "block"),
    ("encoder/norm", "norm"),
]
DECODER = [
    ("decoder/block_0", "block"),
    ("decoder/block_1", "block"),
    ("decoder/norm", "norm"),
]
TEXT = [
    ("text/embeddings", "embeddings"),
    ("text/block_0", "block"),
    ("text/block_1", "block"),
    ("text/norm", "norm"),
    ("text/projection", "head"),
]
IMAGE = [
    ("image/patches", "embeddings"),
    ("image/block_0", "block"),
    ("image/block_1", "block"),
    ("image/projection", "head"),
]


@pytest.fixture(scope="module")
def t5():
    return t5_like()


@pytest.fixture(scope="module")
def clip():
    return two_towers()


def test_an_encoder_and_a_decoder_with_a_shared_word_table(t5):
    assert names_and_roles(t5) == [*ENCODER, *DECODER, ("lm_head", "head")]
    assert [stage.chain for stage in ft.stages(t5)] == ["encoder"] * 4 + ["decoder"] * 3 + [""]
    first = ft.stages(t5)[0]
    assert [layer.name for layer in first.layers] == ["encoder_distances", "shared"]


def test_a_word_table_of_its_own_is_a_stage_of_the_decoder():
    found = names_and_roles(t5_like(tied=False))
    assert found == [*ENCODER, ("decoder/words", "embeddings"), *DECODER, ("lm_head", "head")]


def test_what_is_carried_across_the_cuts_of_a_decoder(t5):
    block = next(
        p for p in pieces(t5) if [n.operation.name for n in p.nodes] == ["decoder_block_1"]
    )
    assert [tensor.shape for tensor in block.inputs] == [
        (None, None, 8),  # the output of the block below
        (None, None, 8),  # the encoder's output
        (1, None, None),  # the positions that the decoder's blocks share
    ]
    assert block.main.shape == (None, None, 8)


@pytest.mark.parametrize("nested", [False, True])
def test_two_towers(nested):
    model = two_towers(nested)
    assert names_and_roles(model) == [*TEXT, *IMAGE]
    paths = [variable.path for stage in ft.stages(model) for variable in stage.variables]
    assert sorted(paths) == sorted(variable.path for variable in model.weights)


def test_what_declares_nothing_is_not_cut_into_terms():
    """Two towers cannot be distinguished from two terms of a sum."""
    inputs = keras.Input((4,))
    left = keras.layers.Dense(3, name="left_a")(keras.layers.Dense(3, name="left")(inputs))
    right = keras.layers.Dense(3, name="right_a")(keras.layers.Dense(3, name="right")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2, name="top")(left + right))
    found = [[layer.name for layer in stage.layers] for stage in ft.stages(model)]
    assert found == [["left"], ["left_a"], ["right", "right_a"], ["top"]]


def test_the_stem_of_a_picture_model_is_no_block():
    assert names_and_roles(vit_like()) == [
        ("stem", "embeddings"),
        ("first", "embeddings"),
        ("places", "embeddings"),
        ("layer_0", "block"),
        ("layer_1", "block"),
        ("layer_2", "block"),
        ("top_norm", "norm"),
        ("logits", "head"),
    ]


def test_freezing_by_chain(t5, clip):
    ft.freeze(t5, select.chain("encoder"))
    assert layers_that_learn(t5) == {
        *("decoder_distances", "decoder_block_0", "decoder_block_1", "decoder_norm", "lm_head")
    }
    ft.train_only(t5, select.blocks(-1, chain="decoder") | select.head())
    assert layers_that_learn(t5) == {"decoder_block_1", "lm_head"}
    ft.train_only(clip, ~select.chain("text") & ~select.bottom(1, chain="image"))
    assert layers_that_learn(clip) == {"image_patches", "image_block_1", "image_projection"}


def test_selectors_of_chains_say_what_there_is(t5):
    message = "The selector chain('text') matches nothing in 't5', whose stages are: encoder/shared"
    with pytest.raises(ModelError, match=re.escape(message)):
        select.chain("text")(t5)
    message = (
        "The selector bottom(3, chain='encoder') selects blocks beyond the 2 blocks of the chain "
        "'encoder'."
    )
    with pytest.raises(ModelError, match=re.escape(message)):
        select.bottom(3, chain="encoder")(t5)


def test_a_keras_file_keeps_the_chains(tmp_path, t5):
    t5.save(tmp_path / "t5.keras")
    again = keras.models.load_model(tmp_path / "t5.keras")
    assert names_and_roles(again) == names_and_roles(t5)
    np.testing.assert_array_equal(again(t5_data()[0]), t5(t5_data()[0]))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32"])
def test_the_end_of_a_chain_changes_nothing(dtype):
    tensor = keras.Input((3,), dtype=dtype)
    end = EndOfChain(name="encoder")
    assert end(tensor).dtype == dtype and end(tensor).shape == (None, 3)
    values = keras.ops.cast(np.arange(6).reshape(2, 3), dtype)
    assert end(values).dtype == dtype
    np.testing.assert_array_equal(
        keras.ops.cast(end(values), "float32"), np.arange(6).reshape(2, 3)
    )


def test_hidden_states_by_chain(t5, clip):
    for model, (inputs, _), chains in (
        (t5, t5_data(), {"encoder": "shared", "decoder": None}),
        (clip, tower_data(), {"text": "text_embeddings", "image": None}),
    ):
        states = states_of_chains(model)(inputs)
        assert list(states) == list(chains)
        for chain, embeddings in chains.items():
            names = [f"{chain}_block_{i}" for i in range(2)]
            expected = [model.get_layer(name).output for name in names]
            if embeddings == "text_embeddings":
                expected.insert(0, model.get_layer(embeddings).output)
            expected = keras.Model(model.inputs, expected)(inputs)
            assert len(states[chain]) == 3
            for mine, theirs in zip(states[chain][-len(expected) :], expected, strict=True):
                np.testing.assert_array_equal(mine, theirs)
    inputs, _ = t5_data()
    words = t5.get_layer("shared")
    states = states_of_chains(t5)(inputs)
    np.testing.assert_array_equal(states["encoder"][0], words(inputs["input_ids"]))
    np.testing.assert_array_equal(states["decoder"][0], words(inputs["decoder_input_ids"]))


def test_hidden_states_of_towers_that_are_models():
    model, (inputs, _) = two_towers(nested=True), tower_data()
    states = states_of_chains(model)(inputs)
    assert list(states) == ["text", "image"]
    for name, key in (("text", "input_ids"), ("image", "pixels")):
        tower = model.get_layer(name)
        expected = keras.Model(tower.input, tower.get_layer("block_1").output)(inputs[key])
        assert len(states[name]) == 3
        np.testing.assert_array_equal(states[name][-1], expected)


def test_hidden_states_of_a_model_that_is_one_chain():
    model = vit_like()
    (states,) = states_of_chains(model)(tower_data()[0]["pixels"]).values()
    assert [state.shape for state in states] == [(6, 5, 8)] * 4


def test_hidden_states_where_nothing_is_known():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="top")])
    single = keras.Model(model.inputs, model.outputs, name="net")
    single.backbone = keras.Model(single.inputs, single.inputs)
    with pytest.raises(ModelError, match=r"'net' has no stages that are blocks; .*: top \(head\)"):
        states_of_chains(single)
