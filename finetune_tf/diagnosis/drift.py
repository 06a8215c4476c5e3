"""Whether two data sets come from one distribution.

References:
    Lopez-Paz and Oquab, Revisiting Classifier Two-Sample Tests, ICLR 2017.
    DeLong, DeLong and Clarke-Pearson, Comparing the Areas under Two or More Correlated Receiver
    Operating Characteristic Curves, Biometrics 1988 (the interval of the area).
"""

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
    Lopez-Paz and Oquab, ICLR 2017). Equal texts are in one half. Of more than 5,000 rows of a data
    set, 5,000 are drawn.

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
        DataError: If one of them has fewer than 50 rows.
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
    halves = folds_by_text(keys_of(*used), is_test, 2, seed)
    scores, areas, variances, sizes = np.zeros(len(is_test)), [], [], []
    for half in (0, 1):
        held_out = halves == half
        scores[held_out] = probe(features[~held_out], is_test[~held_out], features[held_out])[:, 1]
        tests, others = (scores[held_out & (is_test == side)] for side in (1, 0))
        area, variance = area_under_roc(tests, others)
        areas.append(area)
        variances.append(variance)
        sizes.append((len(tests), len(others)))
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
        p_value=_p_value(area, *sizes[0]),
        size=len(used[1]),
        other_size=len(used[0]),
    )


def area_under_roc(positives: np.ndarray, negatives: np.ndarray) -> tuple[float, float]:
    """Returns the area under the ROC curve and its variance, by DeLong's method.

    Args:
        positives: The scores of the rows that should be higher (m,).
        negatives: The scores of the others (n,).

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
    return float(above.mean()), float(np.var(above, ddof=1) / m + np.var(below, ddof=1) / n)


def _p_value(area: float, m: int, n: int) -> float:
    """Returns the one-sided probability of such an area if the scores say nothing."""
    from scipy.stats import norm

    return float(norm.sf((area - 0.5) / np.sqrt((m + n + 1) / (12 * m * n))))


def _drawn(rows: int, seed: int) -> np.ndarray:
    if rows <= _MOST:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).choice(rows, _MOST, replace=False))
