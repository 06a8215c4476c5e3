"""How right an answer is: the rules of SQuAD's official scripts.

Rajpurkar et al., SQuAD: 100,000+ Questions for Machine Comprehension of Text, 2016, and Know What
You Don't Know: Unanswerable Questions for SQuAD, 2018.
"""

import re
import string
from collections import Counter
from collections.abc import Callable

import numpy as np

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalized(text: str) -> str:
    """An answer without what does not count: case, punctuation, articles, white space."""
    text = text.lower().translate(_NO_PUNCTUATION)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def exact_match(answer: str, accepted: str) -> float:
    """1 if the two are equal once normalised, else 0."""
    return float(normalized(answer) == normalized(accepted))


def f1_score(answer: str, accepted: str) -> float:
    """Harmonic mean of precision and recall of the words, each as often as it occurs.

    Where one of the two has no words, it is 1 if the other has none either.
    """
    ours, theirs = normalized(answer).split(), normalized(accepted).split()
    if not ours or not theirs:
        return float(ours == theirs)
    shared = (Counter(ours) & Counter(theirs)).total()
    return 2 * shared / (len(ours) + len(theirs))


def best_scores(
    score: Callable[[str, str], float], targets: list[list[str]], predictions: list[str]
) -> np.ndarray:
    """The best score over the accepted answers of each question (n,)."""
    return np.asarray(
        [
            # An accepted answer of which nothing counts, such as "the", is none.
            max(score(answer, text) for text in list(filter(normalized, accepted)) or [""])
            for answer, accepted in zip(predictions, targets, strict=True)
        ]
    )
