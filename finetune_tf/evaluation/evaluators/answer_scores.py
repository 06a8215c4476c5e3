"""Exact match and F1 of answers, as in the official evaluation scripts of SQuAD.

References:
    Rajpurkar et al., SQuAD: 100,000+ Questions for Machine Comprehension of Text, EMNLP 2016.
    Rajpurkar et al., Know What You Don't Know: Unanswerable Questions for SQuAD, ACL 2018.
"""

import re
import string
from collections import Counter
from collections.abc import Callable

import numpy as np

_REMOVE_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalized(text: str) -> str:
    """Normalizes an answer: lower case, without punctuation, articles and extra white space.

    Example:
        >>> from finetune_tf.evaluation.evaluators.answer_scores import normalized
        >>> normalized(" The  Eiffel Tower!")
        'eiffel tower'
    """
    text = text.lower().translate(_REMOVE_PUNCTUATION)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def exact_match(answer: str, accepted: str) -> float:
    """Returns 1 if the normalized texts are equal, else 0."""
    return float(normalized(answer) == normalized(accepted))


def f1_score(answer: str, accepted: str) -> float:
    """Computes the F1 of the words: the harmonic mean of precision and recall.

    A word that occurs several times counts each time. If one text has no words, F1 is 1 if the
    other one has none either, and else 0.

    Example:
        >>> from finetune_tf.evaluation.evaluators.answer_scores import f1_score
        >>> f1_score("in the summer of 1969", "the summer of 1969")
        0.8571428571428571
    """
    words, accepted_words = normalized(answer).split(), normalized(accepted).split()
    if not words or not accepted_words:
        return float(words == accepted_words)
    shared = (Counter(words) & Counter(accepted_words)).total()
    return 2 * shared / (len(words) + len(accepted_words))


def best_scores(
    score: Callable[[str, str], float], targets: list[list[str]], predictions: list[str]
) -> np.ndarray:
    """Returns the highest score over the accepted answers of each question (n,)."""
    return np.asarray(
        [
            # An accepted answer that is empty after normalization, such as "the", is ignored.
            max(score(answer, text) for text in list(filter(normalized, accepted)) or [""])
            for answer, accepted in zip(predictions, targets, strict=True)
        ]
    )
