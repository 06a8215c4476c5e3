"""How well a model knows the language of some texts: the words that were hidden in them."""

import numpy as np

from finetune_tf.base.labels import Labels
from finetune_tf.data import Examples
from finetune_tf.evaluation.evaluators.evaluator import Evaluator
from finetune_tf.tasks.masking import Cloze
from finetune_tf.tasks.task import IGNORED


def _unigram(
    train: Examples, targets: list[Cloze], test: Examples, labels: Labels | None, seed: int
) -> np.ndarray:
    """Each word by how often it stands in the training texts, one added to every count."""
    answers = [cloze.answers[cloze.answers != IGNORED] for cloze in test.columns["cloze"]]
    seen = np.concatenate([cloze.candidates for cloze in targets])
    size = 1 + max(map(np.max, (seen, *filter(len, answers))))
    counts = np.bincount(seen, minlength=size)
    chances = (counts + 1) / (len(seen) + targets[0].vocabulary)
    best = counts.argmax()
    return np.array([[-np.log(chances[a]).sum(), (a == best).sum(), len(a)] for a in answers])


class MaskedWords(Evaluator):
    """Per text (sum of surprise, hits, hidden words); the main metric is the perplexity.

    That is exp of the mean negative log probability of the hidden words: a model that had to
    guess among so many equally probable words would be as surprised. Lower is better.
    """

    main_metric = "perplexity"
    baselines = {"unigram": _unigram}
    lower_is_better = True
    drawing = "main metric"

    def measure(
        self, targets: list[Cloze], predictions: np.ndarray, labels: Labels | None
    ) -> dict[str, float]:
        """Perplexity, and the share of hidden words that are the model's first choice."""
        means = self.statistics(targets, predictions).mean(axis=0, keepdims=True)
        hits, words = predictions[:, 1:].sum(axis=0)
        return {"perplexity": float(self.metric(means)[0]), "accuracy": float(hits / words)}

    def statistics(self, targets: list[Cloze], predictions: np.ndarray) -> np.ndarray:
        """Surprise and number of hidden words."""
        return predictions[:, [0, 2]]

    def metric(self, means: np.ndarray) -> np.ndarray:
        """Perplexity; a draw of texts without a hidden word counts as 1."""
        surprise, words = means.T
        return np.exp(surprise / np.where(words > 0, words, 1))
