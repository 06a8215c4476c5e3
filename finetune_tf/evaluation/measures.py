"""The kinds of predictions there are, and how each is measured: one row each."""

from finetune_tf.evaluation.answer_measures import Answers
from finetune_tf.evaluation.mask_measures import MaskedWords
from finetune_tf.evaluation.measure import Measure
from finetune_tf.evaluation.similarity_measures import Similarity
from finetune_tf.evaluation.text_measures import MultiLabel, Regression, SingleLabel
from finetune_tf.evaluation.token_measures import Entities, Tags

#: By `Task.measure`.
MEASURES: dict[str, Measure] = {
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
        kind: A key of `MEASURES`.
        before: Text in front of the note.
        after: Text behind it.
    """
    return f"{before}lower is better{after}" if MEASURES[kind].lower_is_better else ""
