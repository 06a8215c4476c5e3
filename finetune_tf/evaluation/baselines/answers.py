"""Baselines for questions about a context: what needs no pretrained model.

- "overlap": the sentence that shares most with the question, and in it the words that stand next
  to those of the question and look like an answer to "who", "when", "how many", …;
- "first": the first sentence of the context.

"overlap" learns from the training examples how rare each word is (IDF), how long answers to each
kind of question are, and how often they hold a number or a name. The idea of counting words around
a candidate is Richardson et al.'s (MCTest, 2013), with which Rajpurkar et al. (2016) compare too.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from finetune_tf.base.labels import Labels
from finetune_tf.data import Examples
from finetune_tf.evaluation.baselines.tfidf import UNSPACED
from finetune_tf.evaluation.evaluators.answer_scores import best_scores, f1_score
from finetune_tf.evaluation.evaluators.evaluator import BaselineFunction

# Characters of languages that write without spaces count as words.
_WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])")
_ASKING = ("who", "when", "where", "which", "what", "why", "how")
_LONGEST = 8  # words of an answer
_NEAR = 6  # words that still count as near
# Enough to choose two numbers by, little enough to take seconds.
_TUNING_EXAMPLES = 500
_WEIGHTS = (0.5, 1.0, 2.0, 4.0, 8.0)


class _Asked(NamedTuple):
    """A question, and the sentence of its context that shares most with it."""

    kind: str
    words: dict[str, float]  # how rare each is
    sentence: str
    shared: float  # share of the question's words, by rarity, that are in the sentence


class _Overlap:
    """The baseline "overlap", fitted to training examples."""

    def __init__(self, train: Examples, targets: list[list[str]], seed: int) -> None:
        contexts = set(train.columns["context"])
        counts = Counter(word for text in contexts for word in set(_words(text)))
        # The word of a question that no context has says as much as one that a single one has.
        self._rarity = defaultdict(
            lambda: np.log(1 + len(contexts)),
            {word: np.log((1 + len(contexts)) / count) for word, count in counts.items()},
        )
        self._shapes: dict[str, Counter] = defaultdict(Counter)
        for question, accepted in zip(train.columns["question"], targets, strict=True):
            for text in accepted[:1]:
                self._shapes[_kind(question)][_shape(_WORD.findall(text))] += 1
        self._weight, self._threshold = 1.0, -np.inf
        self._tune(train, targets, seed)

    def _tune(self, train: Examples, targets: list[list[str]], seed: int) -> None:
        """Chooses the weight of nearness, and below which overlap there is no answer."""
        rows = np.random.default_rng(seed).permutation(len(train))[:_TUNING_EXAMPLES]
        asked, accepted = self._asked(train[rows]), [targets[row] for row in rows]
        right = {
            weight: best_scores(f1_score, accepted, [self._part(one, weight) for one in asked])
            for weight in _WEIGHTS
        }
        self._weight = max(right, key=lambda weight: right[weight].mean())
        if all(accepted):
            return
        empty = np.asarray([not answers for answers in accepted], dtype="float64")
        shared = np.asarray([one.shared for one in asked])
        self._threshold = max(
            (-np.inf, *np.unique(shared), np.inf),
            key=lambda least: np.where(shared < least, empty, right[self._weight]).mean(),
        )

    def answers(self, test: Examples) -> list[str]:
        """One text a question, "" where too little of it stands in the context."""
        return [
            self._part(one, self._weight) if one.shared >= self._threshold else ""
            for one in self._asked(test)
        ]

    def _asked(self, examples: Examples) -> list[_Asked]:
        columns = examples.columns
        pairs = zip(columns["question"], columns["context"], strict=True)
        return [self._best_sentence(question, context) for question, context in pairs]

    def _best_sentence(self, question: str, context: str) -> _Asked:
        words = {word: self._rarity[word] for word in _words(question)}
        total = sum(words.values()) or 1.0
        best = _Asked(_kind(question), words, "", -1.0)
        for sentence in _sentences(context):
            shared = sum(words[word] for word in words.keys() & set(_words(sentence))) / total
            if shared > best.shared:
                best = best._replace(sentence=sentence, shared=shared)
        return best

    def _part(self, asked: _Asked, weight: float) -> str:
        """The likeliest answer in the sentence: log P(shape | kind) + weight * nearness."""
        sentence = asked.sentence
        places = list(_WORD.finditer(sentence))
        words = [place.group() for place in places]
        weights = np.asarray([asked.words.get(_stem(word), 0.0) for word in words])
        kernel = np.r_[1 : _NEAR + 1, 0, _NEAR:0:-1] / _NEAR
        near = np.convolve(weights, kernel)[_NEAR : _NEAR + len(words)] / (weights.sum() or 1.0)
        spans = [
            (first, stop)
            for first in range(len(words))
            for stop in range(first + 1, min(first + _LONGEST, len(words)) + 1)
            if not weights[first:stop].any()
        ]
        if not spans:
            return sentence
        shapes = [_shape(words[first:stop]) for first, stop in spans]
        rivals, likely = Counter(shapes), self._shapes[asked.kind]
        scores = [
            # Of two shapes equally likely, the one with fewer candidates says more of each.
            np.log((likely[shape] + 0.1) / rivals[shape]) + weight * near[first:stop].mean()
            for shape, (first, stop) in zip(shapes, spans, strict=True)
        ]
        first, stop = spans[int(np.argmax(scores))]
        return sentence[places[first].start() : places[stop - 1].end()]


def _overlap(
    train: Examples, targets: Any, test: Examples, labels: Labels | None, seed: int
) -> list[str]:
    return _Overlap(train, targets, seed).answers(test)


def _first(
    train: Examples, targets: Any, test: Examples, labels: Labels | None, seed: int
) -> list[str]:
    return [next(_sentences(context)) for context in test.columns["context"]]


#: The strongest first.
BASELINES: dict[str, BaselineFunction] = {"overlap": _overlap, "first": _first}


def _sentences(text: str) -> Iterator[str]:
    return (sentence for sentence in _SENTENCE_END.split(text.strip()) if sentence)


def _words(text: str) -> list[str]:
    return [_stem(word) for word in _WORD.findall(text)]


def _stem(word: str) -> str:
    """Endings change the word of a question more often than they tell two words apart."""
    return word.lower()[:6]


def _kind(question: str) -> str:
    """The word that asks, "how" with the word behind it; "" for none."""
    words = [word.lower() for word in _WORD.findall(question)]
    for i, word in enumerate(words):
        if word in _ASKING:
            return " ".join(words[i : i + 2]) if word == "how" else word
    return ""


def _shape(words: list[str]) -> tuple[int, bool, bool, bool]:
    """How many words, whether there is a number among them, and whether any or all are names."""
    names = [word[0].isupper() for word in words]
    has_number = any(word[0].isdigit() for word in words)
    return min(len(words), _LONGEST), has_number, any(names), all(names)
