"""Whether two data sets come from one distribution."""

from pathlib import Path

from finetune_tf.data import Examples
from finetune_tf.diagnosis.results import Drift
from finetune_tf.model.finetune_model import FineTuneModel


def drift(
    model_or_checkpoint: FineTuneModel | str | Path,
    train: Examples,
    test: Examples,
    *,
    n: int = 20,
    seed: int = 0,
) -> Drift:
    """Trains a probe to tell test examples from training examples, and measures how well it can."""
    raise NotImplementedError
