"""The decisions of a model on labeled examples, with the checks that all functions here share."""

from typing import Any

import numpy as np

from finetune_tf.calibration.scores import probabilities
from finetune_tf.data import Examples
from finetune_tf.errors import DataError, DataTypeError, ModelError
from finetune_tf.evaluation.predict import outputs
from finetune_tf.evaluation.predicted import targets_of
from finetune_tf.graph.stages import require_task
from finetune_tf.tasks.decisions import Decisions, decide, thresholds_of

#: With fewer rows, what is chosen on them often makes a model worse. The temperature of 20 rows
#: increased the loss on other rows in 27 % of draws, that of 50 rows in 10 %, of 100 rows in none.
FEWEST = 100
_FOLDS = 5


def decisions_of(model: Any, examples: Examples, batch_size: int = 64) -> Decisions:
    """Returns the decisions of a model on examples.

    Raises:
        DataTypeError: If the examples are not `Examples`.
        DataError: If they have no labels.
        ModelError: If the model does not choose among labels, or is not one of `load`.
    """
    if not isinstance(examples, Examples):
        raise DataTypeError(
            f"Expected Examples with labels, found {type(examples).__name__}. Give what from_csv "
            "and its kin return, not its batches."
        )
    task = require_task(model).task
    if not task.has_decisions:
        raise ModelError(
            "Probabilities and thresholds are those of a model that chooses among labels, for "
            f"texts, words or images; found a model for {task.title.replace('_', ' ')}, which "
            "has none."
        )
    targets_of(model, examples)  # before the model takes minutes
    rows, encoded = outputs(model, examples, batch_size)
    return task.decisions(rows, encoded, examples)


def predicted_by(model: Any, decisions: Decisions) -> np.ndarray:
    """Returns what `ft.predict` makes of decisions, with the thresholds of the model.

    Returns:
        The number of a label for each decision (n,); or, for several labels, 0 and 1 (n, labels).
    """
    # A word gets its most probable label in any case.
    is_word = model.task.token_axis is not None
    thresholds = {} if is_word else thresholds_of(model.labels, model.config)
    return decide(probabilities(decisions), model.labels, thresholds)


def require_rows(decisions: Decisions, examples: Examples, purpose: str) -> None:
    """Checks that there are enough rows to choose something on them.

    Args:
        decisions: The decisions of the model.
        examples: Their examples.
        purpose: What they are for, such as "A temperature".

    Raises:
        DataError: If there are fewer than `FEWEST`, or all have the same label.
    """
    if len(examples) < FEWEST:
        raise DataError(
            f"{purpose} needs at least {FEWEST} validation examples, found {len(examples):,} in "
            f"{examples.name}. With fewer, what is chosen often makes predictions on other "
            "examples worse: hold out more, for example train.split(0.2)."
        )
    if len(np.unique(decisions.targets)) == 1:
        found = "the same label" if not decisions.is_several else "the same value of each label"
        raise DataError(
            f"{purpose} needs validation examples of at least two classes, but all "
            f"{len(examples):,} rows of {examples.name} have {found}. Shuffle the data before "
            "splitting it."
        )


def folds_of(decisions: Decisions, seed: int) -> list[np.ndarray]:
    """Divides the examples at random and returns the decisions of each part, as boolean masks."""
    examples = np.unique(decisions.rows)
    part = np.random.default_rng(seed).permutation(len(examples)) % _FOLDS
    parts = part[np.searchsorted(examples, decisions.rows)]
    return [parts == fold for fold in range(_FOLDS)]


def subset(decisions: Decisions, mask: np.ndarray) -> Decisions:
    """Returns some of the decisions."""
    logits, targets, rows, is_several = decisions
    return Decisions(logits[mask], targets[mask], rows[mask], is_several)
