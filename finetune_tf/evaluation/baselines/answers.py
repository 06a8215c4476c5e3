"""Baselines for extractive question answering, without a pretrained model.

- "overlap": in the sentence that shares most words with the question, the span that is close to
  words of the question and resembles answers to the same question word ("who", "how many", …);
- "first": the first sentence of the context.

"overlap" learns from the training examples: the inverse document frequency (IDF) of each word, and
for each question word how long answers are and how often they contain a number or a name. Scoring a
candidate by the words around it follows the sliding window baseline of Richardson et al. (MCTest: A
Challenge Dataset for the Open-Domain Machine Comprehension of Text, EMNLP 2013), which Rajpurkar et
al. (SQuAD: 100,000+ Questions for Machine Comprehension of Text, EMNLP 2016) use as well.
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

# In scripts without spaces between words, each character is a word.
_WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])")
_QUESTION_WORDS = ("who", "when", "where", "which", "what", "why", "how")
_MAX_ANSWER_WORDS = 8
_WINDOW = 6  # the distance in words within which a word of the question counts
# Enough examples to select two parameters, few enough to take only seconds.
_TUNING_EXAMPLES = 500
_PROXIMITY_WEIGHTS = (0.5, 1.0, 2.0, 4.0, 8.0)


class _Candidate(NamedTuple):
    """A question with the sentence of its context that shares most words with it."""

    question_type: str
    words: dict[str, float]  # the IDF of each word of the question
    sentence: str
    overlap: float  # the share of the question's words, weighted by IDF, that are in the sentence


class _OverlapBaseline:
    """The baseline "overlap", fitted to training examples."""

    def __init__(self, train: Examples, targets: list[list[str]], seed: int) -> None:
        contexts = set(train.columns["context"])
        counts = Counter(word for text in contexts for word in set(_words(text)))
        # A word that occurs in no training context gets the IDF of one that occurs in one context.
        self._idf = defaultdict(
            lambda: np.log(1 + len(contexts)),
            {word: np.log((1 + len(contexts)) / count) for word, count in counts.items()},
        )
        self._answer_shapes: dict[str, Counter] = defaultdict(Counter)
        for question, accepted in zip(train.columns["question"], targets, strict=True):
            for text in accepted[:1]:
                self._answer_shapes[_question_type(question)][
                    _answer_shape(_WORD.findall(text))
                ] += 1
        self._proximity_weight, self._threshold = 1.0, -np.inf
        self._tune(train, targets, seed)

    def _tune(self, train: Examples, targets: list[list[str]], seed: int) -> None:
        """Selects the proximity weight, and the overlap below which a question has no answer."""
        rows = np.random.default_rng(seed).permutation(len(train))[:_TUNING_EXAMPLES]
        candidates, accepted = self._candidates(train[rows]), [targets[row] for row in rows]
        scores = {
            weight: best_scores(
                f1_score, accepted, [self._best_span(each, weight) for each in candidates]
            )
            for weight in _PROXIMITY_WEIGHTS
        }
        self._proximity_weight = max(scores, key=lambda weight: scores[weight].mean())
        if all(accepted):
            return
        has_no_answer = np.asarray([not answers for answers in accepted], dtype="float64")
        overlaps = np.asarray([each.overlap for each in candidates])
        best = scores[self._proximity_weight]
        self._threshold = max(
            (-np.inf, *np.unique(overlaps), np.inf),
            key=lambda threshold: np.where(overlaps < threshold, has_no_answer, best).mean(),
        )

    def answers(self, test: Examples) -> list[str]:
        """Returns one answer per question; "" if too few of its words occur in the context."""
        return [
            self._best_span(each, self._proximity_weight) if each.overlap >= self._threshold else ""
            for each in self._candidates(test)
        ]

    def _candidates(self, examples: Examples) -> list[_Candidate]:
        columns = examples.columns
        pairs = zip(columns["question"], columns["context"], strict=True)
        return [self._best_sentence(question, context) for question, context in pairs]

    def _best_sentence(self, question: str, context: str) -> _Candidate:
        words = {word: self._idf[word] for word in _words(question)}
        total = sum(words.values()) or 1.0
        best = _Candidate(_question_type(question), words, "", -1.0)
        for sentence in _sentences(context):
            overlap = sum(words[word] for word in words.keys() & set(_words(sentence))) / total
            if overlap > best.overlap:
                best = best._replace(sentence=sentence, overlap=overlap)
        return best

    def _best_span(self, candidate: _Candidate, weight: float) -> str:
        """Returns the span with the highest log P(shape | question type) + weight * proximity."""
        sentence = candidate.sentence
        matches = list(_WORD.finditer(sentence))
        words = [match.group() for match in matches]
        weights = np.asarray([candidate.words.get(_stem(word), 0.0) for word in words])
        kernel = np.r_[1 : _WINDOW + 1, 0, _WINDOW:0:-1] / _WINDOW
        proximity = np.convolve(weights, kernel)[_WINDOW : _WINDOW + len(words)]
        proximity = proximity / (weights.sum() or 1.0)
        spans = [
            (first, stop)
            for first in range(len(words))
            for stop in range(first + 1, min(first + _MAX_ANSWER_WORDS, len(words)) + 1)
            if not weights[first:stop].any()
        ]
        if not spans:
            return sentence
        shapes = [_answer_shape(words[first:stop]) for first, stop in spans]
        spans_of_shape = Counter(shapes)
        answers_of_shape = self._answer_shapes[candidate.question_type]
        scores = [
            # The probability of a shape is divided evenly among the spans that have this shape.
            np.log((answers_of_shape[shape] + 0.1) / spans_of_shape[shape])
            + weight * proximity[first:stop].mean()
            for shape, (first, stop) in zip(shapes, spans, strict=True)
        ]
        first, stop = spans[int(np.argmax(scores))]
        return sentence[matches[first].start() : matches[stop - 1].end()]


def _predict_overlap(
    train: Examples, targets: Any, test: Examples, labels: Labels | None, seed: int
) -> list[str]:
    return _OverlapBaseline(train, targets, seed).answers(test)


def _predict_first(
    train: Examples, targets: Any, test: Examples, labels: Labels | None, seed: int
) -> list[str]:
    return [next(_sentences(context)) for context in test.columns["context"]]


#: The baselines by name, strongest first; "auto" selects the first one.
BASELINES: dict[str, BaselineFunction] = {"overlap": _predict_overlap, "first": _predict_first}


def _sentences(text: str) -> Iterator[str]:
    return (sentence for sentence in _SENTENCE_END.split(text.strip()) if sentence)


def _words(text: str) -> list[str]:
    return [_stem(word) for word in _WORD.findall(text)]


def _stem(word: str) -> str:
    """Lower-cases a word and truncates it, so that inflected forms of a word are equal."""
    return word.lower()[:6]


def _question_type(question: str) -> str:
    """Returns the question word, "how" with the word after it; "" if there is none."""
    words = [word.lower() for word in _WORD.findall(question)]
    for i, word in enumerate(words):
        if word in _QUESTION_WORDS:
            return " ".join(words[i : i + 2]) if word == "how" else word
    return ""


def _answer_shape(words: list[str]) -> tuple[int, bool, bool, bool]:
    """Returns the number of words, and whether any is a number, any is a name, all are names."""
    names = [word[0].isupper() for word in words]
    has_number = any(word[0].isdigit() for word in words)
    return min(len(words), _MAX_ANSWER_WORDS), has_number, any(names), all(names)
