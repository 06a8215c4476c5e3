"""How answers from a context are measured: by the rules of SQuAD."""

import numpy as np

from finetune_tf.base.labels import Labels
from finetune_tf.evaluation.baselines.answers import BASELINES
from finetune_tf.evaluation.evaluators.answer_scores import best_scores, exact_match, f1_score
from finetune_tf.evaluation.evaluators.evaluator import Evaluator


class Answers(Evaluator):
    """One text for each question, measured against the accepted ones; "" is "no answer".

    - f1: words that answer and accepted answer share, the best over the accepted ones;
    - exact_match: share of answers equal to an accepted one;
    - has_answer_f1 and no_answer_accuracy, where there are questions without an answer: the f1 of
      the others alone, and the share of these that were left without one.

    Case, punctuation, the articles a, an and the, and white space do not count. Words are what
    white space separates, so that in languages written without any, f1 is all or nothing.
    """

    main_metric = "f1"
    baselines = BASELINES
    unit = "questions"

    def measure(
        self, targets: list[list[str]], predictions: list[str], labels: Labels | None
    ) -> dict[str, float]:
        """The metrics, from 0 to 1."""
        f1 = best_scores(f1_score, targets, predictions)
        metrics = {
            "f1": float(f1.mean()),
            "exact_match": float(best_scores(exact_match, targets, predictions).mean()),
        }
        answerable = np.asarray([bool(accepted) for accepted in targets])
        if not answerable.all():
            if answerable.any():
                metrics["has_answer_f1"] = float(f1[answerable].mean())
            metrics["no_answer_accuracy"] = float(f1[~answerable].mean())
        return metrics

    def statistics(self, targets: list[list[str]], predictions: list[str]) -> np.ndarray:
        """The f1 of each question."""
        return best_scores(f1_score, targets, predictions)[:, None]

    def metric(self, means: np.ndarray) -> np.ndarray:
        """Its mean."""
        return means[:, 0]
