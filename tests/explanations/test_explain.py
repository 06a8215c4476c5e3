"""Explanations of texts, pairs, labels of words, and answers."""

import keras
import numpy as np
import pytest
from helpers_explanations import by_word, knowing_model
from helpers_tasks import small_task_model

import finetune_tf as ft
from finetune_tf.messages import quiet

TEXT = "a very good, long film"


@pytest.fixture(scope="module")
def model(tiny_bert):
    return knowing_model(tiny_bert)


@pytest.fixture(scope="module")
def tagger(tiny_bert):
    return small_task_model("tokens", tiny_bert)


@pytest.fixture(scope="module")
def reader(tiny_bert):
    return small_task_model("answers", tiny_bert)


def test_the_word_that_decides_has_the_score(model, capsys):
    explanation = ft.explain(model, TEXT)
    assert [word.text for word in explanation.words] == ["a", "very", "good", ",", "long", "film"]
    scores = by_word(explanation)
    assert explanation.target == explanation.prediction == "pos"
    others = [abs(score) for word, score in scores.items() if word != "good"]
    assert scores["good"] > 0.9 and max(others) < 1e-6
    assert [TEXT[word.start : word.end] for word in explanation.words] == list(scores)
    assert explanation.special == explanation.special_share == 0.0
    assert capsys.readouterr().out.startswith("Completeness error of integrated gradients: 0.0")


def test_the_prediction_is_explained_also_where_a_threshold_decides(tiny_bert):
    model = knowing_model(tiny_bert)
    model.config["label_thresholds"] = {"neg": 0.001}
    explanation = ft.explain(model, "a great film")
    assert ft.predict(model, "a great film").label == "neg"
    assert explanation.target == explanation.prediction == "neg"
    assert explanation.probability == pytest.approx(explanation.target_probability, abs=1e-6)
    assert explanation.probability < 0.5 and by_word(explanation)["great"] < 0


def test_the_most_probable_one_of_the_predicted_labels_is_explained(tiny_bert):
    model = small_task_model("several labels", tiny_bert)
    chances = ft.predict(model, TEXT).probabilities
    first, *_, last = sorted(chances, key=chances.get, reverse=True)
    model.config["label_thresholds"] = dict.fromkeys(chances, 1 - 1e-9) | {last: 1e-9}
    explanation = ft.explain(model, TEXT)
    assert explanation.target == explanation.prediction == last
    assert explanation.probability == pytest.approx(chances[last], abs=1e-6)
    model.config["label_thresholds"] = dict.fromkeys(chances, 1 - 1e-9)
    explanation = ft.explain(model, TEXT)
    assert (explanation.target, explanation.prediction) == (first, "no label")
    # The probability of a label is not that of "no label".
    assert explanation.probability is None
    assert str(explanation).splitlines()[0].endswith("the model predicts no label")


def test_scores_add_up_to_the_difference_from_the_baseline(model):
    explanation = ft.explain(model, TEXT, baseline="mask")
    total = sum(word.score for word in explanation.words) + explanation.special
    difference = explanation.score - explanation.baseline_score
    error = abs(total - difference) / abs(difference)
    assert explanation.completeness_error == pytest.approx(error, abs=1e-6)
    assert error < 0.001 and explanation.baseline == "mask"


@pytest.mark.jax
def test_the_explained_number_is_the_log_odds(model):
    explanation = ft.explain(model, TEXT, target="neg")
    prediction = ft.predict(model, TEXT)
    p = prediction.probabilities["neg"]
    assert explanation.target_probability == pytest.approx(p, abs=1e-6)
    assert explanation.score == pytest.approx(np.log(p / (1 - p)), abs=1e-4)
    assert explanation.probability == pytest.approx(prediction.score, abs=1e-6)
    # Of two labels, what speaks for one speaks against the other.
    for_pos, for_neg = by_word(ft.explain(model, TEXT)), by_word(explanation)
    assert for_neg["good"] == pytest.approx(-for_pos["good"], abs=1e-5)


def test_every_method_finds_the_word(model):
    for method in ("integrated-gradients", "gradient-x-input", "occlusion"):
        found = ft.explain(model, "a good film and a bad story", method=method, target="neg")
        scores = by_word(found)
        assert scores["bad"] > 0.1 and scores["good"] < -0.1, method
        assert found.strongest(2)[0].text in ("good", "bad")


def test_special_tokens_have_their_share(model):
    table = model.get_layer("embeddings").get_weights()[0]
    changed = table.copy()
    changed[2, 0] = 1.0  # [CLS]
    model.get_layer("embeddings").set_weights([changed])
    found = ft.explain(model, "good", baseline="zeros")
    padding = ft.explain(model, "good")  # special tokens remain in this baseline
    model.get_layer("embeddings").set_weights([table])
    assert 0.2 < found.special_share < 0.4 and found.special > 0
    assert padding.special_share == 0.0


@pytest.mark.slow
def test_several_texts_have_several_explanations(model):
    texts = ["a good film", "a dull film", "a film"]
    found = ft.explain(model, texts)
    assert isinstance(found, list) and [each.prediction for each in found][:2] == ["pos", "neg"]
    alone = [ft.explain(model, text) for text in texts]
    for together, single in zip(found, alone, strict=True):
        for one, other in zip(together.words, single.words, strict=True):
            assert one.score == pytest.approx(other.score, abs=1e-6)
    given = ft.explain(model, ft.data.from_arrays(texts, ["pos", "neg", "pos"]))
    assert [str(each) for each in given] == [str(each) for each in found]
    targets = ft.explain(model, texts, target=["neg", None, "pos"])
    assert [each.target for each in targets] == ["neg", "neg", "pos"]
    assert ft.explain(model, []) == []


