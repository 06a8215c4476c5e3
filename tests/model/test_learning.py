"""Random models learn small tasks, from texts to predictions and through a saved checkpoint."""

import keras
import numpy as np
import pytest
from helpers_models import CHINESE, ENGLISH, write_checkpoint

import finetune_tf as ft

# A random model has no pretrained weights that a high rate could destroy.
pytestmark = pytest.mark.filterwarnings("ignore:A learning rate of 0.01")


@pytest.fixture(scope="module")
def one_block(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("learning") / "one-block", blocks=1)


def sentences(rows, words, seed, length=5):
    random = np.random.default_rng(seed)
    return [list(random.choice(words, length, replace=False)) for _ in range(rows)]


def data(words, label, rows=192, seed=0, separator=" ", **kwargs):
    """Random sentences with the labels that `label` assigns to their words."""
    texts = sentences(rows, words, seed)
    return ft.data.from_arrays(
        [separator.join(text) for text in texts], [label(text) for text in texts], **kwargs
    )


def train(model, examples, epochs=6):
    keras.utils.set_random_seed(0)
    model.compile(**getattr(ft.presets, PRESETS[model.labels.problem_type])(learning_rate=0.01))
    model.fit(examples.batches(model, batch_size=16, shuffle=True), epochs=epochs, verbose=0)
    return model


PRESETS = {
    "single_label_classification": "cross_entropy",
    "multi_label_classification": "binary_cross_entropy",
    "regression": "mean_squared_error",
}


def test_one_label(one_block):
    def mood(text):
        return "good" if "good" in text else "other"

    words = ENGLISH[:10]
    examples = data(words, mood)
    model = train(ft.load(one_block, labels=examples.labels), examples)
    report = ft.evaluate(model, data(words, mood, seed=1))
    assert report.metrics["accuracy"] > 0.9


@pytest.mark.slow
def test_several_labels(one_block):
    def topics(text):
        return [word for word in ("film", "story", "actor") if word in text]

    words = ["film", "story", "actor", "a", "the", "was", "very", "good", "bad"]
    examples = data(words, topics)
    assert examples.labels.problem_type == "multi_label_classification"
    model = train(ft.load(one_block, labels=examples.labels, pooling="mean"), examples)
    test = data(words, topics, rows=64, seed=1)
    predictions = ft.predict(model, test.columns["text"])
    right = [
        set(prediction.label) == set(label)
        for prediction, label in zip(predictions, test.columns["label"], strict=True)
    ]
    assert np.mean(right) > 0.9


@pytest.mark.slow
def test_a_number(one_block):
    def stars(text):
        return 2.0 * ("good" in text) - 1.0 * ("bad" in text)

    words = ENGLISH[:10]
    examples = data(words, stars, problem_type="regression")
    assert examples.labels.problem_type == "regression"
    model = train(ft.load(one_block, labels=examples.labels), examples, epochs=10)
    test = data(words, stars, rows=64, seed=1, problem_type="regression")
    scores = [prediction.score for prediction in ft.predict(model, test.columns["text"])]
    assert np.corrcoef(scores, test.columns["label"])[0, 1] > 0.99
    assert np.abs(np.subtract(scores, test.columns["label"])).mean() < 0.1


@pytest.mark.slow
def test_chinese_the_whole_road(tiny_chinese_bert, tmp_path):
    """From sentences to a report, a saved checkpoint and its predictions."""
    vocabulary = [*"这部电影很的我", "好", "坏"]
    assert set(vocabulary) <= set(CHINESE)

    def mood(text):
        return "好评" if "好" in text else "其他"

    examples = data(vocabulary, mood, separator="")
    test = data(vocabulary, mood, rows=64, seed=1, separator="")
    model = train(ft.load(tiny_chinese_bert, labels=examples.labels), examples)

    report = ft.evaluate(model, test, baseline="tfidf", train=examples)
    assert report.metrics["accuracy"] > 0.9
    assert "tfidf" in str(report)

    texts = ["这部电影很好", "这部电影很坏"]
    before = ft.predict(model, texts)
    assert [prediction.label for prediction in before] == ["好评", "其他"]
    saved = model.save_pretrained(tmp_path / "film-critic")
    again = ft.load(saved)
    assert again.labels == examples.labels
    for prediction, expected in zip(ft.predict(again, texts), before, strict=True):
        assert prediction.label == expected.label
        assert prediction.score == pytest.approx(expected.score, abs=1e-6)


@pytest.mark.slow
def test_a_trained_head_goes_on_learning_after_a_reload(one_block, tmp_path):
    def mood(text):
        return "good" if "good" in text else "other"

    examples = data(ENGLISH[:10], mood)
    model = train(ft.load(one_block, labels=examples.labels), examples, epochs=2)
    again = ft.load(model.save_pretrained(tmp_path / "half-way"))
    with ft.messages.quiet():
        again.compile()
    batches = examples.batches(again, batch_size=64)
    model_loss = model.evaluate(batches, verbose=0, return_dict=True)["loss"]
    assert again.evaluate(batches, verbose=0, return_dict=True)["loss"] == pytest.approx(
        model_loss, abs=1e-5
    )
    train(again, examples, epochs=3)
    assert again.evaluate(batches, verbose=0, return_dict=True)["loss"] < model_loss
