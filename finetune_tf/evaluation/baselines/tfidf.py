"""Features for the linear baselines: TF-IDF, and similarity features for text pairs."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

#: Characters of scripts without spaces between words: Thai, Lao, Burmese, Khmer, Japanese, Chinese.
#: There, splitting at spaces would yield clauses, so each character is a token.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
# Punctuation marks and single characters are tokens as well ("I", "!", "不").
_TOKEN = rf"[{UNSPACED}]|[^\W{UNSPACED}]+|[^\w\s]"
_MAX_FEATURES = 200_000


class TfidfFeatures:
    """TF-IDF features of word n-grams (1 to 2) and of character n-grams within words (2 to 5).

    In scripts without spaces each character is a word, so all character n-grams from 1 to 5 are
    used. In other scripts the character n-grams represent spelling, endings and parts of compounds.
    For text pairs, both texts have their own columns, and columns with the similarity of the two
    texts are added, because a linear model cannot compare them by itself.

    Example:
        >>> from finetune_tf.evaluation.baselines.tfidf import TfidfFeatures
        >>> features = TfidfFeatures().fit([["a good film", "a bad film"]])
        >>> features.transform([["a film"]]).shape[0]
        1
    """

    def fit(self, sides: Sequence[list[str]]) -> "TfidfFeatures":
        """Fits the vocabulary and the document frequencies.

        Args:
            sides: A list with the texts (n,); for text pairs, two lists: the first and the second
                texts.

        Returns:
            This object.
        """
        self.fit_transform(sides)
        return self

    def fit_transform(self, sides: Sequence[list[str]]) -> "csr_matrix":
        """Fits and transforms in half the time of separate calls, with one tokenization.

        Args:
            sides: As in `fit`.

        Returns:
            A scipy CSR matrix (n, num_features).
        """
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.preprocessing import StandardScaler

        common = {"sublinear_tf": True, "max_features": _MAX_FEATURES}
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
            self._scaler = StandardScaler().fit(self._similarity_features(sides, tfidf))
        return self._concatenate(sides, tfidf)

    def transform(self, sides: Sequence[list[str]]) -> "csr_matrix":
        """Returns the features of texts as a scipy CSR matrix (n, num_features)."""
        tfidf = [[vectorizer.transform(side) for vectorizer in self._vectorizers] for side in sides]
        return self._concatenate(sides, tfidf)

    def _concatenate(
        self, sides: Sequence[list[str]], tfidf: "list[list[csr_matrix]]"
    ) -> "csr_matrix":
        from scipy.sparse import csr_matrix, hstack

        blocks = [block for side in tfidf for block in side]
        if self._scaler is not None:
            blocks.append(
                csr_matrix(self._scaler.transform(self._similarity_features(sides, tfidf)))
            )
        return hstack(blocks, format="csr")

    def _similarity_features(
        self, sides: Sequence[list[str]], tfidf: "list[list[csr_matrix]]"
    ) -> np.ndarray:
        # The rows of a TF-IDF block are normalized to length 1, so their product is the cosine.
        cosines = [
            np.asarray(left.multiply(right).sum(axis=1)).ravel()
            for left, right in zip(*tfidf, strict=True)
        ]
        overlaps = [_overlaps(left, right) for left, right in zip(*sides, strict=True)]
        return np.hstack([np.stack(cosines, axis=1), np.array(overlaps)])


def _overlaps(left: str, right: str) -> list[float]:
    """Computes length ratio, word overlap and character bigram overlap of two texts."""
    left, right = left.lower(), right.lower()
    measures = [abs(np.log((len(left) + 1) / (len(right) + 1)))]
    for split in (_words, _character_bigrams):
        first, second = split(left), split(right)
        shared = len(first & second)
        measures += [shared / max(1, len(part)) for part in (first | second, first, second)]
    return measures


def _words(text: str) -> set[str]:
    return set(re.findall(_TOKEN, text))


def _character_bigrams(text: str) -> set[str]:
    return {text[i : i + 2] for i in range(len(text) - 1)}
