"""The evaluator of image-text retrieval: recall at 1 and 5, by images and by texts."""

import numpy as np

from finetune_tf.base.labels import Labels
from finetune_tf.data import Examples
from finetune_tf.evaluation.evaluators.evaluator import Evaluator, Predicted
from finetune_tf.tasks import Task
from finetune_tf.tasks.image_pairs import matching_groups
from finetune_tf.tasks.image_text_retrieval import RANKS

#: The columns of the predictions, which are whether a pair is found.
NAMES = tuple(
    f"{query}_recall@{rank}" for query in ("image_to_text", "text_to_image") for rank in RANKS
)


class Recall(Evaluator):
    """Evaluates one column of predictions (pairs, 4): the share of pairs that are found.

    Args:
        column: The index of the column in `NAMES`.
    """

    unit = example_unit = "pairs"
    baselines = {}

    def __init__(self, column: int) -> None:
        self.column, self.main_metric = column, NAMES[column]

    def measure(
        self, targets: np.ndarray, predictions: np.ndarray, labels: Labels | None
    ) -> dict[str, float]:
        """Computes the recall of the column."""
        return {self.main_metric: float(self.statistics(targets, predictions).mean())}

    def statistics(self, targets: np.ndarray, predictions: np.ndarray) -> np.ndarray:
        """Returns whether each pair is found (pairs, 1)."""
        return np.float64(predictions)[:, [self.column]]

    def metric(self, means: np.ndarray) -> np.ndarray:
        """Returns the recall."""
        return means[:, 0]


class Retrieval(Recall):
    """Evaluates whether pairs are found; the main metric is the recall at 1 of texts for images.

    The predictions (pairs, 4) have a column for each of `NAMES`. The intervals of the differences
    resample pairs, and keep what each pair is searched among.
    """

    drawing = "main metric"

    def __init__(self) -> None:
        super().__init__(0)
        self.baselines = {"chance": _chance}

    def measure(
        self, targets: np.ndarray, predictions: np.ndarray, labels: Labels | None
    ) -> dict[str, float]:
        """Computes all four recalls."""
        return dict(zip(NAMES, np.float64(predictions).mean(axis=0).tolist(), strict=True))

    def scores_of(self, task: Task, rows: list[np.ndarray], values: np.ndarray) -> np.ndarray:
        """Returns the predictions, from which the other recalls are computed."""
        return values

    def of_scores(self, labels: Labels | None) -> list[Evaluator]:
        """Returns the evaluators of the other three recalls."""
        return [Recall(column) for column in range(1, len(NAMES))]


def _chance(
    train: Examples, targets: np.ndarray, test: Examples, labels: Labels | None, seed: int
) -> Predicted:
    """The expected recalls of a random order of the candidates, for each pair (pairs, 4)."""
    images, texts = test.columns["image"], test.columns["text"]
    groups = matching_groups(images, texts)
    columns = []
    for candidates in (texts, images):
        of_candidates = matching_groups(candidates)  # the number of each distinct one
        distinct = np.unique(np.stack([of_candidates, groups]), axis=1)[1]
        count = len(distinct)
        matches = np.bincount(distinct)[groups]
        # The chance that none of the first ones matches, drawn without replacement.
        missed = np.ones(len(groups))
        for rank in range(max(RANKS)):
            missed = missed * np.clip((count - rank - matches) / max(count - rank, 1), 0, 1)
            if rank + 1 in RANKS:
                columns.append(1 - missed)
    found = np.stack(columns, axis=1)
    return Predicted(found, found)
