"""Near duplicates within a data set, or between a training and a test set."""

from pathlib import Path

from finetune_tf.data import Examples
from finetune_tf.diagnosis.results import NearDuplicates
from finetune_tf.model.finetune_model import FineTuneModel


def near_duplicates(
    model_or_checkpoint: FineTuneModel | str | Path,
    train: Examples,
    test: Examples | None = None,
    *,
    similarity: float = 0.95,
) -> NearDuplicates:
    """Finds rows of `test` that are almost rows of `train`; without `test`, within `train`."""
    raise NotImplementedError
