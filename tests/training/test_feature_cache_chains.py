"""Feature caching in encoder-decoders and two-tower models, separately for each chain."""

import keras
import numpy as np
import pytest
from helpers_graphs import ROWS, Block, t5_data, t5_like, tower_data, two_towers
from helpers_tasks import VOCABULARY, small_task_model

import finetune_tf as ft
from finetune_tf import select
from finetune_tf.architectures import ClassificationHead, EndOfChain, Pooling
from finetune_tf.errors import CacheError, ModelError

CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def pair(make, learns, **options):
    """Two models with the same weights and the same frozen variables."""
    models = [make(**options) for _ in range(2)]
    models[1].set_weights(models[0].get_weights())
    for model in models:
        ft.train_only(model, learns)
    return models


def losses(model, inputs, targets):
    # Steps in proportion to gradients: Adam's make steps of 1e-2 of rounding errors of 1e-7.
    model.compile(keras.optimizers.SGD(0.1), CROSS_ENTROPY, run_eagerly=True)
    fit = model.fit(inputs, targets, batch_size=ROWS, epochs=3, shuffle=False, verbose=0)
    return fit.history["loss"]


DECODER = select.matching("decoder_(words|block|norm)|lm_head")
UPPER = select.matching("decoder_block_1|decoder_norm|lm_head")
T5 = {
    # If the tied table is frozen, the decoder's token embeddings are stored as well.
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


def assert_equal(mine, theirs):
    """Up to rounding: matrix products of other sizes are rounded differently on some processors."""
    np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=2e-6)


def assert_trains_as_the_whole(whole, cut, inputs, targets, shapes, **options):
    learner = ft.cache_features(cut, **options)
    features = learner.features(inputs)
    stored = {array.shape for name, array in features.items() if name.startswith("cached_")}
    assert stored == shapes
    assert_equal(learner(features), whole(inputs))
    expected = losses(whole, inputs, targets)
    assert_equal(losses(learner, features, targets), expected)
    assert len(set(expected)) == 3
    for mine, theirs in zip(cut.get_weights(), whole.get_weights(), strict=True):
        assert_equal(mine, theirs)
    assert_equal(cut(inputs), whole(inputs))


@pytest.mark.slow
@pytest.mark.parametrize("case", T5)
def test_encoder_and_decoder(case):
    options, learns, shapes = T5[case]
    whole, cut = pair(t5_like, learns, **options)
    assert_trains_as_the_whole(whole, cut, *t5_data(), shapes)


@pytest.mark.slow
@pytest.mark.parametrize("case", TOWERS)
def test_two_towers(case):
    learns, shapes = TOWERS[case]
    whole, cut = pair(two_towers, learns)
    assert_trains_as_the_whole(whole, cut, *tower_data(), shapes)


@pytest.mark.slow
@pytest.mark.parametrize("case", TOWERS)
def test_towers_that_are_models_of_their_own(case):
    learns, shapes = TOWERS[case]
    whole, cut = pair(two_towers, learns, nested=True)
    assert_trains_as_the_whole(whole, cut, *tower_data(), shapes)


def test_a_tied_table_that_learns_blocks_what_reads_it(capsys):
    model = t5_like()
    ft.train_only(model, select.embeddings() | select.head())
    message = (
        r"The lowest stage of the model is trainable \(shared, used in several places\), so every "
    )
    with pytest.raises(CacheError, match=message):
        ft.cache_features(model)


def test_where_a_tied_table_blocks_a_part_it_is_said(capsys):
    """A caption decoder that uses its token embedding table in two places."""
    pixels = keras.Input((8, 8, 3), name="pixels")
    ids = keras.Input((3,), dtype="int32", name="input_ids")
    patches = keras.layers.Conv2D(8, 4, 4, name="patches")(pixels)
    memory = EndOfChain(name="image")(Block()(keras.layers.Reshape((-1, 8))(patches)))
    words = keras.layers.Embedding(11, 8, name="words")
    hidden = Block(name="decoder_block_0")(words(ids), memory)
    hidden = Block(name="decoder_block_1")(words(ids) + hidden, memory)
    model = keras.Model([pixels, ids], keras.layers.Dense(11, name="top")(hidden))
    ft.train_only(model, select.head() | select.matching("words"))
    learner = ft.cache_features(model)
    assert (
        "words learns and is used in several places, so frozen stages that read it are computed in "
        "every step and not stored." in capsys.readouterr().out
    )
    assert {tensor.name for tensor in learner.inputs} == {"cached_features", "input_ids"}
    ft.train_only(model, select.head())
    ft.cache_features(model)
    assert "used in several places" not in capsys.readouterr().out


@pytest.mark.slow
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
    with pytest.raises(
        CacheError, match="'network' is not a Functional model, so it cannot be split"
    ):
        ft.cache_features(network)


@pytest.mark.slow
def test_batches_of_a_model_of_ours_have_all_that_is_stored(tiny_bert):
    """One chain is stored with one vector per token, the other with one vector per text."""
    info = small_task_model("two labels", tiny_bert).info

    def model():
        keras.utils.set_random_seed(0)
        ids = keras.Input((None,), dtype="int32", name="input_ids")
        mask = keras.Input((None,), dtype="int32", name="attention_mask")
        tokens = keras.layers.Embedding(VOCABULARY, 8, name="left_words")(ids)
        tokens = EndOfChain(name="left")(keras.layers.Dense(8, name="left_block_0")(tokens))
        text = keras.layers.Embedding(VOCABULARY, 8, name="right_words")(ids)
        text = Pooling("mean", name="pooling")(
            keras.layers.Dense(8, name="right_block_0")(text), mask
        )
        text = EndOfChain(name="right")(text)
        hidden = keras.layers.Dense(8, "tanh", name="top_block")(tokens) + text[:, None]
        hidden = Pooling("mean", name="pooling_1")(hidden, mask)
        logits = ClassificationHead(2, 0.0, name="classifier")(hidden)
        inputs = {"input_ids": ids, "attention_mask": mask}
        made = ft.FineTuneModel(inputs=inputs, outputs=logits, name="pair")
        made.info = info
        ft.freeze(made, select.chain("left") | select.chain("right"))
        return made

    whole, cut = model(), model()
    texts = ["a good film", "bad", "the story was very long and not good", "a dull film"]
    examples = ft.data.from_arrays(texts, ["neg", "pos", "pos", "neg"])
    learner = ft.cache_features(cut)
    (batch, _) = next(iter(examples.batches(learner, 4)))
    assert {name: tuple(array.shape) for name, array in batch.items()} == {
        "cached_features": (4, 10, 8),
        "cached_features_1": (4, 8),
        "attention_mask": (4, 10),
    }
    histories = []
    for learning in (whole, learner):
        learning.compile(**ft.presets.cross_entropy(learning_rate=1e-4))
        fit = learning.fit(examples.batches(learning, 4), epochs=2, verbose=0)
        histories.append(fit.history["loss"])
    np.testing.assert_allclose(histories[1], histories[0], rtol=1e-5)
    np.testing.assert_allclose(learner.predict(batch, verbose=0), whole.predict(
        next(iter(examples.batches(whole, 4)))[0], verbose=0), rtol=1e-5, atol=1e-6)  # fmt: skip
