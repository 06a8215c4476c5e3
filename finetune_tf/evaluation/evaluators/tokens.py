"""The evaluators of token classification: entities, and tags of individual words.

Sentences are lists of tags. Entities are evaluated as in the CoNLL-2003 shared task (the script
conlleval) and the default mode of seqeval: a predicted entity is correct if its type, its first
word and its last word are correct.

References:
    Tjong Kim Sang and De Meulder, Introduction to the CoNLL-2003 Shared Task: Language-Independent
    Named Entity Recognition, CoNLL 2003.
    Nakayama, seqeval: A Python framework for sequence labeling evaluation, 2018,
    https://github.com/chakki-works/seqeval.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import ClassVar

import numpy as np

from finetune_tf.base.labels import Labels
from finetune_tf.data import Examples
from finetune_tf.evaluation.evaluators.evaluator import Evaluator
from finetune_tf.tasks.entity_spans import OUTSIDE, chunks

Sentences = Sequence[Sequence[str]]


def _dictionary(
    train: Examples, targets: Sentences, test: Examples, labels: Labels, seed: int
) -> list[list[str]]:
    """Predicts the most frequent training tag of each word, or else of its lower-case form.

    An unknown word gets "O", or the most frequent tag if "O" is not a label.
    """
    exact, folded = defaultdict(Counter), defaultdict(Counter)
    for words, tags in zip(train.columns["tokens"], targets, strict=True):
        for word, tag in zip(words, tags, strict=True):
            exact[word][tag] += 1
            folded[word.casefold()][tag] += 1
    unknown = OUTSIDE if OUTSIDE in labels else _most_frequent(targets)

    def tag_of(word: str) -> str:
        counts = exact.get(word) or folded.get(word.casefold())
        return counts.most_common(1)[0][0] if counts else unknown

    return [[tag_of(word) for word in words] for words in test.columns["tokens"]]


def _majority(
    train: Examples, targets: Sentences, test: Examples, labels: Labels, seed: int
) -> list[list[str]]:
    """Predicts the most frequent training tag for every word; for entities that is "O"."""
    tag = _most_frequent(targets)
    return [[tag] * len(words) for words in test.columns["tokens"]]


def _most_frequent(targets: Sentences) -> str:
    return Counter(tag for tags in targets for tag in tags).most_common(1)[0][0]


class _WordEvaluator(Evaluator):
    baselines: ClassVar = {"dictionary": _dictionary, "majority": _majority}
    unit = "sentences"


class Entities(_WordEvaluator):
    """Evaluates entities; the main metric is their micro-averaged F1.

    Example:
        >>> from finetune_tf.evaluation.evaluators.tokens import Entities
        >>> targets = [["B-PER", "I-PER", "O", "B-LOC"]]
        >>> predictions = [["B-PER", "O", "O", "B-LOC"]]
        >>> metrics = Entities().measure(targets, predictions, None)
        >>> metrics["f1"], metrics["accuracy"]
        (0.5, 0.75)
    """

    main_metric = "f1"

    def measure(
        self, targets: Sentences, predictions: Sentences, labels: Labels
    ) -> dict[str, float]:
        """Computes F1, precision and recall of the entities, and the accuracy of the words."""
        correct, predicted, gold = self.statistics(targets, predictions).sum(axis=0)
        scores = _scores(correct, predicted, gold)
        return {name: scores[name] for name in ("f1", "precision", "recall")} | {
            "accuracy": _accuracy(targets, predictions)
        }

    def statistics(self, targets: Sentences, predictions: Sentences) -> np.ndarray:
        """Returns the numbers of correct, predicted and gold entities per sentence (n, 3)."""
        counts = []
        for gold_tags, predicted_tags in zip(targets, predictions, strict=True):
            gold, predicted = set(chunks(gold_tags)), set(chunks(predicted_tags))
            counts.append([len(gold & predicted), len(predicted), len(gold)])
        return np.asarray(counts, dtype=np.float64)

    def metric(self, means: np.ndarray) -> np.ndarray:
        """Computes the F1; 0 if there are neither gold nor predicted entities."""
        correct, predicted, gold = means.T
        total = predicted + gold
        return np.divide(2 * correct, total, out=np.zeros_like(total), where=total > 0)

    def tells_of(self, targets: Sentences) -> bool:
        """Whether there is an entity."""
        return any(map(chunks, targets))

    def per_class(
        self, targets: Sentences, predictions: Sentences, labels: Labels
    ) -> dict[str, dict[str, float]]:
        """Computes the scores of each entity type that occurs or is predicted."""
        return _per_class(
            _number_spans(map(chunks, targets)), _number_spans(map(chunks, predictions))
        )


class Tags(_WordEvaluator):
    """Evaluates tags of individual words, such as parts of speech, by their accuracy."""

    main_metric = "accuracy"

    def measure(
        self, targets: Sentences, predictions: Sentences, labels: Labels
    ) -> dict[str, float]:
        """Computes the accuracy, and the macro F1 over the tags that occur or are predicted."""
        by_tag = self.per_class(targets, predictions, labels)
        return {
            "accuracy": _accuracy(targets, predictions),
            "macro_f1": float(np.mean([scores["f1"] for scores in by_tag.values()])),
        }

    def statistics(self, targets: Sentences, predictions: Sentences) -> np.ndarray:
        """Returns the number of correctly tagged words and of all words per sentence (n, 2)."""
        counts = [
            [_count_correct(gold, predicted), len(gold)]
            for gold, predicted in zip(targets, predictions, strict=True)
        ]
        return np.asarray(counts, dtype=np.float64)

    def metric(self, means: np.ndarray) -> np.ndarray:
        """Computes the accuracy of the words."""
        return means[:, 0] / means[:, 1]

    def per_class(
        self, targets: Sentences, predictions: Sentences, labels: Labels
    ) -> dict[str, dict[str, float]]:
        """Computes the scores of each tag that occurs or is predicted."""
        return _per_class(
            _number_spans(map(_tags_as_spans, targets)),
            _number_spans(map(_tags_as_spans, predictions)),
        )


def _tags_as_spans(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    return [(tag, i, i + 1) for i, tag in enumerate(tags)]


def _number_spans(rows: Iterable[list[tuple[str, int, int]]]) -> set[tuple]:
    """Adds the sentence number to the spans (kind, first, last) of each sentence."""
    return {(kind, i, first, last) for i, row in enumerate(rows) for kind, first, last in row}


def _per_class(gold: set[tuple], predicted: set[tuple]) -> dict[str, dict[str, float]]:
    counts = [Counter(kind for kind, *_ in found) for found in (gold & predicted, predicted, gold)]
    return {
        kind: {**_scores(*(count[kind] for count in counts)), "support": counts[2][kind]}
        for kind in sorted(counts[1].keys() | counts[2].keys())
    }


def _scores(correct: float, predicted: float, gold: float) -> dict[str, float]:
    return {
        "precision": float(correct / predicted) if predicted else 0.0,
        "recall": float(correct / gold) if gold else 0.0,
        "f1": float(2 * correct / (predicted + gold)) if predicted + gold else 0.0,
    }


def _accuracy(targets: Sentences, predictions: Sentences) -> float:
    return sum(map(_count_correct, targets, predictions)) / sum(map(len, targets))


def _count_correct(gold: Sequence[str], predicted: Sequence[str]) -> int:
    return sum(map(str.__eq__, gold, predicted))
