"""A baseline for translation: each word by itself, with a table of words learned from examples.

The table is that of IBM model 1: the probability of a target word given a source word, estimated
with the EM algorithm from how often words occur in the same pair of texts. The words keep their
order; a word that no training example has is copied.

References:
    Brown et al., The Mathematics of Statistical Machine Translation: Parameter Estimation,
    Computational Linguistics 19(2), 1993.
"""

import re

import numpy as np

from finetune_tf.base.labels import Labels
from finetune_tf.data import Examples
from finetune_tf.evaluation.baselines.tfidf import UNSPACED

_TOKEN = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+|[^\w\s]")
_SPACE_BEFORE = re.compile(r"\s+([.,;:!?)\]%…])")
_SPACE_AFTER = re.compile(r"([(\[¿¡])\s+")
_ITERATIONS = 5
_LARGEST_CORPUS = 50_000  # pairs; more are sampled, so that memory is limited
_LONGEST = 100  # tokens of a text that the table is learned from
_NULL = ""  # the source of target words that translate nothing


def translate(
    train: Examples, targets: list[list[str]], test: Examples, labels: Labels | None, seed: int
) -> list[str]:
    """Translates each word by the most probable target word."""
    rows = np.random.default_rng(seed).permutation(len(train))[:_LARGEST_CORPUS].tolist()
    sources = train.columns["source"]
    table = learn_table([sources[row] for row in rows], [targets[row][0] for row in rows])
    return [_translate(text, table) for text in test.columns["source"]]


def learn_table(sources: list[str], targets: list[str]) -> dict[str, str]:
    """The most probable target word of each source word, lower-cased, by IBM model 1.

    Example:
        >>> from finetune_tf.evaluation.baselines.word_table import learn_table
        >>> german = ["das Haus", "das Buch", "ein Buch"]
        >>> table = learn_table(["the house", "the book", "a book"], german)
        >>> table["house"], table["book"], table["a"]
        ('Haus', 'Buch', 'ein')
    """
    source_ids: dict[str, int] = {_NULL: 0}
    target_ids: dict[str, int] = {}
    # One entry for each source word beside each target word: both words, and the target's place.
    left, right, places, place = [], [], [], 0
    for source, target in zip(sources, targets, strict=True):
        sides: tuple[list[int], list[int]] = ([0], [0])  # NULL and words, NULL and punctuation
        for word in _words(source.casefold()):
            number = source_ids.setdefault(word, len(source_ids))
            sides[_is_punctuation(word)].append(number)
        for word in _words(target):
            # Punctuation is in every text; it translates nothing but punctuation.
            numbers = sides[_is_punctuation(word)]
            left += numbers
            right += [target_ids.setdefault(word, len(target_ids))] * len(numbers)
            places += [place] * len(numbers)
            place += 1
    size = len(target_ids)
    pairs, entries = np.unique(
        np.array(left, "int64") * size + np.array(right, "int64"), return_inverse=True
    )
    of_place, source_of_pair = np.array(places), pairs // size
    probability = np.ones(len(pairs))
    for _ in range(_ITERATIONS):
        share = probability[entries]
        share /= np.bincount(of_place, share)[of_place]  # of the word's possible sources
        counts = np.bincount(entries, share, minlength=len(pairs))
        probability = counts / np.bincount(source_of_pair, counts)[source_of_pair]
    order = np.lexsort([probability, source_of_pair])
    last = np.flatnonzero(np.diff(source_of_pair[order], append=-1))  # the best of each source
    names, best = list(source_ids), list(target_ids)
    return {
        names[pairs[row] // size]: best[pairs[row] % size]
        for row in order[last].tolist()
        if pairs[row] // size
    }


def _is_punctuation(word: str) -> bool:
    return not any(map(str.isalnum, word))


def _words(text: str) -> list[str]:
    return _TOKEN.findall(text)[:_LONGEST]


def _translate(text: str, table: dict[str, str]) -> str:
    words = [table.get(word.casefold(), word) for word in _TOKEN.findall(text)]
    joined = _SPACE_BEFORE.sub(r"\1", " ".join(words))
    joined = _SPACE_AFTER.sub(r"\1", joined)
    return joined[:1].upper() + joined[1:] if text[:1].isupper() else joined
