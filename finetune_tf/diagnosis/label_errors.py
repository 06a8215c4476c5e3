"""Likely label errors: confident learning on features of a model."""

from pathlib import Path

from finetune_tf.data import Examples
from finetune_tf.diagnosis.results import LabelErrors
from finetune_tf.model.finetune_model import FineTuneModel


def label_errors(
    model_or_checkpoint: FineTuneModel | str | Path,
    examples: Examples,
    *,
    folds: int = 5,
    seed: int = 0,
) -> LabelErrors:
    """Ranks rows by how likely their label is wrong (one label for each example)."""
    raise NotImplementedError
