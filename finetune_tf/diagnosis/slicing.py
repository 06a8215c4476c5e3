"""The metric on parts of the examples."""

from collections.abc import Mapping, Sequence
from typing import Any

from finetune_tf.data import Examples
from finetune_tf.diagnosis.results import Slices
from finetune_tf.model.finetune_model import FineTuneModel


def slices(
    model: FineTuneModel,
    examples: Examples,
    by: str | Sequence[str] | Mapping[str, Sequence[Any]] = ("length", "label"),
    *,
    min_rows: int = 20,
    batch_size: int = 64,
    seed: int = 0,
) -> Slices:
    """Evaluates a model on slices: by length, by label, by a column, or by values of your own."""
    raise NotImplementedError