def test_both_texts_of_a_pair(model):
    found = ft.explain(model, "a good film", "a bad film")
    assert [(word.column, word.text) for word in found.words] == [
        *(("text", word) for word in ("a", "good", "film")),
        *(("text_pair", word) for word in ("a", "bad", "film")),
    ]
    scores = {word.text: word.score for word in found.words}
    assert scores["good"] * scores["bad"] < 0
    assert found.texts == {"text": "a good film", "text_pair": "a bad film"}


def test_what_is_truncated_has_no_score(model):
    text = " ".join(["film"] * 40)
    with quiet():
        found = ft.explain(model, text)
    assert len(found.words) == 30 and found.texts["text"] == text


def test_several_labels_and_a_number(tiny_bert):
    several = small_task_model("several labels", tiny_bert)
    found = ft.explain(several, "a good film", target="b")
    logits = ft.predict(several, "a good film").probabilities["b"]
    assert found.target_probability == pytest.approx(logits, abs=1e-6)
    number = small_task_model("number", tiny_bert)
    found = ft.explain(number, "a good film")
    assert found.score == pytest.approx(ft.predict(number, "a good film").score, abs=1e-5)
    assert found.target == "stars" and found.target_probability is None
    assert found.probability is None


def test_a_label_of_a_word(tagger):
    sentence = ["a", "good", "film", "was", "good"]
    found = ft.explain(tagger, [sentence], target=(2, "B-X"))[0]
    assert found.target == "B-X of 'film'"
    assert [word.text for word in found.words] == sentence
    # The small model reads each token alone, so only the word itself has a score.
    others = [abs(word.score) for i, word in enumerate(found.words) if i != 2]
    assert abs(found.words[2].score) > 0.1 and max(others) < 1e-6
    by_name = ft.explain(tagger, " ".join(sentence), target=("film", "B-X"))
    assert by_name.words[2].score == pytest.approx(found.words[2].score, abs=1e-5)


@pytest.mark.slow
def test_the_default_is_the_word_that_is_labeled_most_certainly(tagger):
    text = "a good film was very dull"
    found = ft.explain(tagger, text)
    entities = ft.predict(tagger, text)
    inside = [word for entity in entities for word in entity.text.split()]
    label, word = found.target.split(" of ")
    assert label != "O" and word.strip("'") in inside
    assert found.prediction == found.target
    of_label = ft.explain(tagger, text, target="O")
    assert of_label.target.startswith("O of ")
    of_word = ft.explain(tagger, text, target="film")
    assert of_word.target == of_word.prediction and of_word.target.endswith("of 'film'")


@pytest.mark.slow
def test_the_start_and_the_end_of_an_answer(reader):
    asked = {"question": "a good film", "context": "the actor was very good and the story dull"}
    found = ft.explain(reader, **asked, target="very good")
    assert found.target == "'very good'"
    assert found.texts == asked
    assert [word.text for word in found.words if word.column == "question"] == ["a", "good", "film"]
    start = ft.explain(reader, **asked, target="start")
    end = ft.explain(reader, **asked, target="end")
    assert start.target.startswith("the start of") and end.target.startswith("the end of")
    answer = ft.predict(reader, **asked)
    whole = ft.explain(reader, **asked)
    assert whole.prediction == (repr(answer.text) if answer.text else "no answer")
    product = start.target_probability * end.target_probability
    assert whole.target_probability == pytest.approx(product, abs=1e-5)


def test_an_answer_in_one_of_several_windows(reader):
    context = " ".join(["the story was long"] * 12 + ["the film was very good"])
    with quiet():
        found = ft.explain(reader, question="a film", context=context, target="very good")
    read = [word for word in found.words if word.column == "context"]
    assert found.target == "'very good'" and "very" in [word.text for word in read]
    assert read[0].start > 0  # the window does not begin with the context
    assert [context[word.start : word.end] for word in read] == [word.text for word in read]


@pytest.mark.slow
def test_nearest_training_examples(model, capsys):
    texts = ["a good story", "a dull story", "great", "a bad actor", "was"]
    train = ft.data.from_arrays(texts, ["pos", "neg", "pos", "neg", "neg"], name="train")
    found = ft.explain(model, "a good film", method="nearest", examples=train, neighbors=2)
    assert found.neighbors[0].text == "a good story" and found.neighbors[0].label == "pos"
    assert [neighbor.row for neighbor in found.neighbors] == [0, 2]
    assert found.neighbors[0].similarity == pytest.approx(1.0, abs=1e-5)
    assert "Vectors of train below the head: computed once" in capsys.readouterr().out
    ft.explain(model, "dull", method="nearest", examples=train)
    assert "computed once" not in capsys.readouterr().out
    model.get_layer("classifier").trainable_variables[0].assign_add(keras.ops.ones((8, 2)))
    ft.explain(model, "dull", method="nearest", examples=train)  # the head plays no part
    assert "computed once" not in capsys.readouterr().out
    model.get_layer("classifier").trainable_variables[0].assign_add(-keras.ops.ones((8, 2)))


def test_labels_of_neighbors_are_names(model):
    train = ft.data.from_arrays(["a good film", "a bad film"], [1, 0], labels=["neg", "pos"])
    with quiet():
        found = ft.explain(model, "a good film", method="nearest", examples=train, neighbors=2)
    assert [each.label for each in found.neighbors] == ["pos", "neg"]


def test_the_advice_is_more_steps_than_were_taken(tiny_bert, capsys):
    model = knowing_model(tiny_bert)
    model.get_layer("block_0").set_weights([np.eye(8) * 9, np.zeros(8)])  # nearly a step
    ft.explain(model, "a good film", steps=3)
    assert "More steps make it smaller: steps=12." in capsys.readouterr().out
