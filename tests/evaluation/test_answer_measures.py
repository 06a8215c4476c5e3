"""Exact match and F1 of SQuAD on examples calculated by hand."""

import numpy as np
import pytest

from finetune_tf.data import from_arrays
from finetune_tf.evaluation.bootstrap import paired_bootstrap
from finetune_tf.evaluation.evaluators.answer_scores import (
    best_scores,
    exact_match,
    f1_score,
    normalized,
)
from finetune_tf.evaluation.evaluators.registry import EVALUATORS
from finetune_tf.tasks import get_task

MEASURE = EVALUATORS["question-answering"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Eiffel-Tower.", "eiffeltower"),
        ("an apple, a pear", "apple pear"),
        ("Theatre", "theatre"),
        ("U.S.A.", "usa"),
        ("'Sgt. Pepper's'\n", "sgt peppers"),
        ("the", ""),
        ("1,000 €", "1000 €"),
    ],
)
def test_normalization(text, expected):
    assert normalized(text) == expected


@pytest.mark.parametrize(
    ("answer", "accepted", "exact", "f1"),
    [
        ("October 1973", "october, 1973", 1, 1),
        ("in October 1973", "October 1973", 0, 2 * 2 / 5),
        ("1973", "October 1973", 0, 2 * 1 / 3),
        ("the cat the cat", "a cat", 0, 2 * 1 / 3),  # each word as often as it occurs
        ("Paris", "London", 0, 0),
        ("", "London", 0, 0),
        ("Paris", "", 0, 0),
        ("", "", 1, 1),
        ("the", "", 1, 1),
    ],
)
def test_exact_match_and_f1(answer, accepted, exact, f1):
    assert exact_match(answer, accepted) == exact
    assert f1_score(answer, accepted) == pytest.approx(f1)


def test_the_maximum_over_accepted_answers():
    accepted = [["October 1973", "1973"], ["the"], []]

    assert best_scores(f1_score, accepted, ["1973", "", "x"]).tolist() == [1, 1, 0]


def test_metrics_of_answerable_questions():
    metrics = MEASURE.measure([["good film"], ["actor"]], ["a good film", "actor was"], None)

    assert metrics == pytest.approx({"f1": (1 + 2 / 3) / 2, "exact_match": 0.5})
    assert next(iter(metrics)) == MEASURE.main_metric


def test_metrics_with_unanswerable_questions():
    targets = [["good film"], ["actor"], [], []]

    metrics = MEASURE.measure(targets, ["good film", "", "", "dull"], None)

    expected = {"f1": 0.5, "exact_match": 0.5, "has_answer_f1": 0.5, "no_answer_accuracy": 0.5}
    assert metrics == expected
    assert set(MEASURE.measure([[]], [""], None)) == {"f1", "exact_match", "no_answer_accuracy"}


def test_interval():
    targets = [["good film"]] * 30 + [["actor"]] * 10
    predictions, others = ["good film"] * 40, ["good story"] * 40

    difference = paired_bootstrap(MEASURE, targets, predictions, others)

    assert difference.value == pytest.approx(0.75 * 0.5)
    assert 0 < difference.low < difference.value < difference.high
    assert difference.metric == "f1"


PLACES = [
    ("Who wrote the poem?", "The poem was written by Anna Blume. It is long.", "Anna Blume"),
    ("When was the tower built?", "They built the tower in 1889. It is high.", "1889"),
    (
        "Who painted the wall?",
        "It is high. The wall was painted by Max Liebermann.",
        "Max Liebermann",
    ),
    ("When did the war end?", "It was long. The war did end in 1945 at last.", "1945"),
] * 5


def questions(rows):
    columns = dict(zip(("question", "context", "answers"), zip(*rows, strict=True), strict=True))
    return from_arrays(**columns)


def baseline(name, train, test):
    targets = get_task("question-answering").targets(train)
    return MEASURE.baselines[name](train, targets, test, None, 0)


def test_baselines():
    train = questions(PLACES)
    test = questions(
        [
            ("Who made the bridge?", "It is old. The bridge was made by Jane Doe.", "Jane Doe"),
            ("When was the bridge made?", "It is old. The bridge was made in 1901.", "1901"),
        ]
    )

    assert next(iter(MEASURE.baselines)) == "overlap"
    assert baseline("overlap", train, test) == ["Jane Doe", "1901"]
    assert baseline("first", train, test) == ["It is old.", "It is old."]


def test_the_baseline_predicts_no_answer():
    no_answer = [("Who sang it?", "Rain fell on Berlin.", ""), ("When?", "Nobody knows.", "")] * 20
    train = questions(PLACES + no_answer)

    assert baseline("overlap", train, questions(no_answer[:2])) == ["", ""]
    assert baseline("overlap", train, questions(PLACES[:1])) == ["Anna Blume"]


def test_a_context_without_other_words_is_the_answer():
    test = questions([("good film", "good film", "film")])

    assert baseline("overlap", questions(PLACES), test) == ["good film"]
    assert isinstance(MEASURE.statistics([["film"]], ["film"]), np.ndarray)
