"""Whether two data sets come from one distribution.

References:
    Lopez-Paz and Oquab, Revisiting Classifier Two-Sample Tests, ICLR 2017.
    DeLong, DeLong and Clarke-Pearson, Comparing the Areas under Two or More Correlated Receiver
    Operating Characteristic Curves, Biometrics 1988 (the interval of the area).
    Obuchowski, Nonparametric Analysis of Clustered ROC Curve Data, Biometrics 1997 (rows of one
    text).
"""

from collections.abc import Hashable
from pathlib import Path

import numpy as np

from finetune_tf.base.arguments import check
from finetune_tf.base.spelling import names_checked
from finetune_tf.data import Examples
from finetune_tf.diagnosis.features import (
    features_of,
    folds_by_text,
    keys_of,
    probe,
    require_examples,
    text_of,
)
from finetune_tf.diagnosis.results import Drift, DriftRow
from finetune_tf.errors import DataError
from finetune_tf.evaluation.intervals import NORMAL, Interval
from finetune_tf.model.finetune_model import FineTuneModel

_FEWEST, _MOST = 50, 5_000


@names_checked
def drift(
    model_or_checkpoint: FineTuneModel | str | Path,
    train: Examples,
    test: Examples,
    *,
    n: int = 20,
    seed: int = 0,
) -> Drift:
    """Trains a probe to tell test examples from training examples, and measures how well it can.

    The probe is a logistic regression on features of the examples. It is trained on a half of the
    rows and measured on the other half, and the other way round (a classifier two-sample test,
    Lopez-Paz and Oquab, ICLR 2017). Equal texts are in one half, and count as one observation for
    the interval and the probability. Of more than 5,000 rows of a data set, 5,000 are drawn.

    Args:
        model_or_checkpoint: What computes the features: the folder or Hub id of a checkpoint, or a
            model. A model that was trained on `train` can know its rows; use its checkpoint.
        train: Examples.
        test: Examples that ought to be like them.
        n: The number of rows that are listed.
        seed: The seed of the halves.

    Returns:
        The area under the ROC curve and the test examples that are least like the training
        examples; print it.

    Raises:
        DataTypeError: If `train` or `test` are not `Examples`.
        DataError: If one of them has fewer than 50 rows, or too few different ones.
        ModelError: If the model cannot read the examples.

    Example:
        >>> many = ft.data.from_arrays(train.columns["text"] * 30, train.columns["label"] * 30)
        >>> found = ft.diagnosis.drift(checkpoint, many, many)
        >>> found.is_clear
        False
    """
    check(n=n, seed=seed)
    require_examples(train=train, test=test)
    for examples in (train, test):
        if len(examples) < _FEWEST:
            raise DataError(
                f"drift needs at least {_FEWEST} rows of each data set, found {len(examples)} in "
                f"{examples.name}."
            )
    chosen = [_drawn(len(examples), seed) for examples in (train, test)]
    used = [examples[rows.tolist()] for examples, rows in zip((train, test), chosen, strict=True)]
    features = np.concatenate(features_of(model_or_checkpoint, *used))
    is_test = np.repeat([0, 1], [len(used[0]), len(used[1])])
    keys = keys_of(*used)
    halves = folds_by_text(keys, is_test, 2, seed)
    numbers: dict[Hashable, int] = {}
    texts = np.array([numbers.setdefault(key, len(numbers)) for key in keys])
    sides = {
        (half, side): (halves == half) & (is_test == side) for half in (0, 1) for side in (0, 1)
    }
    fewest = min(len(np.unique(texts[rows])) for rows in sides.values())
    if fewest < 2:
        raise DataError(
            f"drift needs different texts in each half of both data sets, but {train.name} and "
            f"{test.name} have so few that a half has {fewest}. Give more different examples."
        )
    scores, areas, variances, by_chance = np.zeros(len(is_test)), [], [], []
    for half in (0, 1):
        held_out = halves == half
        scores[held_out] = probe(features[~held_out], is_test[~held_out], features[held_out])[:, 1]
        tests, others = sides[half, 1], sides[half, 0]
        area, variance = area_under_roc(scores[tests], scores[others], texts[tests], texts[others])
        areas.append(area)
        variances.append(variance)
        by_chance.append(_variance_by_chance(texts[tests], texts[others]))
    # The halves share their rows, so the mean is taken to be as uncertain as one of them.
    area, error = float(np.mean(areas)), NORMAL * float(np.sqrt(np.mean(variances)))
    order = np.argsort(-scores[is_test == 1], kind="stable")[:n]
    rows = chosen[1][order].tolist()
    found = [
        DriftRow(row, test.places.name(row), text_of(test, row), float(score))
        for row, score in zip(rows, scores[is_test == 1][order], strict=True)
    ]
    return Drift(
        rows=found,
        data=test.name,
        other_data=train.name,
        auc=Interval(area, max(0.0, area - error), min(1.0, area + error)),
        p_value=_p_value(area, float(np.mean(by_chance))),
        size=len(used[1]),
        other_size=len(used[0]),
    )


def area_under_roc(
    positives: np.ndarray,
    negatives: np.ndarray,
    positive_texts: np.ndarray | None = None,
    negative_texts: np.ndarray | None = None,
) -> tuple[float, float]:
    """Returns the area under the ROC curve and its variance, by DeLong's method.

    Args:
        positives: The scores of the rows that should be higher (m,).
        negatives: The scores of the others (n,).
        positive_texts: The number of the text of each of the former (m,); rows of one text are one
            observation (Obuchowski 1997). By default all texts are different.
        negative_texts: The same for the others (n,).

    Example:
        >>> from finetune_tf.diagnosis.drift import area_under_roc
        >>> area_under_roc(np.array([0.9, 0.8, 0.4]), np.array([0.1, 0.5]))[0]
        0.833...
    """
    from scipy.stats import rankdata

    m, n = len(positives), len(negatives)
    joint = rankdata(np.concatenate([positives, negatives]))
    above = (joint[:m] - rankdata(positives)) / n  # for each positive, the share below it
    below = 1 - (joint[m:] - rankdata(negatives)) / m
    variance = _variance_of_mean(above, positive_texts) + _variance_of_mean(below, negative_texts)
    return float(above.mean()), variance


def _variance_of_mean(values: np.ndarray, texts: np.ndarray | None) -> float:
    """Returns the variance of the mean of values (n,), of which those of one text are dependent."""
    deviations = values - values.mean()
    if texts is not None:
        deviations = np.bincount(np.unique(texts, return_inverse=True)[1], deviations)
    count = len(deviations)
    return float(count / (count - 1) * (deviations**2).sum() / len(values) ** 2)


def _variance_by_chance(texts: np.ndarray, others: np.ndarray) -> float:
    """Returns the variance of the area if the scores say nothing, as Mann and Whitney do.

    The numbers of rows are those of independent ones that are as informative (Kish 1965), since
    rows of one text have one score.
    """
    m, n = (len(each) ** 2 / (np.bincount(each) ** 2).sum() for each in (texts, others))
    return float((m + n + 1) / (12 * m * n))


def _p_value(area: float, variance: float) -> float:
    """Returns the one-sided probability of such an area if the scores say nothing."""
    from scipy.stats import norm

    return float(norm.sf((area - 0.5) / np.sqrt(variance)))


def _drawn(rows: int, seed: int) -> np.ndarray:
    if rows <= _MOST:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).choice(rows, _MOST, replace=False))
