"""Scores of generated texts: BLEU and chrF by sacrebleu, ROUGE by rouge-score, exact match.

References:
    Papineni et al., BLEU: a Method for Automatic Evaluation of Machine Translation, ACL 2002.
    Popović, chrF: character n-gram F-score for automatic MT evaluation, WMT 2015.
    Lin, ROUGE: A Package for Automatic Evaluation of Summaries, Text Summarization Branches Out
    2004.
    Post, A Call for Clarity in Reporting BLEU Scores, WMT 2018.
"""

import re
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from finetune_tf.base.extras import require_package
from finetune_tf.evaluation.baselines.tfidf import UNSPACED

References = Sequence[Sequence[str]]

ROUGE = ("rougeL", "rouge1", "rouge2")
_ORDERS = 4  # of the n-grams of BLEU
_IS_UNSPACED = re.compile(f"[{UNSPACED}]")
_IS_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+")
# The tokenizer of rouge-score splits words at every other letter than a to z. Names such as "café"
# in English texts stay below this share of letters, languages with other letters are above it.
_OTHER_LETTERS = 0.005


def exact_matches(targets: References, predictions: Sequence[str]) -> np.ndarray:
    """Returns 1 for each prediction that equals a reference, else 0 (n,).

    White space is ignored at both ends, and its amount elsewhere. Case counts.

    Example:
        >>> from finetune_tf.evaluation.evaluators.generated_scores import exact_matches
        >>> exact_matches([["a b"], ["c", "d"]], ["a  b", "D"]).tolist()
        [1.0, 0.0]
    """
    return np.array(
        [
            " ".join(prediction.split()) in {" ".join(text.split()) for text in references}
            for references, prediction in zip(targets, predictions, strict=True)
        ],
        dtype="float64",
    )


def bleu_statistics(targets: References, predictions: Sequence[str]) -> np.ndarray:
    """Counts of each text from which BLEU follows.

    Returns:
        (n, 11): the number n of texts, the lengths of prediction and closest reference, the
        matching n-grams and all n-grams of the prediction for n from 1 to 4. The first column is
        the same in each row, so that the mean of the others yields the sums over the texts.
    """
    bleu = _bleu(targets, effective_order=True)
    rows = []
    for references, prediction in zip(targets, predictions, strict=True):
        score = bleu.sentence_score(prediction, list(references))
        rows.append([score.sys_len, score.ref_len, *score.counts, *score.totals])
    return np.column_stack([np.full(len(rows), len(rows)), np.array(rows)]).astype("float64")


def bleu_of_means(means: np.ndarray) -> np.ndarray:
    """BLEU (resamples,) of averaged statistics (resamples, 11), from 0 to 100.

    The definition is that of `sacrebleu.corpus_bleu`: the geometric mean of the n-gram precisions,
    smoothed by "exp", times the brevity penalty.

    Example:
        >>> from finetune_tf.evaluation.evaluators.generated_scores import bleu_of_means
        >>> counts = np.array([1, 8, 8, 6, 4, 2, 1, 8, 7, 6, 5])  # one text with 8 words
        >>> bleu_of_means(counts[None]).round(2).tolist()
        [41.11]
    """
    # The counts are whole numbers; rounding removes the error of averaging.
    length, reference, *counts = np.rint(means[:, 1:] * means[:, :1]).T
    matches, totals = np.array(counts[:_ORDERS]), np.array(counts[_ORDERS:])  # (4, resamples)
    is_zero = (matches == 0) & (totals > 0)
    smoothed = 1 / 2.0 ** np.cumsum(is_zero, axis=0)  # instead of an order without a match
    with np.errstate(divide="ignore", invalid="ignore"):
        precisions = np.where(is_zero, smoothed, matches) / totals
        penalty = np.exp(np.minimum(0, 1 - reference / length))
        scores = 100 * penalty * np.exp(np.log(precisions).mean(axis=0))
    return np.where((totals > 0).all(axis=0) & (matches > 0).any(axis=0), scores, 0.0)


def chrf(targets: References, predictions: Sequence[str]) -> float:
    """Returns the chrF of all texts together, from 0 to 100."""
    metric = require_package("sacrebleu").CHRF()
    return float(metric.corpus_score(list(predictions), _streams(targets)).score)


def signatures(targets: References, names: Sequence[str]) -> str:
    """How the scores were computed, in a form that can be published (Post 2018).

    Args:
        targets: The references.
        names: Of "bleu" and "chrf".
    """
    metrics = {"bleu": lambda: _bleu(targets), "chrf": require_package("sacrebleu").CHRF}
    found = []
    for name in names:
        metric = metrics[name]()
        # The signature has the number of references, which the metric knows after one score.
        metric.corpus_score([references[0] for references in targets], _streams(targets))
        found.append(f"{name} {metric.get_signature()}")
    return f"sacrebleu: {'; '.join(found)}."


def rouge_scores(targets: References, predictions: Sequence[str]) -> np.ndarray:
    """F-measures (n, 3) of `ROUGE` for each text, from 0 to 1; of several references the best."""
    scorer = require_package("rouge_score.rouge_scorer")
    tokenizer = None if is_for_rouge(targets) else _Words()
    rouge = scorer.RougeScorer(list(ROUGE), use_stemmer=tokenizer is None, tokenizer=tokenizer)
    rows = []
    for references, prediction in zip(targets, predictions, strict=True):
        scores = rouge.score_multi(list(references), prediction)
        rows.append([scores[name].fmeasure for name in ROUGE])
    return np.array(rows, dtype="float64")


def is_for_rouge(targets: References) -> bool:
    """Whether the tokenizer of rouge-score suits the references: letters from a to z.

    Example:
        >>> from finetune_tf.evaluation.evaluators.generated_scores import is_for_rouge
        >>> is_for_rouge([["a good film"]]), is_for_rouge([["ein schöner Film"]])
        (True, False)
    """
    letters = [c for references in targets for text in references for c in text if c.isalpha()]
    others = sum(not letter.isascii() for letter in letters)
    return others <= _OTHER_LETTERS * len(letters)


class _Words:
    """Words in any script for rouge-score; where no spaces separate them, characters."""

    def tokenize(self, text: str) -> list[str]:
        return _WORD.findall(text.casefold())


def _bleu(targets: References, **options: Any) -> Any:
    return require_package("sacrebleu").BLEU(tokenize=_bleu_tokenizer(targets), **options)


def _bleu_tokenizer(targets: References) -> str:
    """The name of sacrebleu's tokenizer: "13a", "zh" for Chinese, "char" for Japanese or Thai."""
    text = "".join(text for references in targets for text in references)
    unspaced = len(_IS_UNSPACED.findall(text))
    if 2 * unspaced < len(_WORD.findall(text)):
        return "13a"
    return "zh" if len(_IS_HAN.findall(text)) == unspaced else "char"


def _streams(targets: References) -> list[tuple]:
    """The references as sacrebleu expects them: the first of each text, then the second."""
    return [list(stream) for stream in zip_longest(*targets)]
