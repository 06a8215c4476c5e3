"""Text generation: targets, training, perplexity, and the texts that it refuses."""

import numpy as np
import pytest

import finetune_tf as ft
from finetune_tf.errors import DataError, ModelError
from finetune_tf.messages import quiet
from finetune_tf.tasks import IGNORED

TEXTS = ["a very good film", "the actor was great", "a fine story", "a bad film and a dull story"]


@pytest.fixture
def model(tiny_decoder):
    with quiet():
        return ft.load(tiny_decoder)


def test_targets_are_the_next_tokens(model):
    encoded = ft.data.from_arrays(TEXTS).encoded(model)
    for ids, targets in zip(encoded.inputs["input_ids"], encoded.targets, strict=True):
        assert targets.tolist() == [*ids[1:], IGNORED]


def test_only_completions_have_targets(model):
    examples = ft.data.from_arrays(prompt=["a very", "the actor was"], completion=["good", "bad"])
    encoded = examples.encoded(model)
    words = model.tokenizer.convert_ids_to_tokens
    assert words(encoded.inputs["input_ids"][1].tolist()) == ["the", "actor", "was", "bad", "<end>"]
    assert encoded.targets[1][:2].tolist() == [IGNORED, IGNORED]
    assert words(encoded.targets[1][2:4].tolist()) == ["bad", "<end>"]


def test_a_completion_that_has_its_end_gets_no_second_one(model):
    pairs = {"prompt": ["a very"] * 2, "completion": ["good", "good <end>"]}
    ids = ft.data.from_arrays(**pairs).encoded(model).inputs["input_ids"]
    assert ids[0].tolist() == ids[1].tolist()


@pytest.mark.slow
def test_a_model_learns_its_texts(model):
    train = ft.data.from_arrays(prompt=["a very", "the actor was"], completion=["good film", "bad"])
    with quiet(), pytest.warns(UserWarning, match="learning rate"):
        model.compile(**ft.presets.cross_entropy(learning_rate=0.02, schedule="constant"))
        model.fit(train.batches(model, batch_size=2), epochs=40, verbose=0)
    assert ft.generate(model, ["a very", "the actor was"], max_new_tokens=5) == ["good film", "bad"]


@pytest.mark.slow
def test_perplexity_is_the_exponential_of_the_loss(model):
    test = ft.data.from_arrays(TEXTS, name="films")
    model.compile()
    loss = model.evaluate(test.batches(model, batch_size=4), verbose=0, return_dict=True)["loss"]
    with quiet():
        report = ft.evaluate(model, test, baseline="bigram", train=test)
    assert report.metrics["perplexity"] == pytest.approx(np.exp(loss), rel=1e-5)
    tokens = sum(len(text.split()) - 1 for text in TEXTS)
    scored = sum(len(text.partition(" ")[2].encode()) for text in TEXTS)  # all but the first words
    bits = loss * tokens / np.log(2) / scored
    assert report.metrics["bits_per_byte"] == pytest.approx(bits, rel=1e-5)
    assert report.baseline.metrics["perplexity"] < report.metrics["perplexity"]
    assert report.difference.metric == "perplexity" and "lower is better" in str(report)


def test_the_bigram_baseline(model):
    """Interpolated with single tokens: 0.8 of the bigrams, 0.2 of counts with one added."""
    train, test = ft.data.from_arrays(["a film a film a story"]), ft.data.from_arrays(["a film"])
    with quiet():
        report = ft.evaluate(model, test, baseline="bigram", train=train)
    counts = {"film": 2, "a": 2, "story": 1}
    single = (counts["film"] + 1) / (20 + 5)
    expected = 0.8 * 2 / 3 + 0.2 * single
    assert report.baseline.metrics["perplexity"] == pytest.approx(1 / expected)
    assert report.baseline.metrics["accuracy"] == 1.0


@pytest.mark.slow
def test_two_models_are_compared(model, tiny_decoder):
    with quiet():
        other = ft.load(tiny_decoder)
        comparison = ft.compare({"one": model, "two": other}, ft.data.from_arrays(TEXTS))
    assert comparison.rows[1].difference.value == 0.0


@pytest.mark.slow
def test_a_model_on_cached_features_generates_with_the_whole_model(model):
    train = ft.data.from_arrays(TEXTS)
    with quiet():
        ft.train_only(model, ~ft.select.embeddings() & ~ft.select.bottom(1))
        upper = ft.cache_features(model)
        upper.compile()
        upper.fit(train.batches(upper, batch_size=2), verbose=0)
        expected = ft.generate(model, "a very", max_new_tokens=4)
        assert ft.generate(upper, "a very", max_new_tokens=4) == expected
        scores = [ft.evaluate(m, train).metrics for m in (upper, model)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-5)


def test_what_is_refused(model):
    questions = ft.data.from_arrays(question=["a"], context=["a film"])
    with pytest.raises(ModelError, match="reads the column text, or prompt and completion, or"):
        questions.encoded(model)
    long = ft.data.from_arrays(prompt=["a " * 30], completion=["film"])
    with pytest.raises(DataError, match="prompt of 30 tokens, which leaves no room for its compl"):
        long.batches(model, batch_size=1)
    with pytest.raises(DataError, match="have one token each, so there is no token to predict"):
        ft.evaluate(model, ft.data.from_arrays(["a"]))
    with pytest.raises(DataError, match="predict continues prompts, found the texts of"):
        ft.predict(model, ft.data.from_arrays(TEXTS))
    with pytest.raises(DataError, match="expects prompts, not pairs of texts"):
        ft.predict(model, "a", text_pair="film")


def test_a_classifier_of_the_last_token(tiny_decoder):
    """The last token that is not padding decides, wherever the padding is."""
    with quiet():
        classifier = ft.load(tiny_decoder, labels=["bad", "good"])
    ids = np.array([[5, 7, 0, 0], [5, 7, 9, 4]])
    logits = np.asarray(classifier({"input_ids": ids}))
    alone = np.asarray(classifier({"input_ids": ids[:1, :2]}))
    np.testing.assert_allclose(logits[:1], alone, rtol=1e-5)


def test_models_with_other_tokens_are_not_compared(model, tiny_decoder):
    with quiet():
        other = ft.load(tiny_decoder)
    other.tokenizer.add_tokens(["very good"])
    with (
        quiet(),
        pytest.raises(ModelError, match="split the texts of arrays into different tokens"),
    ):
        ft.compare({"one": model, "two": other}, ft.data.from_arrays(TEXTS))


def test_the_score_of_a_text_does_not_depend_on_the_padding_of_its_batch(tiny_decoder):
    with quiet():
        classifier = ft.load(tiny_decoder, labels=["bad", "good"], config={"pad_token_id": 5})
    alone = ft.predict(classifier, "a very good").probabilities
    together = ft.predict(classifier, ["a very good", "a " * 9])[0].probabilities
    np.testing.assert_allclose(list(alone.values()), list(together.values()), rtol=1e-5)


def test_truncated_tests_are_told_and_their_bytes_do_not_count(model, capsys):
    long = ft.data.from_arrays(["film " * 40])
    metrics = ft.evaluate(model, long).metrics
    assert "1 of 1 texts are longer than 24 tokens" in capsys.readouterr().out
    tokens, size = 23, len(" ".join(["film"] * 23))
    expected = tokens * np.log2(metrics["perplexity"]) / size
    assert metrics["bits_per_byte"] == pytest.approx(expected, rel=1e-5)
