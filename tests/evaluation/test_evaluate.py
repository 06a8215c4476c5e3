"""Models with hand-written weights on texts of a few words."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest

from finetune_tf.base.labels import Labels
from finetune_tf.data import Examples
from finetune_tf.errors import DataError, DataTypeError, ModelError
from finetune_tf.evaluation import Prediction, compare, evaluate, predict
from finetune_tf.tasks import get_task

WORDS = ["[PAD]", "good", "bad", "dull", "fun"]
MOODS = Labels(["negative", "positive"])
TOPICS = Labels(["food", "price"], "multi_label_classification")
STARS = Labels(["stars"])


def tokenizer(texts, pairs=None, **_):
    """Returns token ids, of the text and then of the second text."""
    numbers = [[WORDS.index(word) for word in text.split()] for text in texts]
    others = [[WORDS.index(word) for word in text.split()] for text in pairs or [""] * len(texts)]
    return {
        "input_ids": [a + b for a, b in zip(numbers, others, strict=True)],
        "token_type_ids": [
            [0] * len(a) + [1] * len(b) for a, b in zip(numbers, others, strict=True)
        ],
    }


tokenizer.pad_token_id = 0


class WordModel(keras.Model):
    """Sums a score of each word for each label; words of the second text are subtracted."""

    def __init__(self, labels, says, **kwargs):
        names = ("input_ids", "token_type_ids", "attention_mask")
        inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in names}
        words = keras.layers.Embedding(len(WORDS), len(labels))
        sides = keras.ops.cast(
            inputs["attention_mask"] * (1 - 2 * inputs["token_type_ids"]), "float32"
        )
        logits = keras.ops.sum(words(inputs["input_ids"]) * sides[:, :, None], axis=1)
        super().__init__(inputs, logits, **kwargs)
        words.set_weights([np.array([says.get(word, [0.0] * len(labels)) for word in WORDS])])
        self._known = SimpleNamespace(labels=labels, tokenizer=tokenizer)

    task = property(lambda self: get_task("text-classification", self.labels))
    max_length = row_length = 8
    labels = property(lambda self: self._known.labels)
    tokenizer = property(lambda self: self._known.tokenizer)


@pytest.fixture(scope="module")
def critic():
    return WordModel(MOODS, {"good": [0, 2], "fun": [0, 1], "bad": [2, 0]}, name="critic")


@pytest.fixture(scope="module")
def grumbler():
    # Its labels are in the reverse order, and it predicts "bad" for every text.
    return WordModel(
        Labels(["positive", "negative"]), {word: [0, 1] for word in WORDS[1:]}, name="grumbler"
    )


@pytest.fixture(scope="module")
def star_counter():
    return WordModel(STARS, {"good": [2.0], "fun": [1.0], "bad": [-2.0]})


REVIEWS = Examples(
    {
        "text": ["good fun", "bad", "fun good good good", "dull bad bad"],
        "label": ["positive", "negative", "positive", "positive"],
    },
    MOODS,
    "reviews",
)
STAR_REVIEWS = Examples(
    {"text": ["good", "fun", "bad", "good good"], "label": [2.0, 1.0, -2.0, 4.0]}, STARS, "stars"
)
TRAIN = Examples(
    {
        "text": ["good", "good fun", "fun", "bad", "bad dull", "dull bad bad"] * 3,
        "label": ["positive", "positive", "positive", "negative", "negative", "negative"] * 3,
    },
    MOODS,
    "train",
)


def softmax(*logits):
    return np.exp(logits) / np.sum(np.exp(logits))


def test_predict_one_text(critic):
    prediction = predict(critic, "good fun")

    negative, positive = softmax(0, 3)
    assert prediction.label == "positive"
    assert prediction.score == pytest.approx(positive)
    assert prediction.probabilities == pytest.approx({"negative": negative, "positive": positive})
    assert repr(prediction) == "Prediction('positive', 0.953)"


def test_predict_keeps_the_order_of_texts(critic):
    texts = ["bad dull dull dull", "good", "bad", "good fun fun"]

    predictions = predict(critic, texts, batch_size=2)

    assert [p.label for p in predictions] == ["negative", "positive", "negative", "positive"]
    assert predictions[3].score == pytest.approx(softmax(0, 4)[1])
    assert predict(critic, ["good"])[0].label == "positive"
    assert predict(critic, []) == []


def test_predict_examples(critic):
    texts = ["bad dull dull dull", "good", "bad"]
    examples = Examples({"text": texts, "label": [1, 0, 0]}, MOODS)

    assert predict(critic, examples) == predict(critic, texts)
    with pytest.raises(DataError, match="together with text_pair. Examples bring their own colum"):
        predict(critic, examples, text_pair=texts)


def test_predict_several_labels():
    model = WordModel(TOPICS, {"good": [3, 1], "bad": [-1, -2]})

    both, none = predict(model, ["good", "bad"])

    assert both.label == ["food", "price"]
    assert none.label == []
    assert none.score == pytest.approx(1 / (1 + np.e))
    assert repr(both) == "Prediction(['food', 'price'], 0.953)"


def test_predict_a_number(star_counter):
    assert predict(star_counter, "good fun") == Prediction(None, 3.0, {})
    assert repr(predict(star_counter, "bad")) == "Prediction(-2.000)"


def test_predict_pairs(star_counter):
    assert predict(star_counter, "good good", text_pair="fun").score == 3.0
    assert [p.score for p in predict(star_counter, ["good", "fun"], ["bad", "fun"])] == [4.0, 0.0]


@pytest.mark.parametrize("texts", [7, [101, 102], {"text": ["good"]}, b"good"])
def test_predict_refuses_what_is_no_text(critic, texts):
    with pytest.raises(DataTypeError, match="The column 'text' of texts must hold texts"):
        predict(critic, texts)


def test_predict_refuses_one_partner_for_many_texts(critic):
    with pytest.raises(DataError, match="two lists of equal length, found list and str"):
        predict(critic, ["good", "bad"], text_pair="fun")


def test_predict_needs_a_model_that_knows_its_labels():
    plain = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])

    with pytest.raises(ModelError, match=r"as returned by ft\.load, found Sequential"):
        predict(plain, "good")


def test_broken_weights_are_told():
    model = WordModel(MOODS, {"good": [0, np.nan]})

    with pytest.raises(ModelError, match="not a finite number for 1 of 2 texts"):
        predict(model, ["good", "bad"])


def test_evaluate_alone(critic):
    report = evaluate(critic, REVIEWS)

    assert report.metrics["accuracy"] == 0.75
    assert report.predictions.tolist() == [1, 0, 1, 0]
    assert report.targets.tolist() == [1, 0, 1, 1]
    assert report.confusion.tolist() == [[1, 0], [1, 2]]
    assert report.per_class["negative"]["precision"] == 0.5
    assert (report.baseline, report.difference, report.duplicates) == (None, None, None)
    assert (report.name, report.labels) == ("reviews", MOODS)


def test_evaluate_against_a_named_baseline(critic):
    report = evaluate(critic, REVIEWS, baseline="majority", train=TRAIN[:5])

    # Three of five training texts are positive.
    assert report.baseline.name == "majority"
    assert report.baseline.metrics["accuracy"] == 0.75
    assert report.difference.value == 0.0
    assert report.duplicates == 2


def test_auto_is_tfidf_for_classes_and_ridge_for_numbers(critic, star_counter):
    report = evaluate(critic, REVIEWS, baseline="auto", train=TRAIN)
    assert report.baseline.name == "tfidf"
    assert report.baseline.metrics["accuracy"] == 0.75

    report = evaluate(star_counter, STAR_REVIEWS, baseline="auto", train=STAR_REVIEWS)
    assert report.baseline.name == "ridge"
    assert report.metrics["pearson"] == pytest.approx(1.0)
    assert report.duplicates == 4


def test_evaluate_against_another_model_with_labels_in_another_order(critic, grumbler):
    report = evaluate(critic, REVIEWS, baseline=grumbler)

    assert report.baseline.name == "grumbler"
    assert report.baseline.metrics["accuracy"] == 0.25
    assert report.difference.value == 0.5


@pytest.mark.parametrize(
    "given",
    [
        ["negative", "negative", "positive", "negative"],
        np.array([0, 0, 1, 0]),
        np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [1.0, 0.0]]),
    ],
    ids=["names", "numbers", "probabilities"],
)
def test_evaluate_against_given_predictions(critic, given):
    report = evaluate(critic, REVIEWS, baseline=given)

    assert report.baseline.metrics["accuracy"] == 0.5
    assert report.difference.value == 0.25


def test_given_predictions_of_several_labels_and_of_numbers(star_counter):
    model = WordModel(TOPICS, {"good": [3, 1], "bad": [-1, -2]})
    test = Examples({"text": ["good", "bad"], "label": [["food", "price"], []]}, TOPICS)

    for given in ([["food"], []], np.array([[0.7, 0.1], [0.2, 0.2]])):
        report = evaluate(model, test, baseline=given)
        assert report.metrics["micro_f1"] == 1.0
        assert report.baseline.metrics["micro_f1"] == pytest.approx(2 / 3)

    for given in ([0, 0, 0, 1], np.zeros((4, 1))):
        assert evaluate(star_counter, STAR_REVIEWS, baseline=given).metrics["mae"] == 0.0


def test_evaluate_says_what_is_wrong_with_the_baseline(critic, star_counter):
    with pytest.raises(DataError, match=r"'bert' for single label .* \['tfidf', 'majority'\]"):
        evaluate(critic, REVIEWS, baseline="bert")
    with pytest.raises(DataError, match=r"'tfidf' for regression.* \['ridge', 'mean'\]"):
        evaluate(star_counter, STAR_REVIEWS, baseline="tfidf")
    with pytest.raises(DataError, match="'tfidf' learns from the training examples: give train="):
        evaluate(critic, REVIEWS, baseline="auto")
    with pytest.raises(DataError, match="one per text of reviews: expected 4, found 3"):
        evaluate(critic, REVIEWS, baseline=["positive"] * 3)
    with pytest.raises(
        ModelError, match="need the same labels: expected .*negative.* found .*star"
    ):
        evaluate(critic, REVIEWS, baseline=star_counter)


def test_evaluate_needs_labels(critic):
    with pytest.raises(DataError, match="raw has no labels, so nothing can be measured on it"):
        evaluate(critic, Examples({"text": ["good"]}, name="raw"))


def test_compare(critic, grumbler):
    comparison = compare(
        {"critic": critic, "grumbler": grumbler}, REVIEWS, baseline="majority", train=TRAIN[:5]
    )

    first, second, baseline = comparison.rows
    assert (first.name, second.name, baseline.name) == ("critic", "grumbler", "baseline majority")
    assert [row.metrics["accuracy"] for row in comparison.rows] == [0.75, 0.25, 0.75]
    assert [row.trainable_parameters for row in comparison.rows] == [10, 10, None]
    assert first.difference is None
    assert second.difference.value == -0.5
    assert (baseline.difference.value, comparison.duplicates) == (0.0, 2)


def test_compare_needs_names(critic):
    with pytest.raises(DataError, match="a dict of name to model, .* found list"):
        compare([critic], REVIEWS)


def test_batches_are_no_examples(critic):
    message = r"read Examples, found list\. Give what from_csv and its kin return, not its batches"
    with pytest.raises(DataTypeError, match=message):
        evaluate(critic, [REVIEWS])
    with pytest.raises(DataTypeError, match=message):
        evaluate(critic, REVIEWS, train=[TRAIN])
    with pytest.raises(DataTypeError, match=message):
        compare({"critic": critic}, [REVIEWS])
