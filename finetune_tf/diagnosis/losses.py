"""The rows with the highest losses."""

import numpy as np

from finetune_tf.base.arguments import check
from finetune_tf.base.spelling import names_checked
from finetune_tf.calibration.decided import decisions_of, predicted_by
from finetune_tf.calibration.scores import losses
from finetune_tf.data import Examples
from finetune_tf.diagnosis.features import text_of
from finetune_tf.diagnosis.results import LossRow, TopLosses
from finetune_tf.model.finetune_model import FineTuneModel


@names_checked
def top_losses(
    model: FineTuneModel, examples: Examples, n: int = 20, *, batch_size: int = 64
) -> TopLosses:
    """Returns the rows on which the loss of a model is highest.

    These are confident mistakes: wrong labels, ambiguous texts, and what the model has not learned.

    Args:
        model: A trained model from `load` that chooses among labels, for texts, words or images.
        examples: Examples with labels. On examples that the model was trained on, wrong labels may
            have a low loss, because they were learned.
        n: The number of rows.
        batch_size: Rows in a batch.

    Returns:
        The rows, highest loss first; print it.

    Raises:
        DataTypeError: If `examples` are not `Examples`.
        DataError: If they have no labels.
        ModelError: If the model does not choose among labels, as a regression does not.

    Example:
        >>> top = ft.diagnosis.top_losses(model, test, n=3)
        >>> len(top.rows), top.rows[0].loss >= top.rows[1].loss
        (3, True)
    """
    check(n=n, batch_size=batch_size)
    decisions = decisions_of(model, examples, batch_size)
    each = losses(decisions)
    rows, starts, sizes = np.unique(decisions.rows, return_index=True, return_counts=True)
    by_row = np.add.reduceat(each, starts) / sizes
    order = np.argsort(-by_row, kind="stable")[:n]
    predicted = predicted_by(model, decisions)
    found = []
    for i in order.tolist():
        # Of the words of a row the one with the highest loss.
        worst = starts[i] + int(np.argmax(each[starts[i] : starts[i] + sizes[i]]))
        found.append(
            LossRow(
                row=int(rows[i]),
                place=examples.places.name(int(rows[i])),
                text=text_of(examples, int(rows[i])),
                label=_named(decisions.targets[worst], model.labels),
                predicted=_named(predicted[worst], model.labels),
                probability=float(np.exp(-each[worst])),
                loss=float(by_row[i]),
            )
        )
    total = by_row.sum()
    return TopLosses(
        rows=found,
        data=examples.name,
        size=len(examples),
        mean_loss=float(by_row.mean()),
        share_of_loss=float(by_row[order].sum() / total) if total > 0 else 0.0,
    )


def _named(decided: np.ndarray, labels: tuple[str, ...]) -> str:
    """Returns the label of a class number; or the labels of 0 and 1 (labels,)."""
    if np.ndim(decided) == 0:
        return labels[int(decided)]
    return ", ".join(labels[i] for i in np.flatnonzero(decided)) or "none"
