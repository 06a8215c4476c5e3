"""The kinds of predictions there are, and how each is measured: one row each."""

from finetune_tf.evaluation.evaluators.answers import Answers
from finetune_tf.evaluation.evaluators.evaluator import Evaluator
from finetune_tf.evaluation.evaluators.masks import MaskedWords
from finetune_tf.evaluation.evaluators.similarity import Similarity
from finetune_tf.evaluation.evaluators.text import MultiLabel, Regression, SingleLabel
from finetune_tf.evaluation.evaluators.tokens import Entities, Tags

#: By `Task.evaluator`.
EVALUATORS: dict[str, Evaluator] = {
    "single_label_classification": SingleLabel(),
    "multi_label_classification": MultiLabel(),
    "regression": Regression(),
    "token-classification": Entities(),
    "tagging": Tags(),
    "question-answering": Answers(),
    "fill-mask": MaskedWords(),
    "similarity": Similarity(),
}


def direction_note(kind: str, before: str, after: str = "") -> str:
    """That lower is better, with what stands around it; "" where higher is better.

    Args:
        kind: A key of `EVALUATORS`.
        before: Text in front of the note.
        after: Text behind it.
    """
    return f"{before}lower is better{after}" if EVALUATORS[kind].lower_is_better else ""
