"""Features of texts for the linear baselines: TF-IDF, and for pairs how alike both sides are."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

#: Scripts that write without spaces between words: Thai, Lao, Burmese, Khmer, Japanese, Chinese.
#: What stands between two spaces is a whole clause there, and a character says as much as a word.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
# Punctuation counts as a token, single characters too ("I", "!", "不").
_TOKEN = rf"[{UNSPACED}]|[^\W{UNSPACED}]+|[^\w\s]"
_MOST_FEATURES = 200_000


class TfidfFeatures:
    """TF-IDF of words (1-2 grams) and characters (2-5 grams, within words).

    In scripts that write without spaces, each character is a word, so that together all grams of 1
    to 5 characters count. Elsewhere the characters carry spelling, endings and parts of compounds.
    A pair gives these features once a side, in columns of their own, and measures of how alike the
    sides are, without which a linear model could not compare them.
    """

    def fit(self, sides: Sequence[list[str]]) -> "TfidfFeatures":
        """Learns vocabulary and document frequencies.

        Args:
            sides: The texts, or for pairs the texts and their partners: one or two lists (n,).
        """
        self.fit_transform(sides)
        return self

    def fit_transform(self, sides: Sequence[list[str]]) -> "csr_matrix":
        """As `fit` and then `transform`, in half the time: texts are taken apart once.

        Args:
            sides: As for `fit`.
        """
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.preprocessing import StandardScaler

        common = {"sublinear_tf": True, "max_features": _MOST_FEATURES}
        self._vectorizers = [
            TfidfVectorizer(token_pattern=_TOKEN, ngram_range=(1, 2), **common),
            TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), **common),
        ]
        texts = [text for side in sides for text in side]
        rows = len(sides[0])
        blocks = [vectorizer.fit_transform(texts) for vectorizer in self._vectorizers]
        tfidf = [[block[i * rows : (i + 1) * rows] for block in blocks] for i in range(len(sides))]
        self._scaler = None
        if len(sides) == 2:
            self._scaler = StandardScaler().fit(self._likeness(sides, tfidf))
        return self._joined(sides, tfidf)

    def transform(self, sides: Sequence[list[str]]) -> "csr_matrix":
        """Features of texts as a scipy CSR matrix (n, num_features)."""
        tfidf = [[vectorizer.transform(side) for vectorizer in self._vectorizers] for side in sides]
        return self._joined(sides, tfidf)

    def _joined(self, sides: Sequence[list[str]], tfidf: "list[list[csr_matrix]]") -> "csr_matrix":
        from scipy.sparse import csr_matrix, hstack

        blocks = [block for side in tfidf for block in side]
        if self._scaler is not None:
            blocks.append(csr_matrix(self._scaler.transform(self._likeness(sides, tfidf))))
        return hstack(blocks, format="csr")

    def _likeness(self, sides: Sequence[list[str]], tfidf: "list[list[csr_matrix]]") -> np.ndarray:
        # The rows of a TF-IDF block have length one, so that their product is the cosine.
        cosines = [
            np.asarray(left.multiply(right).sum(axis=1)).ravel()
            for left, right in zip(*tfidf, strict=True)
        ]
        overlaps = [_overlaps(left, right) for left, right in zip(*sides, strict=True)]
        return np.hstack([np.stack(cosines, axis=1), np.array(overlaps)])


def _overlaps(left: str, right: str) -> list[float]:
    """How much of the words and letter pairs two texts share, and how their lengths differ."""
    left, right = left.lower(), right.lower()
    measures = [abs(np.log((len(left) + 1) / (len(right) + 1)))]
    for units in (_words, _letter_pairs):
        ours, theirs = units(left), units(right)
        shared = len(ours & theirs)
        measures += [shared / max(1, len(part)) for part in (ours | theirs, ours, theirs)]
    return measures


def _words(text: str) -> set[str]:
    return set(re.findall(_TOKEN, text))


def _letter_pairs(text: str) -> set[str]:
    return {text[i : i + 2] for i in range(len(text) - 1)}
