"""Pairs of texts that are compared: both are in one packed row, and empty places are no pairs."""

import json

import keras
import numpy as np
import pytest
from helpers_models import write_checkpoint

import finetune_tf as ft
from finetune_tf.errors import DataError, ModelError
from finetune_tf.messages import quiet

pytestmark = [pytest.mark.jax, pytest.mark.filterwarnings("ignore:A learning rate of")]
TEXTS = [f"the {'very ' * (i % 4)}good film" for i in range(9)]
OTHERS = [f"a {'dull and ' * (i % 3)}short story" for i in range(9)]
SCORES = [float(i * 5 % 9) for i in range(9)]
WEIGHTS = np.array([1.0, 3.0, 0.0, 0.5, 2.0, 4.0, 1.0, 0.1, 2.0], "float32")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A BERT whose vectors are means of tokens, and one that also gives them the length 1."""
    made = {}
    for name, last in (("mean", []), ("unit", ["Normalize"])):
        folder = write_checkpoint(tmp_path_factory.mktemp(name) / "bert")
        parts = enumerate(["Transformer", "Pooling", *last])
        listed = [{"idx": i, "type": f"sentence_transformers.models.{part}"} for i, part in parts]
        (folder / "modules.json").write_text(json.dumps(listed))
        (folder / "1_Pooling").mkdir()
        config = {"pooling_mode_mean_tokens": True}
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))
        (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 32}))
        made[name] = folder
    return made


def made(folder, scores, **options):
    """A model and one batch of all pairs."""
    labels = {"label": SCORES} if scores else {}
    examples = ft.data.from_arrays(text=TEXTS, text_pair=OTHERS, **labels)
    with quiet():
        model = ft.load(folder, "feature-extraction", dropout=0.0)
        model.compile(keras.optimizers.SGD(1.0))
        batches = examples.batches(model, 9, **options)
        (batch,) = batches.as_numpy_iterator()
    return model, batches, batch


def pairs_of(batches):
    """For each place of a pair, the number of the pair; -1 for an empty place."""
    places = batches.places_of_texts()
    of_pairs = np.full(next(iter(batches.as_numpy_iterator()))[0]["text_starts"].size // 2, -1)
    of_pairs[places[::2] // 2] = np.arange(len(places) // 2)
    np.testing.assert_array_equal(places[1::2], places[::2] + 1)
    return of_pairs


@pytest.mark.parametrize("scores", [True, False], ids=["scores", "no scores"])
def test_both_texts_of_a_pair_are_neighbours(folders, scores):
    model, batches, (inputs, targets) = made(folders["mean"], scores, packing=32)
    of_pairs = pairs_of(batches)
    assert (of_pairs == -1).any() and (inputs["text_starts"] == -1).any()
    if scores:
        expected = np.where(of_pairs >= 0, np.array(SCORES)[of_pairs], np.nan)
        np.testing.assert_array_equal(targets, expected)
    else:
        assert targets.shape == (len(of_pairs), 0)
    starts = inputs["text_starts"].reshape(len(inputs["input_ids"]), -1, 2)
    for row, ids in enumerate(inputs["input_ids"]):
        for place, (first, second) in enumerate(starts[row]):
            pair = of_pairs[row * starts.shape[1] + place]
            if pair >= 0:
                for start, text in ((first, TEXTS[pair]), (second, OTHERS[pair])):
                    wanted = model.tokenizer(text)["input_ids"]
                    np.testing.assert_array_equal(ids[start : start + len(wanted)], wanted)


def test_vectors_are_in_the_order_of_the_pairs(folders):
    model, packed, _ = made(folders["unit"], True, packing=32)
    _, padded, _ = made(folders["unit"], True, buckets=1)
    found, expected = (model.predict(batches, verbose=0) for batches in (packed, padded))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert len(found) == 2 * len(TEXTS)


def step(folder, scores, weights, packing):
    """The loss of a step, and the gradient of all weights."""
    options = {"packing": 32} if packing else {"buckets": 1}
    model, batches, batch = made(folder, scores, **options)
    if weights is not None and packing:
        of_pairs = pairs_of(batches)
        weights = np.where(of_pairs >= 0, weights[of_pairs], 9.0).astype("float32")
    before = np.concatenate([np.ravel(v) for v in model.trainable_variables])
    loss = model.train_on_batch(*batch, weights, return_dict=True)["loss"]
    after = np.concatenate([np.ravel(v) for v in model.trainable_variables])
    return loss, before - after


@pytest.mark.slow
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
@pytest.mark.parametrize("scores", [True, False], ids=["scores", "no scores"])
@pytest.mark.parametrize("kind", ["mean", "unit"])
def test_a_step_equals_that_of_padded_pairs(folders, kind, scores, weights):
    """Empty places are no negatives of the other pairs either."""
    loss, gradient = step(folders[kind], scores, weights, packing=False)
    packed_loss, packed_gradient = step(folders[kind], scores, weights, packing=True)
    assert packed_loss == pytest.approx(loss, rel=1e-5)
    assert np.linalg.norm(packed_gradient - gradient) < 1e-5 * np.linalg.norm(gradient)


@pytest.mark.slow
@pytest.mark.parametrize("scores", [True, False], ids=["scores", "no scores"])
def test_a_fit(folders, scores):
    labels = {"label": SCORES * 3} if scores else {}
    examples = ft.data.from_arrays(text=TEXTS * 3, text_pair=OTHERS * 3, **labels)
    with quiet():
        model = ft.load(folders["unit"], "feature-extraction")
        model.compile(**ft.presets.similarity(learning_rate=1e-3))
        batches = examples.batches(model, 9, shuffle=True, packing=True)
        losses = model.fit(batches, epochs=6, validation_data=batches, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


class TestRefusals:
    def test_pairs_that_are_longer_than_a_row(self, folders):
        text = "very " * 20
        examples = ft.data.from_arrays(text=[text, "a film"], text_pair=[text, "a story"])
        with quiet():
            model = ft.load(folders["mean"], "feature-extraction")
        with pytest.raises(DataError, match="a pair of them has 44 tokens, but a row at most 32"):
            examples.batches(model, 2, packing=True)
        with pytest.raises(DataError, match="packing=10 is less than the 11 tokens of the longest"):
            ft.data.from_arrays(text=TEXTS[:1], text_pair=["a very short story"]).batches(
                model, packing=10
            )

    def test_metrics_of_vectors(self, folders):
        examples = ft.data.from_arrays(text=TEXTS, text_pair=OTHERS, label=SCORES)
        with quiet():
            model = ft.load(folders["mean"], "feature-extraction")
            model.compile(keras.optimizers.SGD(1.0), metrics=[keras.metrics.CosineSimilarity()])
            (batch,) = examples.batches(model, 9, packing=32).as_numpy_iterator()
        with pytest.raises(ModelError, match="metric 'cosine_similarity' is not known to leave"):
            model.train_on_batch(*batch)
