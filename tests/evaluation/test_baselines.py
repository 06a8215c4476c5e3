"""The baselines for text classification and regression on a few texts."""

import numpy as np
import pytest

from finetune_tf.base.labels import Labels
from finetune_tf.data import Examples
from finetune_tf.errors import DataError
from finetune_tf.evaluation.baselines.text import baseline_scores
from finetune_tf.evaluation.metrics import compute_metrics, decide

MOODS = Labels(["negative", "positive"])
TOPICS = Labels(["food", "price", "staff"], "multi_label_classification")
SCORE = Labels(["score"])


def texts(*values, pair=None):
    columns = {"text": list(values)}
    return Examples(columns if pair is None else {**columns, "text_pair": list(pair)})


def test_majority_returns_frequencies():
    train, test = texts("a", "b", "c", "d"), texts("x", "y")

    scores = baseline_scores("majority", train, np.array([1, 1, 0, 1]), test, MOODS)

    assert scores.tolist() == [[0.25, 0.75], [0.25, 0.75]]


def test_majority_for_multi_label():
    targets = np.array([[1, 0, 0], [1, 1, 0]], dtype="float32")

    scores = baseline_scores("majority", texts("a", "b"), targets, texts("x"), TOPICS)

    assert scores.tolist() == [[1.0, 0.5, 0.0]]


def test_mean():
    scores = baseline_scores("mean", texts("a", "b"), np.array([1.0, 4.0]), texts("x", "y"), SCORE)

    assert scores.tolist() == [2.5, 2.5]


def test_tfidf_learns_words():
    train = texts(*["a fine film", "fine acting", "a dull film", "dull acting"] * 5)
    targets = np.array([1, 1, 0, 0] * 5)

    scores = baseline_scores("tfidf", train, targets, texts("so fine", "so dull"), MOODS)

    assert scores.argmax(axis=1).tolist() == [1, 0]
    assert scores.sum(axis=1) == pytest.approx([1, 1])


def test_tfidf_reads_chinese():
    train = texts(*["这部电影很好看", "演员演得很好", "电影真难看", "故事太无聊了"] * 5)
    targets = np.array([1, 1, 0, 0] * 5)

    scores = baseline_scores("tfidf", train, targets, texts("很好的故事", "无聊又难看"), MOODS)

    assert scores.argmax(axis=1).tolist() == [1, 0]


def test_tfidf_with_classes_without_training_examples():
    labels = Labels(["a", "b", "c"])
    test = texts("one", "two")

    scores = baseline_scores("tfidf", texts("one", "two"), np.array([0, 2]), test, labels)
    assert scores.argmax(axis=1).tolist() == [0, 2]
    assert scores[:, 1].tolist() == [0.0, 0.0]

    scores = baseline_scores("tfidf", texts("one", "two"), np.array([1, 1]), test, labels)
    assert scores.tolist() == [[0, 1, 0], [0, 1, 0]]


def test_tfidf_for_multi_label():
    train = texts(*["great soup", "cheap", "cheap soup", "nothing"] * 5)
    targets = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0]] * 5, dtype="float32")

    scores = baseline_scores("tfidf", train, targets, texts("soup", "cheap soup"), TOPICS)

    assert decide(scores, TOPICS).tolist() == [[1, 0, 0], [1, 1, 0]]


def test_tfidf_distinguishes_the_texts_of_a_pair():
    lefts, rights = ["cat", "dog", "cat", "dog"] * 5, ["dog", "cat", "dog", "cat"] * 5
    targets = np.array([1, 0] * 10)
    test = texts("cat", "dog", pair=["dog", "cat"])

    scores = baseline_scores("tfidf", texts(*lefts, pair=rights), targets, test, MOODS)

    assert scores.argmax(axis=1).tolist() == [1, 0]


def sentences(seed, count):
    """Pairs of random words, and the share of words that both texts contain."""
    generator = np.random.default_rng(seed)
    words = [f"{a}{b}{c}" for a in "bdfgklm" for b in "aeiou" for c in "nprst"]
    lefts, rights, shares = [], [], []
    for _ in range(count):
        left, other = generator.choice(words, (2, 6), replace=False)
        kept = generator.integers(7)
        lefts.append(" ".join(left))
        rights.append(" ".join([*left[:kept], *other[kept:]]))
        shares.append(kept / 6)
    return texts(*lefts, pair=rights), np.array(shares, dtype="float32")


def test_ridge_compares_the_texts_of_a_pair():
    train, targets = sentences(0, 120)
    test, expected = sentences(1, 60)

    scores = baseline_scores("ridge", train, targets, test, SCORE)

    assert compute_metrics(expected, scores, SCORE)["pearson"] > 0.95


def test_the_same_seed_gives_the_same_scores():
    train, targets = sentences(0, 40)

    first, again = (baseline_scores("ridge", train, targets, train, SCORE) for _ in range(2))

    assert first.tolist() == again.tolist()


def test_pairs_and_single_texts_raise_an_error():
    train = texts("a", "b", pair=["c", "d"])

    with pytest.raises(DataError, match="do not match: only one of them has a text_pair"):
        baseline_scores("tfidf", train, np.array([0, 1]), texts("a"), MOODS)
