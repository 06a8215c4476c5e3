"""The TF-IDF baseline in languages that do not separate words by spaces."""

import numpy as np
import pytest

from finetune_tf.base.labels import Labels
from finetune_tf.data import Examples
from finetune_tf.evaluation.baselines.text import baseline_scores
from finetune_tf.evaluation.baselines.tfidf import TfidfFeatures

MOODS = Labels(["negative", "positive"])
ALPHABETS = {
    "Chinese": "的一是在人有我他这中大来上个国到说们为子和你地出道也时年得就那要下以生会自着去之",
    "Japanese": "あいうえおかきくけこさしすせそたちつてとなにぬねのはひふへほまみむめもやゆよらり",
    "Thai": "กขคงจฉชซญดตถทธนบปผฝพฟภมยรลวศสหอฮ" + "ะาำิีึืุู",
    "rare Chinese": "".join(chr(0x20000 + i) for i in range(60)),
}


def clauses(alphabet, count, seed):
    """Clauses without spaces whose label depends on one character at a random position."""
    generator = np.random.default_rng(seed)
    characters = list(alphabet)
    bad, good, others = characters[0], characters[1], characters[2:]
    texts, targets = [], generator.integers(2, size=count)
    for target in targets:
        clause = list(generator.choice(others, 12))
        clause.insert(generator.integers(12), good if target else bad)
        texts.append("".join(clause))
    return Examples({"text": texts}), targets


@pytest.mark.parametrize("language", ALPHABETS)
def test_single_characters_are_tokens_in_scripts_without_spaces(language):
    train, targets = clauses(ALPHABETS[language], 300, 0)
    test, expected = clauses(ALPHABETS[language], 100, 1)

    scores = baseline_scores("tfidf", train, targets, test, MOODS)

    assert (scores.argmax(axis=1) == expected).mean() >= 0.97


def test_character_ngrams_represent_parts_of_compounds():
    generator = np.random.default_rng(0)
    syllables = ["kra", "fen", "bel", "tor", "nis", "wag", "lum", "sep", "dor", "mik"]

    def compounds(count):
        targets = generator.integers(2, size=count)
        texts = [
            "".join(generator.choice(syllables, 4)) + ("verlust" if target else "gewinn")
            for target in targets
        ]
        return Examples({"text": texts}), targets

    (train, targets), (test, expected) = compounds(60), compounds(30)
    scores = baseline_scores("tfidf", train, targets, test, MOODS)

    assert (scores.argmax(axis=1) == expected).all()


def test_words_in_scripts_with_spaces_are_not_split():
    features = TfidfFeatures()
    features.fit([["Übergrößen don't fit", "한국어 단어 films"]])

    words = set(features._vectorizers[0].get_feature_names_out())

    assert {"übergrößen", "fit", "한국어", "단어", "films", "don", "'", "t"} <= words
    assert "한" not in words and "f" not in words


def test_fit_and_transform_equal_fit_transform():
    sides = [["a good film", "电影很好", "dull"], ["fine", "好电影", "long"]]
    features = TfidfFeatures()
    at_once = features.fit_transform(sides)
    assert abs(at_once - features.transform(sides)).max() < 1e-12
    assert at_once.shape[0] == 3
