"""The evaluator of question answering, with the metrics of SQuAD."""

import numpy as np

from finetune_tf.base.labels import Labels
from finetune_tf.evaluation.baselines.answers import BASELINES
from finetune_tf.evaluation.evaluators.answer_scores import best_scores, exact_match, f1_score
from finetune_tf.evaluation.evaluators.evaluator import Evaluator


class Answers(Evaluator):
    """Compares one answer per question with the accepted answers; "" means "no answer".

    - f1: the F1 of the words, the maximum over the accepted answers;
    - exact_match: the share of answers that are equal to an accepted answer;
    - has_answer_f1 and no_answer_accuracy, if there are unanswerable questions: the f1 of the
      answerable questions, and the share of unanswerable questions with the prediction "".

    Case, punctuation, the articles a, an and the, and extra white space are ignored (Rajpurkar et
    al. 2016, 2018). Words are separated by white space, so in languages without spaces f1 is
    either 0 or 1.

    Example:
        >>> from finetune_tf.evaluation.evaluators.answers import Answers
        >>> Answers().measure([["Paris"], ["in 1969", "1969"]], ["paris", "July 1969"], None)
        {'f1': 0.8333333333333333, 'exact_match': 0.5}
    """

    main_metric = "f1"
    baselines = BASELINES
    unit = "questions"

    def measure(
        self, targets: list[list[str]], predictions: list[str], labels: Labels | None
    ) -> dict[str, float]:
        """Computes the metrics, all from 0 to 1."""
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
        """Returns the f1 of each question (n, 1)."""
        return best_scores(f1_score, targets, predictions)[:, None]

    def metric(self, means: np.ndarray) -> np.ndarray:
        """Returns the mean f1."""
        return means[:, 0]
