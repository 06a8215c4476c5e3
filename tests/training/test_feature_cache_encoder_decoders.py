"""A frozen encoder below a decoder is computed once, and batches have the lengths of both sides."""

import numpy as np
import pytest
from helpers_text_to_text import write_t5

import finetune_tf as ft
from finetune_tf import select
from finetune_tf.messages import quiet

SOURCES = ["a good film", "the actor was very bad", "bad"]
TARGETS = ["ein guter Film", "der Schauspieler war sehr schlechter", "sehr schlechter"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_t5(tmp_path_factory.mktemp("t5") / "tiny", num_layers=2)


@pytest.fixture(scope="module")
def pairs():
    return ft.data.from_arrays(source=SOURCES, target=TARGETS)


@pytest.mark.slow
@pytest.mark.parametrize(
    "learns",
    [select.blocks(0, chain="decoder"), select.blocks(-1, chain="decoder")],
    ids=["first block of the decoder", "last block of the decoder"],
)
def test_training_on_stored_features_is_training_the_whole(folder, pairs, learns):
    losses = []
    for is_cached in (False, True):
        with quiet():
            model = ft.load(folder, "text2text-generation", dropout=0.0)
            ft.train_only(model, learns)
            learner = ft.cache_features(model) if is_cached else model
            learner.compile(**ft.presets.cross_entropy(learning_rate=1e-4))
            batches = pairs.batches(learner, batch_size=len(pairs), prefix="")
            losses.append(learner.fit(batches, epochs=3, verbose=0).history["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert len(set(losses[0])) == 3


@pytest.mark.slow
def test_stored_features_give_the_logits_of_the_whole(folder, pairs):
    with quiet():
        model = ft.load(folder, "text2text-generation", dropout=0.0)
        ft.train_only(model, select.blocks(-1, chain="decoder"))
        learner = ft.cache_features(model)
        inputs, targets = next(iter(pairs.batches(model, batch_size=3, prefix="")))
        stored, stored_targets = next(iter(pairs.batches(learner, batch_size=3, prefix="")))
    np.testing.assert_array_equal(stored_targets, targets)
    real = np.asarray(inputs["decoder_attention_mask"])[:, :, None]
    found, expected = np.asarray(learner(stored)) * real, np.asarray(model(inputs)) * real
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
