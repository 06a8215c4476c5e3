"""Frozen parts of encoder-decoders and of two towers are stored, each chain by itself."""

import keras
import numpy as np
import pytest
from helpers_graphs import ROWS, t5_data, t5_like, tower_data, two_towers

import finetune_tf as ft
from finetune_tf import select
from finetune_tf.errors import CacheError, ModelError

CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def pair(make, learns, **options):
    """Two models of the same weights, frozen alike."""
    models = [make(**options) for _ in range(2)]
    models[1].set_weights(models[0].get_weights())
    for model in models:
        ft.train_only(model, learns)
    return models


def losses(model, inputs, targets):
    model.compile(keras.optimizers.Adam(1e-2), CROSS_ENTROPY, run_eagerly=True)
    # In one batch, because products of other sizes are rounded in another way.
    fit = model.fit(inputs, targets, batch_size=ROWS, epochs=3, shuffle=False, verbose=0)
    return fit.history["loss"]


DECODER = select.matching("decoder_(words|block|norm)|lm_head")
UPPER = select.matching("decoder_block_1|decoder_norm|lm_head")
T5 = {
    # With a tied table that is frozen, the decoder's looked up words are stored as well.
    "encoder below a tied table": ({"tied": True}, DECODER, {(6, 5, 8), (6, 3, 8)}),
    "encoder": ({"tied": False}, DECODER, {(6, 5, 8)}),
    "encoder and decoder block": ({"tied": True}, UPPER, {(6, 5, 8), (6, 3, 8)}),
    "head": ({"tied": True}, select.head(), {(6, 3, 8)}),
    "upper half of the encoder": (
        {"tied": False},
        DECODER | select.matching("encoder_block_1|encoder_norm"),
        {(6, 5, 8)},
    ),
}
TOWERS = {
    "text": (select.chain("image"), {(6, 8)}),
    "image": (select.chain("text"), {(6, 8)}),
    "both, up to a block": (
        select.head() | select.blocks(-1, chain="text") | select.blocks(-1, chain="image"),
        {(6, 5, 8), (6, 4, 8)},
    ),
}


def assert_trains_as_the_whole(whole, cut, inputs, targets, shapes, **options):
    learner = ft.cache_features(cut, **options)
    features = learner.features(inputs)
    stored = {array.shape for name, array in features.items() if name.startswith("stored_")}
    assert stored == shapes
    np.testing.assert_array_equal(learner(features), whole(inputs))
    expected = losses(whole, inputs, targets)
    assert losses(learner, features, targets) == expected
    assert expected[-1] < expected[0]
    for mine, theirs in zip(cut.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(cut(inputs), whole(inputs))


@pytest.mark.parametrize("case", T5)
def test_encoder_and_decoder(case):
    options, learns, shapes = T5[case]
    whole, cut = pair(t5_like, learns, **options)
    assert_trains_as_the_whole(whole, cut, *t5_data(), shapes)


@pytest.mark.parametrize("case", TOWERS)
def test_two_towers(case):
    learns, shapes = TOWERS[case]
    whole, cut = pair(two_towers, learns)
    assert_trains_as_the_whole(whole, cut, *tower_data(), shapes)


@pytest.mark.parametrize("chain", ["text", "image"])
def test_towers_that_are_models_of_their_own(chain):
    whole, cut = pair(two_towers, select.chain(chain), nested=True)
    assert_trains_as_the_whole(whole, cut, *tower_data(), {(6, 8)})


def test_a_tied_table_that_learns_blocks_what_reads_it(capsys):
    model = t5_like()
    ft.train_only(model, select.embeddings() | select.head())
    message = r"The lowest stage of the model learns \(shared, used in several places\), so every"
    with pytest.raises(CacheError, match=message):
        ft.cache_features(model)


def test_several_arrays_in_a_folder(tmp_path, capsys):
    inputs, targets = t5_data()
    whole, cut = pair(t5_like, DECODER)
    assert_trains_as_the_whole(whole, cut, inputs, targets, {(6, 5, 8), (6, 3, 8)}, folder=tmp_path)
    size = 6 * (5 + 3) * 8 * 4
    assert f"computed once, {size / 1000:.3g} KB in {tmp_path}." in capsys.readouterr().out
    assert len(list(tmp_path.glob("*.npy"))) == 2
    mapped = ft.cache_features(cut, tmp_path).features(inputs)
    again = {name: np.array(array) for name, array in mapped.items()}
    assert f"Features of the inputs: read from {tmp_path}." in capsys.readouterr().out
    next(tmp_path.glob("*.npy")).write_bytes(b"damaged")
    fresh = ft.cache_features(cut, tmp_path).features(inputs)
    assert "computed again, because" in capsys.readouterr().out
    for name, array in fresh.items():
        np.testing.assert_array_equal(array, again[name])
    other, _ = t5_data(seed=1)
    ft.cache_features(cut, tmp_path).features(other)
    assert len(list(tmp_path.glob("*.npy"))) == 4


def test_what_is_below_the_cut_must_not_learn():
    model = two_towers()
    inputs, targets = tower_data()
    ft.freeze(model, select.chain("text"))
    learner = ft.cache_features(model)
    features = learner.features(inputs)
    learner.compile(keras.optimizers.Adam(1e-2), CROSS_ENTROPY)
    ft.train_only(model, select.everything())
    with pytest.raises(ModelError, match="block_0, .* learn by now, but are below the cut"):
        learner.fit(features, targets, verbose=0)
    with pytest.raises(ModelError, match="learn by now"):
        learner.features(inputs)


def test_a_model_without_a_graph():
    class Network(keras.Model):
        def __init__(self):
            super().__init__(name="network")
            self.dense = keras.layers.Dense(2)

        def call(self, x):
            return self.dense(x)

    network = Network()
    network(np.zeros((1, 2)))
    with pytest.raises(CacheError, match="'network' is no Functional model, so it cannot be cut"):
        ft.cache_features(network)
