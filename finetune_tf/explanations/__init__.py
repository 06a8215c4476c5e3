"""Explanations of predictions, and checks of how far to trust them.

`explain` scores the words or patches that a model read, and `check` measures whether removing what
an explanation calls important changes the prediction, and whether the explanation depends on what
the model has learned.
"""

from finetune_tf.explanations.check_result import ExplanationCheck
from finetune_tf.explanations.checking import check
from finetune_tf.explanations.explaining import explain
from finetune_tf.explanations.explanation import Explanation, Explanations, Neighbor, WordScore

__all__ = [
    "Explanation",
    "ExplanationCheck",
    "Explanations",
    "Neighbor",
    "WordScore",
    "check",
    "explain",
]
