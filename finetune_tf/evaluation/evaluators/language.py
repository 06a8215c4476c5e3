"""How well a causal language model predicts texts, token by token."""

import math

import numpy as np

from finetune_tf.base.labels import Labels
from finetune_tf.data import Examples
from finetune_tf.evaluation.evaluators.evaluator import Evaluator
from finetune_tf.tasks.task import IGNORED
from finetune_tf.tasks.text_generation import ScoredText

_WEIGHT = 0.8  # of the bigrams; the rest is that of single tokens


def _bigram(
    train: Examples, targets: list[ScoredText], test: Examples, labels: Labels | None, seed: int
) -> np.ndarray:
    """Each token by how often it follows the one before it in the training texts.

    The probabilities of bigrams are interpolated with those of single tokens (Jelinek and Mercer
    1980), to whose counts one is added.
    """
    counts: dict[tuple[int, int], int] = {}
    before: dict[int, int] = {}
    single = np.ones(targets[0].vocab_size)
    for text in targets:
        for one, two in zip(text.input_ids.tolist(), text.targets.tolist(), strict=True):
            if two != IGNORED:
                counts[one, two] = counts.get((one, two), 0) + 1
                before[one] = before.get(one, 0) + 1
                single[two] += 1
    best = {}
    for (one, two), count in counts.items():
        if count > counts.get((one, best.get(one, -1)), 0):
            best[one] = two
    single /= single.sum()
    top = int(single.argmax())

    def score(text: ScoredText) -> tuple[float, float]:
        loss, hits = 0.0, 0
        for one, two in zip(text.input_ids.tolist(), text.targets.tolist(), strict=True):
            if two == IGNORED:
                continue
            share = counts.get((one, two), 0) / before[one] if one in before else single[two]
            loss -= math.log(_WEIGHT * share + (1 - _WEIGHT) * single[two])
            hits += best.get(one, top) == two
        return loss, hits

    return np.array([score(text) for text in test.columns["scored"]], "float64")


class Language(Evaluator):
    """Evaluates scores of texts (negative log-likelihood, hits); see `TextGeneration.decide`.

    The main metric is the perplexity: the exponential of the mean negative log-likelihood of a
    token. Since that depends on the tokenizer, there are also the bits that a byte of text takes,
    which can be compared between tokenizers.
    """

    main_metric = "perplexity"
    baselines = {"bigram": _bigram}
    lower_is_better = True
    drawing = "main metric"

    def measure(
        self, targets: list[ScoredText], predictions: np.ndarray, labels: Labels | None
    ) -> dict[str, float]:
        """Returns perplexity, bits per byte, and the share of tokens with the highest logit."""
        means = self.statistics(targets, predictions).mean(axis=0, keepdims=True)
        losses, hits = predictions.sum(axis=0)
        size = sum(text.scored_bytes for text in targets)
        return {
            "perplexity": float(self.metric(means)[0]),
            "bits_per_byte": float(losses / math.log(2) / max(size, 1)),
            "accuracy": float(hits / _scored(targets).sum()),
        }

    def statistics(self, targets: list[ScoredText], predictions: np.ndarray) -> np.ndarray:
        """Returns negative log-likelihood and number of scored tokens of each text."""
        return np.column_stack([predictions[:, 0], _scored(targets)])

    def metric(self, means: np.ndarray) -> np.ndarray:
        """Returns the perplexity; a resample without scored tokens counts as 1."""
        loss, tokens = means.T
        return np.exp(loss / np.where(tokens > 0, tokens, 1))


def _scored(targets: list[ScoredText]) -> np.ndarray:
    return np.array([(text.targets != IGNORED).sum() for text in targets])
