"""The evaluator of masked language modeling: perplexity and accuracy on masked tokens."""

import numpy as np

from finetune_tf.base.labels import Labels
from finetune_tf.data import Examples
from finetune_tf.evaluation.evaluators.evaluator import Evaluator
from finetune_tf.tasks.masking import Cloze
from finetune_tf.tasks.task import IGNORED


def _unigram(
    train: Examples, targets: list[Cloze], test: Examples, labels: Labels | None, seed: int
) -> np.ndarray:
    """Predicts each token with its frequency in the training texts, with add-one smoothing."""
    answers = [cloze.answers[cloze.answers != IGNORED] for cloze in test.columns["cloze"]]
    tokens = np.concatenate([cloze.candidates for cloze in targets])
    size = 1 + max(map(np.max, (tokens, *filter(len, answers))))
    counts = np.bincount(tokens, minlength=size)
    probabilities = (counts + 1) / (len(tokens) + targets[0].vocabulary)
    best = counts.argmax()
    return np.array([[-np.log(probabilities[a]).sum(), (a == best).sum(), len(a)] for a in answers])


class MaskedWords(Evaluator):
    """Evaluates the predictions of masked tokens; the main metric is the perplexity.

    Predictions have three values per text: the summed negative log-likelihood of the masked tokens,
    the number of correct predictions, and the number of masked tokens. The perplexity is exp of the
    mean negative log-likelihood; lower is better. A model with perplexity k is as uncertain as a
    uniform choice among k tokens.

    Example:
        >>> from finetune_tf.evaluation.evaluators.masks import MaskedWords
        >>> predictions = np.array([[np.log(4) + np.log(9), 1, 2]])
        >>> metrics = MaskedWords().measure([], predictions, None)
        >>> round(metrics["perplexity"], 3), metrics["accuracy"]
        (6.0, 0.5)
    """

    main_metric = "perplexity"
    baselines = {"unigram": _unigram}
    lower_is_better = True
    drawing = "main metric"

    def measure(
        self, targets: list[Cloze], predictions: np.ndarray, labels: Labels | None
    ) -> dict[str, float]:
        """Computes the perplexity, and the accuracy of the most probable tokens."""
        means = self.statistics(targets, predictions).mean(axis=0, keepdims=True)
        hits, words = predictions[:, 1:].sum(axis=0)
        return {"perplexity": float(self.metric(means)[0]), "accuracy": float(hits / words)}

    def statistics(self, targets: list[Cloze], predictions: np.ndarray) -> np.ndarray:
        """Returns the negative log-likelihood and the number of masked tokens per text (n, 2)."""
        return predictions[:, [0, 2]]

    def metric(self, means: np.ndarray) -> np.ndarray:
        """Computes the perplexity, which is 1 for a resample without masked tokens."""
        negative_log_likelihood, words = means.T
        return np.exp(negative_log_likelihood / np.where(words > 0, words, 1))
