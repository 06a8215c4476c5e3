"""The evaluators of tasks whose predictions are texts: translations, summaries and others."""

import numpy as np

from finetune_tf.base.labels import Labels
from finetune_tf.data import Examples
from finetune_tf.evaluation.baselines import extracts, nearest, word_table
from finetune_tf.evaluation.evaluators.evaluator import Evaluator
from finetune_tf.evaluation.evaluators.generated_scores import (
    ROUGE,
    References,
    bleu_of_means,
    bleu_statistics,
    chrf,
    exact_matches,
    is_for_rouge,
    rouge_scores,
    signatures,
)

_SHOWN = 5  # examples in a report


class _GeneratedTexts(Evaluator):
    """Compares one text per example with its references."""

    def side_by_side(
        self, test: Examples, targets: References, predictions: list[str]
    ) -> list[dict[str, str]]:
        """Returns the first examples: source, first reference and prediction."""
        rows = zip(test.columns["source"][:_SHOWN], targets, predictions, strict=False)
        return [
            {"source": source, "reference": references[0], "prediction": prediction}
            for source, references, prediction in rows
        ]


class Translations(_GeneratedTexts):
    """Evaluates translations; the main metric is the BLEU of the whole test set, from 0 to 100.

    BLEU and chrF are those of `sacrebleu.corpus_bleu` and `corpus_chrf`.
    """

    main_metric = "bleu"
    baselines = {"dictionary": word_table.translate, "copy": nearest.copy}
    packages = ("sacrebleu",)

    def measure(
        self, targets: References, predictions: list[str], labels: Labels | None
    ) -> dict[str, float]:
        """Computes BLEU and chrF."""
        means = self.statistics(targets, predictions).mean(axis=0, keepdims=True)
        return {"bleu": float(self.metric(means)[0]), "chrf": chrf(targets, predictions)}

    def statistics(self, targets: References, predictions: list[str]) -> np.ndarray:
        """Returns the counts of n-grams; see `bleu_statistics`."""
        return bleu_statistics(targets, predictions)

    def metric(self, means: np.ndarray) -> np.ndarray:
        """Computes BLEU."""
        return bleu_of_means(means)

    def notes(self, targets: References) -> list[str]:
        """Returns the signatures of sacrebleu."""
        return [signatures(targets, ["bleu", "chrf"])]


class Summaries(_GeneratedTexts):
    """Evaluates summaries; the main metric is the mean F-measure of ROUGE-L, from 0 to 1.

    ROUGE-L compares whole summaries (not sentence by sentence, as "rougeLsum" does).
    """

    main_metric = "rougeL"
    baselines = {"lead-3": extracts.lead, "textrank": extracts.textrank}
    packages = ("rouge_score.rouge_scorer",)

    def measure(
        self, targets: References, predictions: list[str], labels: Labels | None
    ) -> dict[str, float]:
        """Computes the F-measures of ROUGE-L, ROUGE-1 and ROUGE-2."""
        means = rouge_scores(targets, predictions).mean(axis=0)
        return dict(zip(ROUGE, means.tolist(), strict=True))

    def statistics(self, targets: References, predictions: list[str]) -> np.ndarray:
        """Returns the F-measure of ROUGE-L of each summary (n, 1)."""
        return rouge_scores(targets, predictions)[:, :1]

    def metric(self, means: np.ndarray) -> np.ndarray:
        """Returns the mean F-measure."""
        return means[:, 0]

    def notes(self, targets: References) -> list[str]:
        """Returns which words ROUGE compares."""
        if is_for_rouge(targets):
            return ["rouge-score: F-measure, words of the letters a to z and digits, stemmed."]
        return [
            "rouge-score: F-measure, words in any script or, where no spaces separate them, "
            "characters; not stemmed."
        ]


class Texts(_GeneratedTexts):
    """Evaluates texts that are right or wrong; the main metric is the share of exact matches."""

    main_metric = "exact_match"
    baselines = {"nearest": nearest.nearest, "copy": nearest.copy}
    packages = ("sacrebleu",)

    def measure(
        self, targets: References, predictions: list[str], labels: Labels | None
    ) -> dict[str, float]:
        """Computes the share of exact matches, from 0 to 1, and chrF, from 0 to 100."""
        exact = float(exact_matches(targets, predictions).mean())
        return {"exact_match": exact, "chrf": chrf(targets, predictions)}

    def statistics(self, targets: References, predictions: list[str]) -> np.ndarray:
        """Returns 1 for each exact match, else 0 (n, 1)."""
        return exact_matches(targets, predictions)[:, None]

    def metric(self, means: np.ndarray) -> np.ndarray:
        """Returns the share of exact matches."""
        return means[:, 0]

    def notes(self, targets: References) -> list[str]:
        """Returns the signature of sacrebleu."""
        return [signatures(targets, ["chrf"])]
