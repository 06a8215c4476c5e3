"""Baselines for summarization that select sentences of the source.

- "lead-3": the first three sentences, which is a strong baseline for news (Nallapati et al. 2017);
- "textrank": the three most central sentences (Mihalcea and Tarau 2004).

References:
    Mihalcea and Tarau, TextRank: Bringing Order into Texts, EMNLP 2004.
    Nallapati et al., SummaRuNNer: A Recurrent Neural Network based Sequence Model for Extractive
    Summarization of Documents, AAAI 2017.
"""

import re

import numpy as np

from finetune_tf.base.labels import Labels
from finetune_tf.data import Examples
from finetune_tf.evaluation.baselines.tfidf import UNSPACED

_SENTENCES = 3
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")
_WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+")
_DAMPING = 0.85
_STEPS = 50  # of the power iteration


def lead(
    train: Examples, targets: list[list[str]], test: Examples, labels: Labels | None, seed: int
) -> list[str]:
    """Predicts the first three sentences of the source."""
    return [" ".join(sentences(text)[:_SENTENCES]) for text in test.columns["source"]]


def textrank(
    train: Examples, targets: list[list[str]], test: Examples, labels: Labels | None, seed: int
) -> list[str]:
    """Predicts the three most central sentences of the source, in their order."""
    summaries = []
    for text in test.columns["source"]:
        found = sentences(text)
        best = np.sort(np.argsort(-centrality(found), kind="stable")[:_SENTENCES])
        summaries.append(" ".join(found[row] for row in best.tolist()))
    return summaries


def sentences(text: str) -> list[str]:
    """Splits a text into sentences, at the ends of lines as well.

    Example:
        >>> from finetune_tf.evaluation.baselines.extracts import sentences
        >>> sentences("It rains. Does it? #A#: Yes")
        ['It rains.', 'Does it?', '#A#: Yes']
    """
    return [part for sentence in _SENTENCE_END.split(text) if (part := sentence.strip())]


def centrality(found: list[str]) -> np.ndarray:
    """The rank (n,) of each sentence in the graph of their similarities.

    The similarity of two sentences is the number of words that they share, divided by the sum of
    the logarithms of their lengths. The ranks are the stationary distribution of a random walk
    along these edges, with a damping factor of 0.85.

    Example:
        >>> from finetune_tf.evaluation.baselines.extracts import centrality
        >>> ranks = centrality(["a red film", "a red film and a story", "no"])
        >>> int(ranks.argmin())
        2
    """
    words = [set(_WORD.findall(sentence.casefold())) for sentence in found]
    size = len(found)
    weights = np.zeros((size, size))
    for i in range(size):
        for j in range(i):
            lengths = np.log(max(len(words[i]), 1)) + np.log(max(len(words[j]), 1))
            if lengths > 0:
                weights[i, j] = weights[j, i] = len(words[i] & words[j]) / lengths
    totals = weights.sum(axis=1, keepdims=True)
    # A sentence without a similar one leads to every other sentence with the same probability.
    moves = np.divide(weights, totals, out=np.full_like(weights, 1 / size), where=totals > 0)
    ranks = np.full(size, 1 / size)
    for _ in range(_STEPS):
        ranks = (1 - _DAMPING) / size + _DAMPING * ranks @ moves
    return ranks
