"""How predictions about words are measured: entities, and tags of single words.

Sentences are lists of tags. Entities are counted as seqeval does in its default mode and
conlleval before it: a predicted entity is right if type, first and last word are all right.
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
    """The tag that each word has most often, else its lower-case form, else that of unknown."""
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
    """The tag of most words for all of them; among entities that is "O"."""
    tag = _most_frequent(targets)
    return [[tag] * len(words) for words in test.columns["tokens"]]


def _most_frequent(targets: Sentences) -> str:
    return Counter(tag for tags in targets for tag in tags).most_common(1)[0][0]


class _WordEvaluator(Evaluator):
    baselines: ClassVar = {"dictionary": _dictionary, "majority": _majority}
    unit = "sentences"


class Entities(_WordEvaluator):
    """Tags that make up entities; the main metric is the F1 over all of them together."""

    main_metric = "f1"

    def measure(
        self, targets: Sentences, predictions: Sentences, labels: Labels
    ) -> dict[str, float]:
        """F1, precision and recall of entities, and the accuracy over words."""
        hits, predicted, gold = self.statistics(targets, predictions).sum(axis=0)
        scores = _scores(hits, predicted, gold)
        return {name: scores[name] for name in ("f1", "precision", "recall")} | {
            "accuracy": _accuracy(targets, predictions)
        }

    def statistics(self, targets: Sentences, predictions: Sentences) -> np.ndarray:
        """Entities found and right, found, and there to be found."""
        counts = []
        for wanted, given in zip(targets, predictions, strict=True):
            gold, predicted = set(chunks(wanted)), set(chunks(given))
            counts.append([len(gold & predicted), len(predicted), len(gold)])
        return np.asarray(counts, dtype=np.float64)

    def metric(self, means: np.ndarray) -> np.ndarray:
        """F1; 0 where there is no entity at all."""
        hits, predicted, gold = means.T
        total = predicted + gold
        return np.divide(2 * hits, total, out=np.zeros_like(total), where=total > 0)

    def per_class(
        self, targets: Sentences, predictions: Sentences, labels: Labels
    ) -> dict[str, dict[str, float]]:
        """By the types of entities that occur or are predicted."""
        return _per_class(_placed(map(chunks, targets)), _placed(map(chunks, predictions)))


class Tags(_WordEvaluator):
    """Tags that stand for themselves, as parts of speech; the main metric is the accuracy."""

    main_metric = "accuracy"

    def measure(
        self, targets: Sentences, predictions: Sentences, labels: Labels
    ) -> dict[str, float]:
        """Accuracy over words, and the F1 averaged over tags that occur or are predicted."""
        by_tag = self.per_class(targets, predictions, labels)
        return {
            "accuracy": _accuracy(targets, predictions),
            "macro_f1": float(np.mean([scores["f1"] for scores in by_tag.values()])),
        }

    def statistics(self, targets: Sentences, predictions: Sentences) -> np.ndarray:
        """Words with the right tag, and words."""
        counts = [
            [_right(wanted, given), len(wanted)]
            for wanted, given in zip(targets, predictions, strict=True)
        ]
        return np.asarray(counts, dtype=np.float64)

    def metric(self, means: np.ndarray) -> np.ndarray:
        """Accuracy over words."""
        return means[:, 0] / means[:, 1]

    def per_class(
        self, targets: Sentences, predictions: Sentences, labels: Labels
    ) -> dict[str, dict[str, float]]:
        """By the tags that occur or are predicted."""
        return _per_class(_placed(map(_single, targets)), _placed(map(_single, predictions)))


def _single(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    return [(tag, i, i + 1) for i, tag in enumerate(tags)]


def _placed(rows: Iterable[list[tuple[str, int, int]]]) -> set[tuple]:
    return {(kind, i, first, last) for i, row in enumerate(rows) for kind, first, last in row}


def _per_class(gold: set[tuple], predicted: set[tuple]) -> dict[str, dict[str, float]]:
    counts = [Counter(kind for kind, *_ in found) for found in (gold & predicted, predicted, gold)]
    return {
        kind: {**_scores(*(count[kind] for count in counts)), "support": counts[2][kind]}
        for kind in sorted(counts[1].keys() | counts[2].keys())
    }


def _scores(hits: float, predicted: float, gold: float) -> dict[str, float]:
    return {
        "precision": float(hits / predicted) if predicted else 0.0,
        "recall": float(hits / gold) if gold else 0.0,
        "f1": float(2 * hits / (predicted + gold)) if predicted + gold else 0.0,
    }


def _accuracy(targets: Sentences, predictions: Sentences) -> float:
    right = sum(map(_right, targets, predictions))
    return right / sum(map(len, targets))


def _right(wanted: Sequence[str], given: Sequence[str]) -> int:
    return sum(map(str.__eq__, wanted, given))
